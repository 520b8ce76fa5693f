"""Checkpoints by the interface of the oldest torch that trains: 2.6, where nothing is called `no_dist`."""

import json
import os
import re
import shutil
import threading

import pytest
import torch
import torch.distributed.checkpoint as dcp

from training.distributed import world as parallel
from training.distributed.config import ParallelConfig
from training.engine.checkpoint import (
    Checkpoints,
    complete,
    newest_complete,
    read_progress,
    read_tensors,
)
from training.engine.writing import NotSavedError


@pytest.fixture
def torch_2_6(monkeypatch):
    """The three functions with the parameters that torch 2.6 has, no more."""

    def narrowed(function, io):
        def call(state_dict, *, checkpoint_id=None, planner=None, process_group=None, **kwargs):
            assert set(kwargs) <= {io}, f"torch 2.6 has no {', '.join(set(kwargs) - {io})}"
            kwargs |= {"checkpoint_id": checkpoint_id, "planner": planner, "process_group": process_group}
            return function(state_dict, **kwargs)

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
        assert (first.step, second.step) == (3, 6) and {"seed": 7, "step": 6}.items() <= read_progress(
            second
        ).items()
        tensors = {"average.a": torch.zeros(2, 3), "generator.a": torch.zeros(2, 3)}
        assert checkpoints.restore(tensors) == (second, read_progress(second))
        assert torch.equal(tensors["average.a"], weight) and torch.equal(tensors["generator.a"], -weight)
        ((name, read),) = read_tensors(first, "average.")
        assert name == "a" and torch.equal(read, torch.arange(6.0).view(2, 3))
        with pytest.raises(ValueError, match="does not fit this run"):
            checkpoints.restore({"average.a": torch.zeros(4, 4)})
    finally:
        parallel.stop()


def test_training_continues_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """The written state is that of the call, also for weights on the CPU (offloaded ones)."""
    trained, write = threading.Event(), dcp.save
    monkeypatch.setattr(dcp, "save", lambda *args, **named: trained.wait(60) and write(*args, **named))
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
        (checkpoint,) = complete(tmp_path)
        assert [(n, t.tolist()) for n, t in read_tensors(checkpoint, "average.")] == [("a", [1, 1])]
    finally:
        monkeypatch.undo()
        parallel.stop()


@pytest.fixture
def two(tmp_path):
    """Checkpoints of steps 3 and 6, whose tensors hold these numbers."""
    checkpoints = _checkpoints(tmp_path)
    for step in (3, 6):
        checkpoints.save(
            step, {"a": torch.full((40,), float(step)), "b": torch.full((2, 3), float(step))}, {}
        )
    checkpoints.wait()
    return complete(tmp_path)


def _checkpoints(folder, keep=2):
    world = parallel.start(ParallelConfig(device="cpu", precision="fp32"))
    return Checkpoints(folder, world, keep=keep, asynchronous=False, files=2)


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path):
    """Other bytes of the same number."""
    content = bytearray(path.read_bytes())
    content[: len(content) // 2] = bytes(255 - byte for byte in content[: len(content) // 2])
    path.write_bytes(content)


def _flip_values(path):
    """Some values of a tensor, which torch reads as they are."""
    values = torch.full((2,), 6.0).numpy().tobytes()
    content = path.read_bytes()
    assert values in content
    path.write_bytes(content.replace(values, bytes(8), 1))


def _of_previous(folder, pattern):
    for path in folder.glob(pattern):
        shutil.copy(folder.with_name("step-00000003") / path.name, path)


def _without_hashes(path, only=False):
    """As an older version wrote it, or without that of one file."""
    progress = json.loads((path.parent / "progress.json").read_text())
    hashes = progress.pop("files")
    if only:
        progress["files"] = {name: digest for name, digest in hashes.items() if name != path.name}
    (path.parent / "progress.json").write_text(json.dumps(progress))
    return path


def _largest(folder):
    return max(folder.glob("*.distcp"), key=lambda path: path.stat().st_size)


DAMAGES = {
    "a file cut off": (lambda folder: _cut(_largest(folder)), r"has \d+ bytes of \d+"),
    "an empty file": (lambda folder: _largest(folder).write_bytes(b""), "has 0 bytes of"),
    "a missing file": (lambda folder: _largest(folder).unlink(), "is missing"),
    "other bytes": (lambda folder: _flip(_largest(folder)), "has other content"),
    "other bytes, without hashes": (
        lambda folder: _flip(_without_hashes(_largest(folder))),
        "cannot be read",
    ),
    "eight other bytes": (lambda folder: _flip_values(_largest(folder)), "has other content"),
    "the previous tensors": (lambda folder: _of_previous(folder, "*.distcp"), "has other content"),
    "the previous progress": (lambda folder: _of_previous(folder, "progress.json"), "is of step 3"),
    "a part without a hash": (lambda folder: _without_hashes(_largest(folder), only=True), "has no hash of"),
    "no metadata": (lambda folder: (folder / ".metadata").unlink(), r"\.metadata cannot be read"),
    "metadata cut off": (lambda folder: _cut(folder / ".metadata"), r"\.metadata cannot be read"),
    "no progress": (lambda folder: (folder / "progress.json").unlink(), r"progress\.json cannot be read"),
    "progress cut off": (lambda folder: _cut(folder / "progress.json"), r"progress\.json cannot be read"),
    "empty progress": (lambda folder: (folder / "progress.json").write_text("{}"), "has no step"),
    "an empty folder": (lambda folder: [path.unlink() for path in folder.iterdir()], "cannot be read"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_read(two, tmp_path, caplog, kind):
    do, words = DAMAGES[kind]
    do(two[1].path)
    checkpoints = _checkpoints(tmp_path)
    tensors = {"a": torch.zeros(40), "b": torch.zeros(2, 3)}
    checkpoint, progress = checkpoints.restore(tensors)
    assert (checkpoint.step, progress["step"]) == (3, 3)
    assert all((tensor == 3).all() for tensor in tensors.values())
    assert re.search(rf"{two[1].path} is damaged: .*{words}.* before it", caplog.text)
    # The run saves that step again, over the damaged one, and nothing good is removed for a damaged one.
    checkpoints.save(6, tensors, {})
    assert [checkpoint.step for checkpoint in complete(tmp_path)] == [3, 6]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000006"]


def test_a_checkpoint_of_a_version_without_hashes_is_resumed(two, tmp_path, caplog):
    caplog.set_level("INFO", "vdot")
    _without_hashes(_largest(two[1].path))
    tensors = {"a": torch.zeros(40), "b": torch.zeros(2, 3)}
    assert _checkpoints(tmp_path).restore(tensors)[0] == two[1] and (tensors["a"] == 6).all()
    assert newest_complete(tmp_path) == two[1] and "has no hashes" in caplog.text


def test_an_export_passes_over_changed_values(two, tmp_path, caplog):
    _flip_values(_largest(two[1].path))
    assert newest_complete(tmp_path) == two[0] and "has other content" in caplog.text


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_anew(two, tmp_path):
    for checkpoint in two:
        _cut(_largest(checkpoint.path))
    with pytest.raises(ValueError, match=r"all checkpoints in .* are damaged.*start from step 0"):
        _checkpoints(tmp_path).restore({"a": torch.zeros(40), "b": torch.zeros(2, 3)})
    assert len(list(tmp_path.iterdir())) == 2


def test_a_checkpoint_of_other_networks_is_not_called_damaged(two, tmp_path, caplog):
    for tensors, words in (
        ({"a": torch.zeros(41)}, r"a is \[40\] there and \[41\] here"),
        ({"c": torch.zeros(1)}, "it has no c"),
    ):
        with pytest.raises(ValueError, match=f"step-00000006 does not fit this run: {words}"):
            _checkpoints(tmp_path).restore(tensors)
    assert "damaged" not in caplog.text


def test_a_damaged_checkpoint_that_is_exported_is_named(two):
    _flip(_largest(two[1].path))
    with pytest.raises(ValueError, match=r"step-00000006 is damaged \(.*use the checkpoint before it"):
        list(read_tensors(two[1], ""))


def test_an_export_takes_the_newest_intact_checkpoint_and_says_which_it_passed_over(two, tmp_path, caplog):
    assert newest_complete(tmp_path) == two[1] and not caplog.text
    _cut(_largest(two[1].path))
    assert newest_complete(tmp_path) == two[0]
    assert re.search(rf"{two[1].path} is damaged: .* taking the checkpoint before it", caplog.text)


def test_killed_between_two_files_of_a_checkpoint_the_one_before_stays(tmp_path, monkeypatch):
    """At any point: while tensors are written, before the progress, before the folder gets its name."""
    checkpoints = _checkpoints(tmp_path)
    checkpoints.save(3, {"a": torch.ones(4)}, {})
    for module, name in ((dcp, "save"), (json, "dumps"), (os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, _killed)
            with pytest.raises(KeyboardInterrupt):
                checkpoints.save(6, {"a": torch.zeros(4)}, {})
        checkpoints, tensors = _checkpoints(tmp_path), {"a": torch.zeros(4)}
        assert checkpoints.restore(tensors)[0].step == 3 and tensors["a"].all()
        assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


def _killed(*args, **named):
    raise KeyboardInterrupt


@pytest.mark.parametrize("leftover", ["a link", "a dangling link", "a file", "a folder"])
@pytest.mark.parametrize("name", [".partial-x", "step-00000006"])
def test_whatever_lies_in_the_place_of_a_checkpoint_makes_way(tmp_path, name, leftover):
    target, path = tmp_path / "target", tmp_path / "checkpoints" / name
    path.parent.mkdir()
    target.mkdir()
    if "link" in leftover:
        path.symlink_to(target if leftover == "a link" else tmp_path / "nothing")
    else:
        path.mkdir() if leftover == "a folder" else path.touch()
    _checkpoints(path.parent).save(6, {"a": torch.ones(4)}, {})
    assert [(p.name, p.is_symlink()) for p in path.parent.iterdir()] == [("step-00000006", False)]
    assert target.is_dir()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("files", [1, 2])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_full_disk_is_named_and_the_checkpoint_before_it_stays(two, tmp_path, asynchronous, files):
    """By a limit on the size of files, which torch's writer meets in the same way."""
    import resource

    checkpoints = _checkpoints(tmp_path)
    checkpoints.asynchronous, checkpoints.files = asynchronous, files
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(NotSavedError) as error:
            checkpoints.save(9, {"a": torch.zeros(100_000), "b": torch.zeros(4)}, {})
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    expected = (
        rf"checkpoint of step 9 .* written to {tmp_path} .*GiB are free.*same command.* resumes from step 6"
    )
    assert re.search(expected, str(error.value)) and len(str(error.value)) <= 400
    assert complete(tmp_path) == two and len(list(tmp_path.iterdir())) == 2
