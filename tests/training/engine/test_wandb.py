"""Weights & Biases by flag, offline: what it is sent is what metrics.jsonl says, over a resume too."""

import json
import sys
import time

import pytest
import torch
from PIL import Image

from tests.support.distill import losses_by_step, new_trainer, tiny_config, write_teacher
from training.distributed import world as parallel
from training.engine.progress import Progress
from training.engine.samples import log_video, to_images

HEADER, BLOCK = 7, 2**15


def _records(data):
    """The records of a .wandb file, which is a LevelDB log behind seven bytes."""
    place, record = HEADER, b""
    while place + 7 <= len(data):
        if BLOCK - place % BLOCK < 7:  # what is left of a block is too short for a head
            place += BLOCK - place % BLOCK
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        if place + 7 + size > len(data):  # it is being written
            return
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def _wait_until_written(folder, seconds=240):
    """`finish` returns a little before its background process has written the last records."""
    from wandb.proto.wandb_internal_pb2 import Record

    end = time.monotonic() + seconds
    for path in folder.glob("wandb/offline-run-*/run-*.wandb"):
        kinds = []
        while "exit" not in kinds and time.monotonic() < end:
            time.sleep(0.1)
            kinds = [Record.FromString(x).WhichOneof("record_type") for x in _records(path.read_bytes())]


def _history(folder):
    """Run ids, and step -> what was logged, of all offline runs in a folder."""
    from wandb.proto.wandb_internal_pb2 import Record

    ids, steps = set(), {}
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for data in _records(path.read_bytes()):
            record = Record.FromString(data)
            if record.WhichOneof("record_type") == "run":
                ids.add(record.run.run_id)
            if record.WhichOneof("record_type") == "history":
                items = {
                    i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item
                }
                steps.setdefault(int(items["_step"]), {}).update(items)
    return ids, steps


def test_offline_run_has_every_number_and_resumes(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the package wandb: pip install wandb")
    for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / name))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    teacher, out = write_teacher(tmp_path / "teacher.safetensors"), tmp_path / "out"
    for last in (2, 3):
        config = tiny_config(out, teacher, log__wandb=True, max_steps=last)
        trainer = new_trainer(config)
        trainer.progress.videos([log_video(to_images(torch.rand(5, 8, 8, 3)), "0-depth")], 1)
        trainer.run()
    _wait_until_written(out)
    ids, history = _history(out)
    expected = losses_by_step(out)
    assert len(ids) == 1 and set(expected) <= set(history)
    for step, row in expected.items():
        assert {key: history[step][key] for key in row if key != "step"} == pytest.approx(
            {key: value for key, value in row.items() if key != "step"}
        )
        assert history[step]["system/tokens_per_second"] > 0
    assert history[1]["samples/0-depth/_type"] == "video-file"
    video, *_ = out.glob("wandb/*/files/media/videos/samples/0-depth*.gif")
    with Image.open(video) as animation:
        assert (animation.n_frames, animation.size) == (5, (8, 8))


def test_without_wandb_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = tiny_config(tmp_path, tmp_path / "none.safetensors", log__wandb=True)
    with pytest.raises(ValueError, match="pip install wandb"):
        Progress(config, parallel.start(config.parallel), 0)
