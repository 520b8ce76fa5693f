"""--dry_run of a run with adapters."""

import dataclasses

import pytest
import torch

from tests.support.distill import tiny_config
from tests.training.methods.adapters.runs import CHANGES
from training.planning.dry_run import CPU_CLIP, dry_run, rehearsal_clip
from training.planning.workload import Clip


def test_the_rehearsal_runs_every_update_and_leaves_nothing(tmp_path, caplog):
    config = tiny_config(
        tmp_path,
        tmp_path / "no_such_teacher",
        **CHANGES,
        model__preset="vdot_tiny",
        model__acc_wan_init="no_such_file",
        model__frozen=["blocks.1.", "blocks.5."],
    )
    with caplog.at_level("INFO", logger="vdot"):
        assert dry_run(config) == 0
    assert "all updates, checkpoint and export" in caplog.text and "2 of" in caplog.text
    assert "model.frozen's blocks.5. is left out" in caplog.text
    assert "dry run: model.acc_wan_init not rehearsed" in caplog.text
    assert not list(tmp_path.glob("dry_run*"))


def test_a_rehearsal_on_a_gpu_takes_the_runs_largest_clip(tmp_path, teacher):
    config = tiny_config(tmp_path, teacher, data__width=96, data__height=64, data__num_frames=9)
    assert rehearsal_clip(config, torch.device("cuda")) == Clip(96, 64, 9)
    assert rehearsal_clip(config, torch.device("cpu")) == CPU_CLIP


def test_a_rehearsal_touches_nothing_of_others_and_says_where_it_cannot_write(tmp_path):
    (tmp_path / "dry_run").mkdir()
    (tmp_path / "dry_run" / "thesis.txt").write_text("years of work")
    config = tiny_config(tmp_path, tmp_path / "none", **CHANGES, model__preset="vdot_tiny")
    with pytest.raises(ValueError, match=r"cannot be written to \(.*\); give another out_dir"):
        dry_run(dataclasses.replace(config, out_dir=str(tmp_path / "dry_run" / "thesis.txt")))
    with pytest.raises(ValueError, match="with which no parameter's name begins"):
        dry_run(dataclasses.replace(config, model=dataclasses.replace(config.model, frozen=["blocks.30"])))
    assert [path.name for path in tmp_path.rglob("*")] == ["dry_run", "thesis.txt"]
