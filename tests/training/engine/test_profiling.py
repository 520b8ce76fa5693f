"""Traces of a few steps, and the speed in the log."""

import gzip
import json
import logging

import pytest

from tests.support.distill import NoiseSource, new_trainer, tiny_config, write_teacher


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


def test_the_asked_steps_are_traced(tmp_path, teacher, caplog):
    changes = {"steps": 4, "log__profile": 1, "log__profile_after": 2}
    with caplog.at_level(logging.INFO, "vdot"):
        new_trainer(tiny_config(tmp_path, teacher, **changes)).run()
    trace = json.loads(gzip.decompress((tmp_path / "profile" / "trace.json.gz").read_bytes()))
    names = {event["name"] for event in trace["traceEvents"]}
    assert "ProfilerStep#2" in names and "ProfilerStep#3" not in names, "steps count from 0"
    assert any("scaled_dot_product" in name or name == "aten::bmm" for name in names)
    assert "traced 1 steps" in caplog.text and "TFLOP/s" in caplog.text and "MFU unknown" in caplog.text


def test_a_run_that_is_too_short_says_so(tmp_path, teacher, caplog):
    new_trainer(tiny_config(tmp_path, teacher, steps=1, log__profile=2)).run()
    assert "the run ended after 1 steps" in caplog.text


def test_a_snapshot_needs_a_gpu(tmp_path, teacher):
    config = tiny_config(tmp_path, teacher, log__profile=1, log__memory_snapshot=True)
    with pytest.raises(ValueError, match="the run computes on the cpu"):
        new_trainer(config)


def test_a_generators_update_adds_operations(tmp_path, teacher):
    """The counts themselves are compared with torch's in tests/training/planning/test_counts.py."""
    trainer = new_trainer(tiny_config(tmp_path, teacher, parallel__checkpoint_every=1), NoiseSource())
    batch = trainer.source.batches(1)[0]
    one = trainer.method.operations(1, batch)
    assert one > 0 and trainer.method.operations(5, batch) > one, "a generator's update is added"
