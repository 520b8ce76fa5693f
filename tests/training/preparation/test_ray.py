"""Ray Data's workers give what one process gives."""

import pytest

from training.preparation.clip_files import write_clip
from training.preparation.config import CaptionConfig, ExecutorConfig
from training.preparation.executors import make_executor
from training.preparation.prepare import prepare
from training.preparation.stages import CAPTIONS

from .conftest import panning
from .test_captions import GOOD
from .test_prepare import results

pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray[data]'")


@pytest.mark.full
def test_two_workers_write_the_same_bytes(config, raw, tmp_path):
    settings = {"input": [str(raw / "pan.mp4"), str(raw / "day")], "annotators": []}
    one = config(out_dir=str(tmp_path / "one"), **settings)
    two = config(out_dir=str(tmp_path / "two"), executor=ExecutorConfig("ray", workers=2), **settings)
    prepare(one)
    prepare(two)
    assert results(one.out_dir) == results(two.out_dir)


@pytest.mark.full
def test_a_result_is_here_before_the_next_row_of_its_worker_is_done(config, server, tmp_path):
    """A kill loses the rows that are worked on, and none that is done."""
    url, answers, _ = server
    settings = config(
        executor=ExecutorConfig("ray", workers=1), captions=CaptionConfig(url=url), out_dir=str(tmp_path)
    )
    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips/clip.mp4", panning(1, 5), 16, 12)
    clip = {"path": "/none.mp4", "trim": {"file": "clips/clip.mp4", "num_frames": 5}}
    answers.append((200, GOOD))
    executor = make_executor(settings)
    try:
        outcomes = executor.run(CAPTIONS, [{**clip, "id": name} for name in "ab"])
        assert next(outcomes).value["prompt"] == "a fox runs"
        answers.append((200, GOOD))  # until now the second row was answered with an error, and asked again
        assert next(outcomes).value is not None
    finally:
        executor.close()
