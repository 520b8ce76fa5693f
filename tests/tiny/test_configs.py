"""The shipped configurations fit together, and a run that cannot begin says in a line what it lacks."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tiny import latents, pretrain
from tiny.config import parse_config
from tiny.vae_task import VaeTask

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {
    path.name: yaml.safe_load(path.read_text(encoding="utf-8"))
    for folder in ("tiny", "training")
    for path in sorted((ROOT / folder / "configs").glob("*.yaml"))
}
MAKER = {values["out_dir"]: name for name, values in CONFIGS.items()}
PRETRAININGS = {name: values for name, values in CONFIGS.items() if isinstance(values.get("model"), str)}
# The last run of each kind, whose weights are shipped: the only ones that may write them to their place.
SHIPPING = {
    "vae": "tiny_vae_sharp.yaml",
    "text": "tiny_text.yaml",
    "teacher": "tiny_teacher_mixed.yaml",
    "evaluator": "tiny_evaluator.yaml",
}
FILES = {
    "vae": "vdot_tiny_vae.safetensors",
    "text_encoder": "vdot_tiny_text.safetensors",
    "acc_wan_init": "generator.safetensors",
    "transformer": "generator.safetensors",
}
OWN = ("cache_dir", "clips")  # a run fills these itself where no other has


def _paths(values, key: str = "") -> Iterator[tuple[str, str]]:
    """(last key, path) of everything under runs/ that a configuration reads."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _paths(value, name)
    elif isinstance(values, list):
        for value in values:
            yield from _paths(value, key)
    elif isinstance(values, str) and values.startswith("runs/") and key != "out_dir":
        yield key, values


def _folder(path: str) -> str:
    return "/".join(path.split("/")[:2])


def test_every_run_has_a_folder_of_its_own():
    assert len(MAKER) == len(CONFIGS)
    assert set(SHIPPING.values()) <= set(CONFIGS)
    for name, values in PRETRAININGS.items():
        assert values["out_dir"] == f"runs/{Path(name).stem}"


@pytest.mark.parametrize("name", CONFIGS)
def test_what_a_configuration_begins_with_another_one_makes(name):
    own = CONFIGS[name]["out_dir"]
    for key, path in _paths(CONFIGS[name]):
        assert _folder(path) in MAKER, f"{key}: no configuration has {_folder(path)} as its out_dir"
        if key in OWN:
            assert path == f"{_folder(path)}/cache"
            continue
        assert _folder(path) != own, f"{key} is what this run itself makes"
        if key in FILES:
            assert path == f"{_folder(path)}/export/{FILES[key]}"
        elif key == "start_from":
            maker = CONFIGS[MAKER[_folder(path)]]
            whole = f"/{FILES['vae']}" if maker["model"] == "vae" else ""
            assert path == f"{_folder(path)}/export{whole}"
            assert maker["model"] == CONFIGS[name]["model"]


def test_the_chain_of_runs_has_a_beginning():
    needs = {
        name: {MAKER.get(_folder(path)) for key, path in _paths(values) if key not in OWN}
        for name, values in CONFIGS.items()
    }
    ready: set[str] = set()
    while new := {name for name, before in needs.items() if before <= ready} - ready:
        ready |= new
    assert ready == needs.keys(), f"these wait for each other or for nothing: {sorted(needs.keys() - ready)}"


@pytest.mark.parametrize("name", PRETRAININGS)
def test_only_the_last_run_of_a_kind_writes_what_is_shipped(name):
    """A run that others begin with must not put its weights in the place of the shipped ones."""
    values = PRETRAININGS[name]
    if values.get("assets_dir") is None:
        return
    assert name == SHIPPING[values["model"]], f"assets_dir is {values['assets_dir']}; only the last run's is"
    followers = [
        other
        for other, given in PRETRAININGS.items()
        for key, path in _paths(given)
        if key == "start_from" and _folder(path) == values["out_dir"]
    ]
    assert not followers, f"{followers} go on from it"


def _file(name: str) -> Path:
    folder = "training" if name.startswith("wan_") else "tiny"
    return ROOT / folder / "configs" / name


def _chunks(name: str) -> dict[tuple, tuple]:
    """What the files of a teacher's cache are of, by the names that two runs can both give them."""
    config = parse_config(["--config", str(_file(name))])
    made, start = {}, 0
    for number, group in enumerate(config.teacher.groups):
        key = (number, group.width, group.height, group.num_frames)
        made[key] = (start, *(getattr(group, field) for field in latents.OF_GROUP))
        start += group.num_clips
    return made


def test_runs_that_share_a_cache_have_the_same_clips_in_it():
    sharing: dict[str, list[str]] = {}
    for name, values in PRETRAININGS.items():
        if values["model"] == "teacher" and values["teacher"].get("groups"):
            sharing.setdefault(values["teacher"]["cache_dir"], []).append(name)
    wrong = []
    for names in sharing.values():
        made = {name: _chunks(name) for name in names}
        for one, other in itertools.combinations(names, 2):
            common = made[one].keys() & made[other]
            wrong += [(one, other, key) for key in sorted(common) if made[one][key] != made[other][key]]
    assert not wrong, "the second run would be refused the first one's files"


@pytest.mark.parametrize("name", PRETRAININGS)
def test_a_run_without_what_it_begins_with_names_key_path_and_maker(name, tmp_path, monkeypatch, capsys):
    """As in a fresh clone of which not even the shipped weights were fetched."""
    monkeypatch.chdir(tmp_path)
    file = str(_file(name))
    lacking = pretrain.files_to_begin_with(parse_config(["--config", file]))
    if not lacking:
        assert PRETRAININGS[name].get("vae", {}).get("start_from") is None
        return
    key, path = next(iter(lacking.items()))
    assert pretrain.main(["--config", file]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{key} is {path}, which is not there" in line
    maker = MAKER.get(_folder(path))
    assert (f"tiny/configs/{maker} makes it" in line) == bool(maker)
    section, field = key.split(".")
    assert PRETRAININGS[name].get(section, {}).get(field, path) == path


def test_the_program_ends_with_status_2_and_no_traceback(tmp_path):
    command = [sys.executable, str(ROOT / "tiny" / "pretrain.py"), "--config"]
    command += [str(_file("tiny_vae_more.yaml"))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "vae.start_from" in line and "tiny/configs/tiny_vae_decoder.yaml makes it" in line


def _tiny_vae(folder: Path, **changes) -> list[str]:
    stage = {"steps": 1, "num_frames": 1, "size_px": 16, "batch": 1, "lr_start": 1e-3, "lr_end": 1e-3}
    given = {"base_dim": 4, "num_validation": 1, "stages": [stage], **changes}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({"model": "vae", "out_dir": str(folder / "out"), "vae": given}))
    return ["--config", str(path)]


def test_files_of_another_kind_are_named(tmp_path, capsys):
    for name, content in (("notes.txt", "no weights"), ("folder", None)):
        file = tmp_path / name
        file.mkdir() if content is None else file.write_text(content)
        assert pretrain.main(_tiny_vae(tmp_path, start_from=str(file))) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{file} cannot be read" in line and "give a Wan VAE" in line
    assert pretrain.main(_tiny_vae(tmp_path, stages=[])) == 2
    assert "vae.stages is empty" in capsys.readouterr().err


def test_what_goes_wrong_in_training_keeps_its_traceback(tmp_path, monkeypatch):
    def fail(task, step):
        raise ValueError(f"wrong at step {step}")

    monkeypatch.setattr(VaeTask, "train_step", fail)
    with pytest.raises(ValueError, match="wrong at step 0"):
        pretrain.main(_tiny_vae(tmp_path))
