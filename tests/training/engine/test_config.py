"""The configuration: typed, every key known and explained, recipes as defaults."""

import dataclasses
import importlib
import inspect
import itertools
import re
import subprocess
import sys
from operator import attrgetter
from pathlib import Path

import pytest
import torch
import yaml

from training.distill import main
from training.distributed import world as parallel
from training.distributed.config import ParallelConfig
from training.methods.programs import distill_config, distill_parser, finetune_config, finetune_parser
from training.methods.recipes import RECIPES

ROWS = {"source": "manifest", "path": "clips.csv"}
ROOT = Path(__file__).resolve().parents[3]


def test_a_home_in_a_file_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = distill_config({"out_dir": "~/run", "data": {**ROWS, "path": "~/clips.csv"}})
    assert config.out_dir == f"{tmp_path}/run" and config.data.path == f"{tmp_path}/clips.csv"
    assert distill_config({"data": ROWS}).data.path == "clips.csv"


@pytest.mark.parametrize(
    "values, message",
    [
        ({"losses": {"debbias": True}}, "losses.debbias; did you mean losses.debias"),
        ({"loses": {"eps": 0.1}}, "did you mean losses.eps"),
        ({"generator_lr": 1e-5}, "did you mean optim.generator_lr"),
        ({"losses": {"eps": "much"}}, "losses.eps"),
        ({"losses": {"eps": 0}}, "losses.eps is 0"),
        ({"losses": {"min_timestep": 990.0}}, "990.0..980.0"),
        ({"recipe": "fixed"}, "'corrected', 'released'"),
        ({"losses": {"dmd": False, "otd": False, "gan": False}}, "all false"),
        ({"model": {"preset": "wan_99b"}}, "wan_vace_14b"),
        ({"losses": {"rho_fake": 0.0}}, "losses.rho_fake is 0.0; expected above 0, or null"),
        ({"losses": {"rho_real": -1.0}}, "losses.rho_real is -1.0"),
        ({"losses": {"rho_fake": 0.5}}, "losses.debias is true, rho_fake 0.5 and rho_real null"),
        ({"losses": {"guidance": float("nan")}}, "losses.guidance is nan; expected a finite number"),
        ({"losses": {"task_guidance": {"depth": -1.0}}}, "losses.task_guidance.depth is -1.0; expected 0"),
        ({"data": {"frame_rate": float("nan")}}, "data.frame_rate is nan; expected a finite number"),
        ({"data": {"max_pixels": 10**12}}, "data.max_pixels is 1000000000000; expected 256"),
        ({"data": {"max_pixels": 255}}, "data.max_pixels is 255; expected 256"),
        ({"data": {"width": 16_000_000, "height": 16}}, "data.width is 16000000; expected a multiple of 16"),
        ({"data": {"workers": 100_000}}, "data.workers is 100000; expected 0 to 256"),
        ({"data": {"task_weights": {"depth": float("nan")}}}, "data.task_weights.depth is nan"),
        ({"data": {**ROWS, "task_weights": {"dephts": 1.0}}}, "data.task_weights: task_name 'dephts' is"),
        (
            {"data": {**ROWS, "task_weights": {"Depth": 1.0}}},
            "data.task_weights has 'Depth', a task that rows",
        ),
        ({"data": ROWS, "losses": {"task_guidance": {"pos": 1.0}}}, "losses.task_guidance: task_name 'pos'"),
        ({"losses": {"r1": -1.0}}, "losses.r1 is -1.0; expected 0 or more"),
        ({"losses": {"r2": float("nan")}}, "losses.r2 is nan"),
        ({"losses": {"gan_weight": -0.1}}, "losses.gan_weight is -0.1"),
        ({"losses": {"penalty_sigma": 0.0}}, "losses.penalty_sigma is 0.0; expected above 0"),
        ({"rollout": {"noise_shift": 0.0}}, "rollout.noise_shift is 0.0; expected above 0"),
        ({"optim": {"generator_lr": -1e-6}}, "optim.generator_lr is -1e-06; expected 0 or more, and below 1"),
        ({"optim": {"critic_lr": 3.0}}, "optim.critic_lr is 3.0"),
        ({"optim": {"discriminator_lr": float("nan")}}, "optim.discriminator_lr is nan"),
        ({"optim": {"warmup": -5}}, "optim.warmup is -5 steps"),
        ({"optim": {"optimizer": "muon"}}, "optim.optimizer is muon, which updates one network"),
        ({"optim": {"betas": [0.9, 1.0]}}, "optim.betas are 0.9, 1.0; expected decays in [0, 1)"),
        ({"optim": {"weight_decay": -0.1}}, "optim.weight_decay is -0.1"),
        ({"parallel": {"checkpoint_every": -2}}, "parallel.checkpoint_every is -2; expected 0 or more"),
        ({"parallel": {"timeout_s": 0}}, "parallel.timeout_s is 0; expected 1 or more"),
        ({"log": {"sample_every": -1}}, "log.sample_every is -1"),
        ({"log": {"num_samples": 0}}, "log.num_samples is 0"),
        ({"max_steps": 0}, "max_steps is 0; expected at least 1, or null"),
        ({"steps": 10**30}, "steps is 1000000000000000000000000000000; expected at most 20 digits"),
        ({"out_dir": " "}, "out_dir is empty; give a folder"),
        ({"data": {"cache_dir": ""}}, "data.cache_dir is empty; give a folder"),
        ({"data": {"path": "a\0b"}}, r"data.path is 'a\x00b', which holds a null byte"),
        ({"data": {"text_len": 0}}, "data.text_len is 0; expected 1 to 4096"),
        ({"rollout": {"steps": 10**6}}, "rollout.steps is 1000000; expected 1 to 1000"),
        ({"rollout": {"shift": 1e300}}, "rollout.shift is 1e+300; expected 0.001 to 1000"),
        ({"losses": {"score_shift": 1e-300}}, "losses.score_shift is 1e-300; expected 0.001 to 1000"),
        ({"losses": {"iterations": 10**12}}, "losses.iterations is 1000000000000; expected 1 to 1000000"),
        ({"optim": {"weight_decay": 1e300}}, "optim.weight_decay is 1e+300; expected 0 to 10"),
        ({"parallel": {"timeout_s": 10**12}}, "parallel.timeout_s is 1000000000000; expected 1 to"),
        ({"parallel": {"threads": 10**6}}, "parallel.threads is 1000000; expected 0 to 1024"),
        ({"log": {"checkpoint_files": 10**9}}, "log.checkpoint_files is 1000000000; expected 1 to 1024"),
        ({"log": {"sample_every": 5}}, "log.sample_every is 5 and log.vae is not set"),
    ],
)
def test_mistakes_are_refused_by_name(values, message):
    with pytest.raises(ValueError) as error:
        distill_config(values)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "values, message",
    [
        (
            {"parallel": {"fsdp": False, "cpu_offload": True}},
            "parallel.cpu_offload is true and parallel.fsdp",
        ),
        ({"parallel": {"fsdp": False, "hsdp_replicas": 2}}, "parallel.hsdp_replicas is 2 and parallel.fsdp"),
        ({"recipe": "released", "losses": {"eps_mode": "mean_cost"}}, "losses.eps_mode is mean_cost and"),
        ({"recipe": "released", "losses": {"debias": True}}, "losses.debias is true and losses.otd_gradient"),
        ({"recipe": "released", "losses": {"cost": "l1"}}, "losses.cost is l1 and losses.otd_gradient"),
        ({"recipe": "released", "losses": {"rho_fake": 0.5}}, "losses.rho_fake is 0.5 and"),
        ({"recipe": "released", "losses": {"rho_real": 0.5}}, "losses.rho_real is 0.5 and"),
        ({"recipe": "released", "losses": {"tol": 1e-5}}, "losses.tol is 1e-05 and"),
        ({"losses": {"otd_gradient": "unrolled"}}, "unrolled, which ignores it; set eps_mode absolute, or"),
        ({"losses": {"otd_scale": 2.0}}, "losses.otd_scale is 2.0 and losses.otd_gradient envelope, which"),
    ],
)
def test_what_another_setting_would_ignore_is_refused(values, message):
    with pytest.raises(ValueError) as error:
        distill_config(values)
    assert message in str(error.value)
    # Where there is no transport, nothing of it is asked.
    if "losses" in values:
        distill_config({**values, "losses": {**values["losses"], "otd": False}})


def test_offloading_of_one_unsharded_process_is_refused():
    with pytest.raises(ValueError, match=r"parallel\.cpu_offload is true, .*parallel\.fsdp auto"):
        parallel.start(ParallelConfig(cpu_offload=True, device="cpu"))
    assert not torch.distributed.is_initialized()


def test_a_misspelled_key_on_the_command_line_or_in_a_file_ends_the_program(tmp_path, capsys):
    assert main(["--losses.debbias", "true"]) == 2
    assert "did you mean losses.debias" in capsys.readouterr().err
    (tmp_path / "run.yaml").write_text("optim: {generatr_lr: 1.0e-6}")
    assert main(["--config", str(tmp_path / "run.yaml")]) == 2
    output = capsys.readouterr().err
    assert "unknown key optim.generatr_lr; did you mean optim.generator_lr" in output


def test_recipes_are_defaults_that_keys_override(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"recipe": "released", "losses": {"eps": 0.3}}))
    config = distill_parser().read(["--config", str(path), "--losses.otd_pool", "1"])[0]
    assert (config.losses.eps, config.losses.otd_pool) == (0.3, 1)
    assert (config.losses.otd_gradient, config.rollout.noise_shift) == ("unrolled", 16.0)
    assert (
        distill_parser().read(["--config", str(path), "--recipe", "corrected"])[0].rollout.noise_shift == 8.0
    )
    for name, table in RECIPES.items():
        config = distill_config({"recipe": name})
        for key, value in table.items():
            section, field = key.split(".")
            assert getattr(getattr(config, section), field) == value


def _helped() -> dict[str, str]:
    """Key -> its text in `--help`."""
    text = distill_parser().parser.format_help()
    entries = re.findall(r"^  --([\w.]+) (.*?)(?=^  -|^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    return {key: " ".join(words.split()) for key, words in entries}


def _keys(config, prefix="") -> list[str]:
    """Dotted keys of a configuration."""
    keys = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        nested = dataclasses.is_dataclass(value)
        keys += _keys(value, f"{prefix}{field.name}.") if nested else [prefix + field.name]
    return keys


@pytest.mark.parametrize("parser", [distill_parser, finetune_parser])
def test_every_key_is_explained_with_its_default(parser, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    config, _ = parser().read([])
    actions = {action.dest: action for action in parser().parser._actions}
    for key in _keys(config):
        action = actions[key]
        assert action.help and len(action.help.strip()) > 10, f"{key} is not explained"
        assert action.default == attrgetter(key)(config) or key.startswith("data."), key


PROGRAMS = ("training.distill", "training.finetune", "training.cache", "training.plan", "training.sweep")
PROGRAMS += ("tiny.train", "tiny.pretrain", "tiny.evaluate")


@pytest.mark.parametrize("dedented", [False, True])
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_option_of_a_program_has_a_help_text(program, dedented, monkeypatch, capsys):
    """Also with dedented docstrings, as Python 3.13 has them."""
    monkeypatch.setenv("COLUMNS", "1000")
    main = importlib.import_module(program).main
    if dedented:
        ours = [module for name, module in sys.modules.items() if name.startswith(("training.", "tiny."))]
        for config in {x for module in ours for x in vars(module).values() if isinstance(x, type)}:
            if dataclasses.is_dataclass(config) and config.__doc__:
                monkeypatch.setattr(config, "__doc__", inspect.cleandoc(config.__doc__))
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    entries = re.findall(r"^  (?:-\w, )?--([\w.]+)(.*?)(?=^  -|^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    assert len(entries) > 3
    # Without what stands for the value, and without type and default.
    helped = {key: re.sub(r"^ *(\S+ )? *|\(type: .*", "", words, flags=re.DOTALL) for key, words in entries}
    assert {key: words for key, words in helped.items() if len(words.split()) < 2} == {}


UNITS = {
    "steps": "Critic updates", "max_steps": "step", "optim.warmup": "Steps", "optim.generator_every": "Steps",
    "log.every": "Steps", "log.save_every": "Steps", "log.sample_every": "Steps", "rollout.steps": "calls",
    "parallel.timeout_s": "Seconds", "parallel.checkpoint_every": "Blocks", "parallel.threads": "threads",
    "data.width": "pixels", "data.height": "pixels", "data.max_pixels": "width * height",
    "data.num_frames": "frames", "data.min_frames": "Clips shorter than", "data.frame_rate": "per second",
    "data.text_len": "Tokens", "data.batch_size": "Samples", "data.group_size": "Samples",
    "losses.eps": "eps_mode", "losses.rho_fake": "units of eps", "losses.tol": "L1",
    "losses.min_timestep": "of 1000", "losses.max_timestep": "of 1000", "losses.text_drop": "Probability",
    "losses.penalty_sigma": "Standard deviation", "optim.ema": "per update",
}  # fmt: skip


def test_quantities_are_explained_with_their_units(monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    helped = _helped()
    assert {key: helped[key] for key, unit in UNITS.items() if unit not in helped[key]} == {}


def _runs() -> list[Path]:
    """The bundled files that are distillation runs: of the others' `model` is a name, or they have none."""
    paths = [
        path for folder in ("tiny", "training") for path in sorted((ROOT / folder / "configs").glob("*.yaml"))
    ]
    return [path for path in paths if isinstance(yaml.safe_load(path.read_text()).get("model"), dict)]


@pytest.mark.parametrize("path", _runs(), ids=lambda path: path.stem)
def test_bundled_configurations_are_valid(path):
    read = finetune_config if "finetune" in path.stem else distill_config
    read(yaml.safe_load(path.read_text()))


def test_the_entry_works_from_any_directory(tmp_path):
    """Prints a configuration that is read back to the same one."""
    command = [sys.executable, str(ROOT / "training/distill.py"), "--recipe", "released"]
    process = subprocess.run(
        [*command, "--print_config"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    (tmp_path / "again.yaml").write_text(process.stdout)
    again = distill_parser().read(["--config", str(tmp_path / "again.yaml")])[0]
    assert again == distill_config({"recipe": "released"})


def test_yaml_that_multiplies_itself_is_refused_at_once(tmp_path, capsys):
    """Nine values, each nine times in the next, nine times over: gigabytes from under 400 bytes."""
    names = "abcdefghi"
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{n}: &{n} [{', '.join(['*' + b] * 9)}]" for b, n in itertools.pairwise(names)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    assert main(["--config", str(path)]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "72 aliases (*name), expected at most 16" in message and len(message) < 400
    path.write_text("data: &some {workers: 1}\nseed: 3\n")
    assert distill_parser().read(["--config", str(path)])[0].seed == 3


HOSTILE_YAML = {
    "levels that overflow the stack": ("data: " + "[" * 100_000, "nested more than 50 levels deep"),
    "a number of base 60, minutes long": ("seed: " + ":".join(["59"] * 150_000), "digits"),
    "a number that is said to be one": ('seed: !!int "' + ":".join(["59"] * 150_000) + '"', "digits"),
    "a key that stands twice": ("seed: 1\ndata:\n  workers: 1\nseed: 2", "key seed stands twice.* line 4"),
    "a value in itself": ("data: &a {vae: *a}", "a is a part of itself"),
    "a date that is none": ("out_dir: !!timestamp 2026-99-99", "month must be"),
}


@pytest.mark.parametrize("kind", HOSTILE_YAML)
def test_yaml_that_crashes_a_reader_or_hides_a_value_is_refused(tmp_path, capsys, kind):
    text, words = HOSTILE_YAML[kind]
    (tmp_path / "run.yaml").write_text(text)
    assert main(["--config", str(tmp_path / "run.yaml")]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert re.search(words, message) and len(message) <= 400, message


@pytest.mark.parametrize("seed", [-1, 2**64, 10**400])
def test_a_seed_that_no_generator_takes_is_refused_at_once(seed):
    with pytest.raises(
        ValueError, match=r"seed is .*; expected (0 or more, below|at most 20 digits)"
    ) as error:
        distill_config({"seed": seed})
    assert len(str(error.value)) <= 400


def test_tasks_of_a_cache_or_a_producer_may_have_any_name():
    """Those of rows are known, in the form that rows have."""
    for data in ({}, {"task_weights": {"juggling": 1.0}}):
        assert distill_config({"data": data, "losses": {"task_guidance": {"juggling": 1.0}}})
    weights = {"depth": 1.0, "reference_pose": 0.5, "text": 0.2}
    config = {"data": {**ROWS, "task_weights": weights}}
    assert distill_config(config).data.task_weights == weights
    with pytest.raises(ValueError, match=r"losses\.task_text_drop: task_name 'nope' is unknown"):
        finetune_config({**config, "losses": {"task_text_drop": {"nope": 0.1}}})


@pytest.mark.parametrize("words", [["--data.path", "x" * 5000], ["--data=\udce8"]])
def test_names_that_no_file_has_are_no_traceback(words, tmp_path, capsys):
    """Too long for the system, and bytes that are not UTF-8."""
    assert main([*words, "--out_dir", str(tmp_path), "--data.cache_dir", str(tmp_path / "none")]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert len(message) <= 400 and "\udce8" not in message
