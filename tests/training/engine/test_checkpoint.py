"""Checkpoints by the interface of the oldest torch that trains: 2.6, where nothing is called `no_dist`."""

import threading

import pytest
import torch
import torch.distributed.checkpoint as dcp

from training.distributed import world as parallel
from training.distributed.config import ParallelConfig
from training.engine.checkpoint import Checkpoints, complete, read_progress, read_tensors


@pytest.fixture
def torch_2_6(monkeypatch):
    """The three functions with the parameters that torch 2.6 has, no more."""

    def narrowed(function, io):
        def call(state_dict, *, checkpoint_id=None, planner=None, process_group=None, **given):
            assert set(given) <= {io}, f"torch 2.6 has no {', '.join(set(given) - {io})}"
            given |= {"checkpoint_id": checkpoint_id, "planner": planner, "process_group": process_group}
            return function(state_dict, **given)

        return call

    for name, io in (
        ("save", "storage_writer"),
        ("async_save", "storage_writer"),
        ("load", "storage_reader"),
    ):
        monkeypatch.setattr(dcp, name, narrowed(getattr(dcp, name), io))


@pytest.mark.parametrize("group_of_one", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_is_saved_is_read_back(tmp_path, torch_2_6, asynchronous, group_of_one):
    """Without a process group, and in one of a single process (parallel.fsdp: true)."""
    config = ParallelConfig(fsdp=group_of_one, device="cpu", precision="fp32")
    try:
        checkpoints = Checkpoints(tmp_path, parallel.start(config), keep=2, asynchronous=asynchronous)
        assert torch.distributed.is_initialized() == group_of_one
        weight = torch.arange(6.0).view(2, 3)
        checkpoints.save(3, {"average.a": weight, "generator.a": -weight}, {"seed": 7})
        weight += 100
        checkpoints.save(6, {"average.a": weight, "generator.a": -weight}, {"seed": 7})
        checkpoints.wait()
        first, second = complete(tmp_path)
        assert (first.step, second.step) == (3, 6) and read_progress(second) == {"seed": 7, "step": 6}
        tensors = {"average.a": torch.zeros(2, 3), "generator.a": torch.zeros(2, 3)}
        checkpoints.load(second, tensors)
        assert torch.equal(tensors["average.a"], weight) and torch.equal(tensors["generator.a"], -weight)
        ((name, read),) = read_tensors(first, "average.")
        assert name == "a" and torch.equal(read, torch.arange(6.0).view(2, 3))
        with pytest.raises(ValueError, match="does not fit this run"):
            checkpoints.load(second, {"average.a": torch.zeros(4, 4)})
    finally:
        parallel.stop()


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """What is written is the state of the call, of weights on the CPU (offloaded ones) too."""
    trained, write = threading.Event(), dcp.save
    monkeypatch.setattr(dcp, "save", lambda *given, **named: trained.wait(60) and write(*given, **named))
    world = parallel.start(ParallelConfig(device="cpu", precision="fp32"))
    checkpoints = Checkpoints(tmp_path, world, keep=1, asynchronous=True)
    weight = torch.zeros(4)
    checkpoints.save(1, {"average.a": weight}, {})
    assert not complete(tmp_path)
    weight += 1
    trained.set()
    checkpoints.wait()
    ((_, read),) = read_tensors(complete(tmp_path)[0], "average.")
    assert not read.any()


def test_one_process_reads_tensors_while_the_others_of_its_group_are_busy(tmp_path, monkeypatch):
    """The export of a run of many processes is written by the first alone: any collective would hang."""
    config = ParallelConfig(fsdp=True, device="cpu", precision="fp32")
    try:
        checkpoints = Checkpoints(tmp_path, parallel.start(config), keep=1, asynchronous=False)
        checkpoints.save(1, {"average.a": torch.ones(2), "other.b": torch.zeros(2)}, {})
        for name in [
            n for n in dir(torch.distributed) if n.startswith(("all_", "gather", "scatter", "broad"))
        ]:
            monkeypatch.setattr(torch.distributed, name, lambda *_, **__: pytest.fail("a collective"))
        (found,) = complete(tmp_path)
        assert [(n, t.tolist()) for n, t in read_tensors(found, "average.")] == [("a", [1, 1])]
    finally:
        monkeypatch.undo()
        parallel.stop()
