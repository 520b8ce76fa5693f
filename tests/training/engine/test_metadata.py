"""A checkpoint's table is a pickle: it is read as data, and what it asks for is never run."""

import os
import pickle
import re
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING, Metadata

from training.distributed import world as parallel
from training.distributed.config import ParallelConfig
from training.engine.checkpoint import Checkpoints, complete, newest_complete, read_tensors
from training.engine.metadata import METADATA, Reader, _check_memo, read_metadata


def _checkpoints(folder):
    return Checkpoints(
        folder, parallel.start(ParallelConfig(device="cpu", precision="fp32")), keep=2, asynchronous=False
    )


@pytest.fixture
def two(tmp_path):
    """Checkpoints of steps 3 and 6, whose tensors hold these numbers."""
    checkpoints = _checkpoints(tmp_path / "checkpoints")
    for step in (3, 6):
        checkpoints.save(step, {"average.a": torch.full((40,), float(step))}, {})
    return complete(checkpoints.folder)


class Call:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _hostile(mark):
    """Kind -> pickle; each that is run makes a file of the name `mark`."""
    shell = f"touch {mark}"
    module = b"\x80\x02ctorch.distributed.checkpoint.metadata\n"
    evil, value = (pickle.dumps(state, 2)[2:-1] for state in ((None, {"evil": 1}), {"_value_": 1}))
    return {
        "a call in place of the table": pickle.dumps(Call(os.system, shell)),
        "a call inside of a table": pickle.dumps(
            Metadata({}, planner_data=Call(os.system, shell), storage_data={})
        ),
        "evaluated text": pickle.dumps(Call(eval, f"open({str(mark)!r}, 'w')")),
        "a function of torch": b"\x80\x02ctorch\nload\n" + pickle.dumps((str(mark),), 2)[2:-1] + b"R.",
        "a name with dots": b"\x80\x04\x8c\x05torch\x8c\x09os.system\x93"
        + pickle.dumps((shell,), 2)[2:-1]
        + b"R.",
        "an attribute of a class": module + b"Metadata\n" + evil + b"b.",
        "the value of an enumeration": module + b"_MEM_FORMAT_ENCODING\nK\x00\x85R" + value + b"b.",
    }


@pytest.mark.parametrize("kind", list(_hostile("")))
def test_what_a_table_asks_for_is_not_run(two, tmp_path, caplog, kind):
    """At a resume, an export, and by torch's own load."""
    mark, newest = tmp_path / "ran", two[1].path
    (newest / METADATA).write_bytes(_hostile(mark)[kind])
    tensors = {"average.a": torch.zeros(40)}
    assert newest_complete(newest.parent) == two[0]
    assert _checkpoints(newest.parent).restore(tensors)[0] == two[0] and (tensors["average.a"] == 3).all()
    with pytest.raises(ValueError, match="step-00000006 is damaged"):
        list(read_tensors(two[1], "average."))
    with pytest.raises(CheckpointException):
        dcp.load(tensors, storage_reader=Reader(newest), no_dist=True)
    assert not mark.exists() and not hasattr(Metadata, "evil") and _MEM_FORMAT_ENCODING(0).value == 0
    assert re.search(r"\.metadata cannot be read .*its pickle (asks for \S+)", caplog.text)
    assert all(len(r.message) <= 400 for r in caplog.records if r.name == "vdot")


def test_a_table_is_what_torch_reads(tmp_path):
    tensors = {
        f"{dtype}".replace("torch.", ""): torch.zeros(3, 2, dtype=dtype)
        for dtype in (
            torch.float32,
            torch.bfloat16,
            torch.float8_e4m3fn,
            torch.uint8,
            torch.int64,
            torch.bool,
        )
    }
    tensors |= {
        "scalar": torch.tensor(3.0),
        "last": torch.zeros(1, 2, 4, 4).to(memory_format=torch.channels_last),
    }
    dcp.save(tensors, storage_writer=dcp.FileSystemWriter(tmp_path, thread_count=2), no_dist=True)
    ours, torchs = read_metadata(tmp_path), dcp.FileSystemReader(tmp_path).read_metadata()
    for name in ("state_dict_metadata", "planner_data", "storage_data", "version"):
        assert getattr(ours, name) == getattr(torchs, name), name


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", ""])
def test_a_table_names_only_files_of_its_own_folder(two, caplog, name):
    path = two[1].path / METADATA
    table = pickle.loads(path.read_bytes())
    for part in table.storage_data.values():
        part.relative_path = name
    path.write_bytes(pickle.dumps(table))
    assert newest_complete(path.parents[1]) == two[0] and METADATA in caplog.text


def test_a_table_of_huge_tensors_over_few_bytes_is_refused(two, caplog):
    path = two[1].path / METADATA
    table = pickle.loads(path.read_bytes())
    table.state_dict_metadata["average.a"].size = torch.Size((1 << 40,))
    path.write_bytes(pickle.dumps(table))
    assert newest_complete(path.parents[1]) == two[0] and METADATA in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory by Linux's means")
@pytest.mark.parametrize("instruction", [b"r\xff\xff\xff\xff", b"p4294967295\n"])
def test_a_few_bytes_do_not_take_the_memory(tmp_path, instruction):
    """The reader of C sets aside a list as long as the largest place to remember a value at: 64 GB."""
    (tmp_path / METADATA).write_bytes(b"\x80\x02N" + instruction + b".")
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), limit[1]))
    try:
        with pytest.raises(ValueError, match="its pickle is damaged: ValueError"):
            read_metadata(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_check_of_places_follows_every_instruction(tmp_path, protocol):
    values = [1, -1, 300, 2**100, "a\n", "x" * 300, b"r\xff\xff\xff\xff", b"y" * 300, 1.5, {1: (2, 3, 4, 5)}]
    values += [None, True, bytearray(b"p9\n"), {"a": [[]] * 300}, frozenset({1}), *map(str, range(300))]
    _check_memo(pickle.dumps(values, protocol))


@pytest.mark.parametrize("name", [METADATA, "progress.json", "__0_0.distcp"])
def test_a_pipe_in_a_checkpoint_is_not_waited_for(two, caplog, name):
    path = two[1].path / name
    path.unlink()
    os.mkfifo(path)
    assert newest_complete(path.parents[1]) == two[0] and name in caplog.text
