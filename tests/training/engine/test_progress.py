"""The lines of a run's log."""

import dataclasses
import logging
import resource
import sys

import pytest
import torch

from tests.support.distill import losses_by_step, tiny_config
from training.distributed import world as parallel
from training.engine.progress import GIB, Progress, end_with_a_line, memory_gib


class Allocator:
    """The counters of a GPU's memory, as torch.cuda keeps them."""

    def __init__(self, monkeypatch):
        self.held = self.peak = 0
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.peak)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self.reset)

    def reset(self, device):
        self.peak = self.held

    def use(self, gib, persistent=0):
        """Hold so much more for a moment, and some of it for good."""
        self.peak = max(self.peak, self.held + gib * GIB)
        self.held += persistent * GIB


def test_a_gpus_memory_is_the_peak_since_the_line_before(tmp_path, monkeypatch, caplog):
    config = tiny_config(tmp_path, tmp_path / "none.safetensors", log__every=2)
    world = dataclasses.replace(parallel.start(config.parallel), device=torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    memory, progress = Allocator(monkeypatch), Progress(config, world, 0)
    with caplog.at_level(logging.INFO, "vdot"):
        for step, gib in enumerate((7, 3, 2, 4, 1, 1), 1):
            memory.use(gib, persistent=1 if step == 1 else 0)
            progress.report(step, 10, {"generator/loss": 1.0}, torch.tensor(8.0), 0.5)
    progress.close()
    lines = [line for line in caplog.messages if line.startswith("step ")]
    # Step 1 kept a GiB; steps 3 and 4 are one line, as 5 and 6 are.
    assert [line.split("  ")[3] for line in lines] == ["7.00 GiB", "5.00 GiB", "2.00 GiB"]


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is the system's own")
def test_a_processs_memory_is_the_peak_since_its_start():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    first, second = memory_gib(torch.device("cpu")), memory_gib(torch.device("cpu"))
    assert before <= first <= second < before + 1


def test_steps_between_two_lines_are_all_written_with_their_own_numbers(tmp_path):
    """Numbers stay tensors until the line; what is pending is written at the end, and before a checkpoint."""
    config = tiny_config(tmp_path, tmp_path / "none.safetensors", log__every=3)
    progress = Progress(config, parallel.start(config.parallel), 0)
    for step in range(1, 6):
        progress.report(step, 9, {"critic/loss": torch.tensor(step / 4), "lr": 0.1}, torch.tensor(8.0), 0.5)
        assert len(losses_by_step(tmp_path) if step >= 3 else []) == (0 if step < 3 else 3)
    progress.close()
    assert losses_by_step(tmp_path) == {
        step: {"step": step, "critic/loss": step / 4, "lr": 0.1} for step in range(1, 6)
    }


@pytest.mark.parametrize("before", ["", '{"step": 1}\n', '{"step": 1}\n{"st', '{"st'])
def test_half_a_line_of_a_killed_run_is_cut_off(tmp_path, before):
    path = tmp_path / "metrics.jsonl"
    end_with_a_line(path)
    assert not path.exists()
    path.write_text(before)
    end_with_a_line(path)
    assert path.read_text() == ('{"step": 1}\n' if "1" in before else "")
