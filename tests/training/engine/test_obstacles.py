"""Obstacles in a run's folder and a full disk end in one sentence; damaged checkpoints are passed over."""

import json
import os
import re
import resource
import shutil

import pytest

from tests.support.distill import NoiseSource, new_trainer, tiny_config, write_teacher
from training.engine import run as runs
from training.engine.checkpoint import complete
from training.engine.export import export
from training.methods.vdot import Vdot


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, teacher):
    """A run's folder with the checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("trained")
    new_trainer(tiny_config(folder, teacher, log__save_every=1, max_steps=2)).run()
    return folder


@pytest.fixture
def start(tmp_path, teacher, monkeypatch):
    """Start the program's run in a folder, on batches of noise."""
    monkeypatch.setattr(runs, "build_source", lambda config, **named: NoiseSource())

    def call(folder=tmp_path, **settings):
        settings = {"max_steps": 2, "log__save_every": 1, **settings}
        return runs.run(tiny_config(folder, teacher, **settings), Vdot, {})

    return call


def _changed(**values):
    def change(text):
        progress = {**json.loads(text), **values}
        return json.dumps({key: value for key, value in progress.items() if value is not None})

    return change


PROGRESSES = {
    "the step alone": (lambda text: '{"step": 2}', "has no network"),
    "endless nesting": (lambda text: "[" * 100_000, "nested too deeply"),
    "a step of text": (_changed(step="x"), "has no step, but x"),
    "a list": (lambda text: "[]", "has no step"),
    "no data": (_changed(data=None), "has no data"),
    "counts of text": (_changed(optimizer_steps={"a": "b"}), "optimizer_steps that are no numbers"),
    "no counts": (_changed(optimizer_steps={}), "has no optimizer_steps of"),
    "settings of text": (_changed(settings="x"), "settings that are no table"),
    "files outside": (_changed(files={"../x": "y"}), "names with hashes"),
}


@pytest.mark.parametrize("kind", PROGRESSES)
def test_a_progress_without_what_a_run_needs_is_damage(trained, tmp_path, teacher, caplog, kind):
    folder = shutil.copytree(trained, tmp_path / "copy")
    change, words = PROGRESSES[kind]
    path = folder / "checkpoints" / "step-00000002" / "progress.json"
    path.write_text(change(path.read_text()))
    config = tiny_config(folder, teacher, max_steps=2)
    trainer = new_trainer(config)
    trainer.progress.close()
    assert trainer.step == 1
    assert re.search(rf"step-00000002 is damaged: .*{words}.* before it", caplog.text)
    if "no network" in words:
        with pytest.raises(ValueError, match=r"step-00000002 is damaged: .*remove it"):
            export(config, tmp_path / "x.safetensors", {})


@pytest.mark.parametrize("before", [{}, None])
def test_a_checkpoint_that_does_not_say_its_settings_is_told(trained, tmp_path, teacher, caplog, before):
    """run.yaml is written for people: a resume compares with the checkpoint's record."""
    folder = shutil.copytree(trained, tmp_path / "copy")
    (folder / "run.yaml").write_text("")
    config = tiny_config(folder, teacher, max_steps=2)
    trainer = new_trainer(config)
    trainer.progress.close()
    assert trainer.step == 2 and "does not say its settings" not in caplog.text
    path = folder / "checkpoints" / "step-00000002" / "progress.json"
    values = {key: value for key, value in json.loads(path.read_text()).items() if key != "settings"}
    path.write_text(json.dumps(values if before is None else values | {"settings": before}))
    trainer = new_trainer(config)
    trainer.progress.close()
    assert trainer.step == 2
    assert "step-00000002 does not say its settings: no change of them is noticed" in caplog.text


@pytest.mark.parametrize("obstacle", ["a pipe", "another kind"])
@pytest.mark.parametrize("name", ["checkpoints", "run.yaml", "metrics.jsonl", "train.log", ".lock"])
def test_what_is_in_the_way_is_named(start, tmp_path, caplog, monkeypatch, name, obstacle):
    """A folder in the place of a file, a file in that of a folder, and pipes, which would be waited for."""
    monkeypatch.setattr("training.engine.lock.GRACE_S", 0.2)
    path = tmp_path / name
    if obstacle == "a pipe":
        os.mkfifo(path)
    else:
        path.touch() if name == "checkpoints" else path.mkdir()
    if (name, obstacle) == ("run.yaml", "a pipe"):
        assert start() == 0 and path.is_file(), "replaced in one step"
        return
    assert start() == 2
    assert name in caplog.messages[-1] and len(caplog.messages[-1]) <= 400
    assert not (tmp_path / "export").exists()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("num_files", [1, 3])
def test_a_disk_that_is_full_at_a_checkpoint_ends_the_run_in_one_sentence(
    start, tmp_path, trained, caplog, num_files
):
    """Also where torch's threads write several files."""
    files = {"log__checkpoint_files": num_files}
    assert start(**files) == 0
    size = max(path.stat().st_size for path in (tmp_path / "checkpoints").rglob("*.distcp"))
    folder = shutil.copytree(trained, tmp_path / "copy")
    shutil.rmtree(folder / "checkpoints" / "step-00000002")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
    try:
        assert start(folder, **files) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    last = [record.message for record in caplog.records if record.name == "vdot"][-1]
    assert re.search(
        r"checkpoint of step 2 .*/copy/checkpoints.*too large.*same command again: it resumes from step 1",
        last,
    )
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000001"]
    assert start(folder) == 0 and complete(folder / "checkpoints")[-1].step == 2


def test_values_that_stay_not_finite_end_the_run_in_one_sentence(start, tmp_path, caplog, monkeypatch):
    source = NoiseSource(poison=(2, 3, 4))
    monkeypatch.setattr(runs, "build_source", lambda config, **named: source)
    assert start(steps=6, max_steps=None) == 1
    last = [record.message for record in caplog.records if record.name == "vdot"][-1]
    assert re.search(r"3 steps in a row, to step [45], were not finite; .*step-00000002\. Look at", last)


def test_an_export_that_is_refused_ends_the_run_in_one_sentence(start, caplog, monkeypatch):
    def refuse(*_):
        raise ValueError("a.weight is not finite as fp16; set export_dtype to bf16 or fp32")

    monkeypatch.setattr(runs, "export", refuse)
    assert start(steps=1, max_steps=None) == 1
    assert (
        "all steps are done and nothing was exported: a.weight is not finite as fp16" in caplog.messages[-1]
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model__taps": [99]}, r"model.taps is \[99\]; expected different blocks from 0 to 1"),
        ({"model__taps": [-1]}, "model.taps is"),
        ({"model__taps": [1, 1]}, "model.taps is"),
        ({"model__real_score": "nope.safetensors"}, "nope.safetensors"),
        ({"model__real_score": "/dev/zero"}, "/dev/zero is not a file but a device"),
        ({"model__generator": "nope.safetensors"}, "nope.safetensors"),
        ({"model__acc_wan_init": "nope.safetensors"}, "nope.safetensors"),
    ],
)
def test_mistakes_in_the_networks_are_found_before_data_is_encoded(
    start, monkeypatch, caplog, settings, words
):
    monkeypatch.setattr(runs, "build_source", lambda config, **named: pytest.fail("data is encoded"))
    assert start(**settings) == 2
    assert re.search(words, caplog.messages[-1])
