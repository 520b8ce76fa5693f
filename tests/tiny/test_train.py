"""`python tiny/train.py`: its stages in order, killed and resumed, limited in time, refused when changed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.support.pretraining import pretrained
from tiny import pipeline
from tiny.pipeline import PipelineConfig, Stage, read_pipeline, settings
from tiny.train import main
from training.data.umt5 import load_umt5
from training.data.wan_vae import load_vae
from training.methods.programs import distill_config, finetune_config
from vdot_core.checkpoints import inspect, load_network

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tiny" / "train.py"
WEIGHTS = {
    "vdot_tiny_vae.safetensors", "vdot_tiny_text.safetensors", "vdot_tiny_evaluator.safetensors",
    "vdot_tiny.safetensors", "student_stage1.safetensors", "vdot_tiny_student.safetensors",
}  # fmt: skip


def start(*words: str, **options) -> subprocess.Popen:
    """The program in its own process group, so that a kill ends its stage too."""
    return subprocess.Popen([sys.executable, str(PROGRAM), *words], process_group=0, **options)


def test_the_recipe_is_valid_at_every_scale(tmp_path):
    for scale in (1.0, 0.01, 0.0001):
        config = read_pipeline(["--out_dir", str(tmp_path), "--scale", str(scale), "--device", "cuda"])
        assert {name for stage in config.stages for name in stage.gives} == WEIGHTS
        for stage in config.stages:
            values = settings(config, stage)
            if stage.program != "tiny/pretrain.py":
                read = {"training/finetune.py": finetune_config, "training/distill.py": distill_config}
                run = read[stage.program](values)
                assert run.parallel.device == "cuda" and run.log.checkpoint_files == 8
                assert run.steps == max(2, round(stage.config["steps"] * scale))
                assert run.data.vae == str(config.weights / "vdot_tiny_vae.safetensors")


def test_a_full_run_has_the_recipes_numbers_and_a_check_a_quarter_of_its_batches(tmp_path):
    config = read_pipeline(["--out_dir", str(tmp_path)])
    for stage in config.stages:
        values = json.loads(json.dumps(settings(config, stage)).replace(str(config.weights), "{weights}"))
        filled = {"parallel": {"device": "auto"}, "data": {"cache_dir": str(tmp_path / stage.name / "cache")}}
        for key, value in stage.config.items():
            assert values[key] == (value | filled[key] if key in filled else value), key
    config = read_pipeline(["--out_dir", str(tmp_path), "--scale", "0.01"])
    vae, *_, frames, _, _, student = (settings(config, stage) for stage in config.stages)
    assert [stage["batch"] for stage in vae["vae"]["stages"]] == [8, 2, 1, 1]
    assert (frames["steps"], frames["data"]["batch_size"], frames["parallel"]["compile"]) == (140, 15, False)
    assert [group["num_clips"] for group in frames["data"]["producer_args"]["groups"]] == [125, 30, 15, 5]
    assert (student["steps"], student["data"]["batch_size"]) == (26, 2)
    assert "task_weights" not in student["data"] and "task_guidance" not in student["losses"]


def test_a_third_of_a_run_keeps_the_batches_and_the_weights_of_tasks(tmp_path):
    config = read_pipeline(["--out_dir", str(tmp_path), "--scale", "0.33"])
    for stage in config.stages[-4:]:
        values = settings(config, stage)
        assert values["steps"] == round(0.33 * stage.config["steps"])
        for key in ("batch_size", "task_weights"):
            assert values["data"][key] == stage.config["data"][key]
        assert values["losses"] == stage.config["losses"]


def small(folder: Path, **changes) -> Path:
    """Two stages of seconds: a text encoder, and a VAE of 4 channels; returns their file."""
    size = {"num_frames": 5, "size_px": 16, "draw_px": 32, "batch": 2, "lr_start": 1e-3, "lr_end": 1e-4}
    common = {"seed": 3, "log_every": 1, "validate_every": 0, "save_minutes": 0}
    vae = {"base_dim": 4, "num_validation": 1, "stages": [{**size, "steps": 10}]}
    stages = [
        {
            "name": "text",
            "program": "tiny/pretrain.py",
            "gives": {"vdot_tiny_text.safetensors": "export/vdot_tiny_text.safetensors"},
            "config": {"model": "text", **common, "text": {"layers": 1, "num_clips": 20, "steps": 10}},
        },
        {
            "name": "vae",
            "program": "tiny/pretrain.py",
            "gives": {"vdot_tiny_vae.safetensors": "export/vdot_tiny_vae.safetensors"},
            "config": {"model": "vae", **common, "vae": {**vae, **changes}},
        },
    ]
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump({"out_dir": str(folder / "out"), "stages": stages}))
    return path


def wait_for(path: Path, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not any(path.parent.glob(path.name)):
        assert process.poll() is None and time.monotonic() < end, path
        time.sleep(0.05)


def _stage(name: str, **config) -> dict:
    gives = {"x.safetensors": "export/x"}
    return {"name": name, "program": "tiny/pretrain.py", "gives": gives, "config": config}


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([], r"stages are \[\]; give one or more"),
        ([_stage("a"), _stage("A")], "of different names"),
        ([_stage("../a")], r"stages: name has '../a'; give a plain word"),
        ([{**_stage("a"), "gives": {"x": "../../y"}}], r"stages: gives has '../../y'"),
        ([_stage("a", data=None)], "stages: data of a is missing; give keys"),
    ],
)
def test_stages_that_cannot_run_are_named(tmp_path, capsys, stages, words):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"stages": stages, "out_dir": str(tmp_path / "out")}))
    assert main(["--config", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(words, line) and len(line) <= 400
    assert not (tmp_path / "out").exists()


def test_a_stage_that_is_trained_again_leaves_no_weights_of_two_recipes(tmp_path, capsys, monkeypatch):
    """The second stage begins with the first one's file, and replaces it among the weights."""
    runs, out = [], tmp_path / "out"

    def train(command, name, seconds):
        settings = yaml.safe_load(Path(command[-1]).read_text())
        export = Path(settings["out_dir"]) / "export"
        export.mkdir(parents=True, exist_ok=True)
        (export / "x").write_text(f"{name} {settings['seed']}")
        runs.append(name)
        return 0

    monkeypatch.setattr(pipeline, "_run", train)

    def start_with(seed):
        stages = [_stage("first", seed=seed), _stage("second", seed=1, start="{weights}/x.safetensors")]
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({"stages": stages, "out_dir": str(out)}))
        return main(["--config", str(path)])

    assert start_with(0) == start_with(0) == 0 and runs == ["first", "second"]
    shutil.rmtree(out / "first")
    assert start_with(0) == 0 and runs == ["first", "second", "first"]
    assert (out / "weights" / "x.safetensors").read_text() == "second 1"
    shutil.rmtree(out / "first")
    assert start_with(5) == 2
    assert "second was started from another x.safetensors: remove" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"stages": [_stage("a")], "out_dir": str(tmp_path / "out")}))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").touch()
    assert main(["--config", str(path)]) == 1
    assert "out/a cannot be written (File exists" in capsys.readouterr().err


@pytest.mark.full
def test_killed_in_two_stages_it_ends_with_the_weights_of_an_uninterrupted_run(tmp_path):
    path = small(tmp_path)
    for stage in ("text", "vae"):
        process = start("--config", str(path))
        wait_for(tmp_path / "out" / stage / "checkpoints" / "step-*", process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start("--config", str(path)).wait(300) == 0
    config = read_pipeline(["--config", str(path), "--out_dir", str(tmp_path / "whole")])
    for stage in config.stages:
        pretrained(settings(config, stage), tmp_path / f"{stage.name}.yaml")
        for name, file in stage.gives.items():
            one = load_file(tmp_path / "whole" / stage.name / file)
            other = load_file(tmp_path / "out" / "weights" / name)
            assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one), name
    # All is done: a further start runs nothing.
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")}
    assert start("--config", str(path)).wait(600) == 0
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")}


@pytest.mark.full
def test_the_time_limit_ends_it_with_status_3_and_changed_settings_are_refused(tmp_path):
    path = small(tmp_path)
    process = start("--config", str(path), "--minutes", "0.0001", stderr=subprocess.PIPE, text=True)
    output = process.communicate(timeout=6000)[1]
    assert process.returncode == 3 and "the same command resumes" in output
    process = start("--config", str(small(tmp_path, base_dim=8)), stderr=subprocess.PIPE, text=True)
    process.communicate(timeout=300)
    assert process.returncode == 0, "a stage that was not started may change"
    process = start("--config", str(small(tmp_path, base_dim=4)), stderr=subprocess.PIPE, text=True)
    output = process.communicate(timeout=6000)[1]
    assert process.returncode == 2 and "vae was started with other settings" in output
    process = start("--scale", "2", stderr=subprocess.PIPE, text=True)
    assert "scale is 2" in process.communicate(timeout=600)[1] and process.returncode == 2


@pytest.mark.full
def test_a_stage_that_fails_ends_the_run_and_is_named(tmp_path):
    path = small(tmp_path, start_from="nowhere.safetensors")
    process = start("--config", str(path), stderr=subprocess.PIPE, text=True)
    output = process.communicate(timeout=6000)[1]
    assert process.returncode == 1 and "vae: failed with status 2" in output and "nowhere" in output


def test_settings_of_a_stage_are_filled_in():
    stage = Stage(
        "x", "training/distill.py", {"steps": 1000, "data": {"vae": "{weights}/v"}, "losses": {}}, {}
    )
    values = settings(PipelineConfig([stage], "/out", 0.01, device="cpu"), stage)
    assert values["steps"] == 10 and values["data"] == {"vae": "/out/weights/v", "cache_dir": "/out/x/cache"}
    assert values["parallel"] == {"device": "cpu"} and json.dumps(values)


@pytest.mark.full
def test_every_weight_from_nothing(tmp_path):
    """The full recipe at a hundredth: five minutes of two idle cores."""
    assert start("--out_dir", str(tmp_path), "--scale", "0.01").wait(3000) == 0
    weights = tmp_path / "weights"
    assert {path.name for path in weights.iterdir()} == WEIGHTS
    load_vae(weights / "vdot_tiny_vae.safetensors")
    load_umt5(weights / "vdot_tiny_text.safetensors")
    for name in ("vdot_tiny", "vdot_tiny_student"):
        file = weights / f"{name}.safetensors"
        assert inspect(file).config.text_dim == 128
        assert all(p.isfinite().all() for p in load_network(file, dtype=torch.float32).parameters())
    parts = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in parts) <= 16 * 2**20
