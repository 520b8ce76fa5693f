"""Ray Data's workers give what one process gives."""

import pytest

from training.preparation.config import ExecutorConfig
from training.preparation.prepare import prepare

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
