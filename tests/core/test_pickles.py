"""Small pickles that ask for much are refused before torch sees them, at hardly any cost."""

import io
import pickle
import sys
import time
import tracemalloc
import zipfile
from collections import Counter, OrderedDict

import pytest
import torch

from tests.support.watch import watchdog
from vdot_core import pickles
from vdot_core.pickles import PickledTensor, describe
from vdot_core.torch_files import load_torch_file

GIB = 2**30
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
HUGE = pickle.dumps(2**40, protocol=2)[2:-1]


def rebuilt(arguments: bytes) -> bytes:
    """A tensor over a storage of four floats; `arguments` push offset, shape and stride."""
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + arguments + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def bomb(levels: int) -> bytes:
    """A tuple of two tuples of two .., each the same object."""
    return b")q\x00" + b"".join(b"h\x00h\x00\x86q\x00" for _ in range(levels))


def call(module: str, name: str, arguments: bytes) -> bytes:
    return f"c{module}\n{name}\n".encode() + b"(" + arguments + b"tR"


def copies(source: bytes, one: bytes, count: int = 50_000) -> bytes:
    """A list of objects, each made of the same large one."""
    return source + b"q\x01" + b"](" + one * count + b"e"


LONG_TEXT = b"X" + (2**20).to_bytes(4, "little") + b"x" * 2**20
LONG_TUPLE = b"(" + b"K\x00" * 2**17 + b"t"
KEY = b"X\x01\x00\x00\x00a"

HOSTILE = {
    "bytearray": b"}" + KEY + call("builtins", "bytearray", HUGE) + b"s",
    "bytearray, Python 2": b"}" + KEY + call("__builtin__", "bytearray", HUGE) + b"s",
    "tensor of a size": b"}" + KEY + call("torch", "FloatTensor", HUGE) + b"s",
    "Tensor": b"}" + KEY + b"ctorch\nTensor\n(" + HUGE + b"t\x81s",
    "Parameter": b"}" + KEY + b"ctorch.nn.parameter\nParameter\n)\x81s",
    "storage of a size": b"}" + KEY + call("torch.storage", "UntypedStorage", HUGE) + b"s",
    "shape beyond the storage": b"}" + KEY + rebuilt(b"K\x00" + HUGE + b"\x85K\x01\x85") + b"s",
    "stride beyond the storage": b"}" + KEY + rebuilt(b"K\x00K\x02\x85" + HUGE + b"\x85") + b"s",
    "stride of zero": b"}" + KEY + rebuilt(b"K\x00" + HUGE + b"\x85K\x00\x85") + b"s",
    "offset beyond the storage": b"}" + KEY + rebuilt(HUGE + b"K\x01\x85K\x01\x85") + b"s",
    "negative offset": b"}" + KEY + rebuilt(b"J\xff\xff\xff\xffK\x01\x85K\x01\x85") + b"s",
    "negative stride": b"}" + KEY + rebuilt(b"K\x03K\x02\x85J\xff\xff\xff\xff\x85") + b"s",
    "many axes": b"}" + KEY + rebuilt(b"K\x00" + LONG_TUPLE * 2) + b"s",
    "meta tensor": b"}" + KEY + call("torch._utils", "_rebuild_meta_tensor_no_storage", b"") + b"s",
    "sparse tensor": b"}" + KEY + call("torch._utils", "_rebuild_sparse_tensor", b"") + b"s",
    "subclass": b"}" + KEY + call("torch._utils", "_rebuild_wrapper_subclass", b"") + b"s",
    "nested tuple as a key": b"}" + bomb(64) + b"K\x01s",
    "deep tuple as a key": b"})" + b"\x85" * 200_000 + b"K\x01s",
    "colliding keys": b"}(" + b"".join(
        pickle.dumps(n * (2**61 - 1), protocol=2)[2:-1] + b"N" for n in range(1, 50_000)
    ) + b"u",
    "set": b"}" + KEY + call("builtins", "set", bomb(64) + b"\x85") + b"s",
    "Counter": copies(b"}(" + KEY * 4 + b"u", b"ccollections\nCounter\nh\x01\x85R", 10),
    "copies of a text": copies(LONG_TEXT, b"c_codecs\nencode\nh\x01" + KEY + b"\x86R", 10_000),
    "copies of a size": copies(LONG_TUPLE, b"ctorch\nSize\nh\x01\x85R", 10_000),
    "copies of attributes": copies(
        b"}(" + b"".join(b"J" + n.to_bytes(4, "little") + b"N" for n in range(50_000)) + b"u",
        b"ccollections\nOrderedDict\n)Rh\x01b",
    ),
    "attribute that replaces a method": b"ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x05sb",
    "attribute of a plain dict": b"}}X\x09\x00\x00\x00_metadata}sb",
    "pairs as keys": call("collections", "OrderedDict", b"](" + bomb(64) + b"K\x01\x86e") + b"",
    "many instructions": b"](" + b"}" * 300_000 + b"e",
    "many tensors": copies(
        b"ctorch._utils\n_rebuild_tensor_v2\nq\x02(" + STORAGE + b"K\x00K\x01\x85K\x01\x85\x89}t",
        b"h\x02h\x01R",
    ),
    "text longer than the file": b"X\xff\xff\xff\x7fabc",
    "memo that is empty": b"h\x07",
    "stack that is empty": b"R",
    "mark that is missing": b"t",
    "instruction of a later protocol": b"\x8f",
    "another protocol": b"\x80\x04N",
    "no end": b"",
}  # fmt: skip


def archive(path, data: bytes, protocol: bytes = b"\x80\x02"):
    """An archive as torch.save writes it, of this pickle and a storage of four floats."""
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("w/data.pkl", protocol + data + b".")
        out.writestr("w/byteorder", b"little")
        out.writestr("w/data/0", bytes(16))
        out.writestr("w/version", b"3\n")
    return path


@pytest.mark.parametrize("kind", HOSTILE)
def test_small_pickles_that_cost_much_are_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(torch, "load", lambda *args, **options: pytest.fail("torch.load was reached"))
    monkeypatch.setattr(pickles, "_MAX_INSTRUCTIONS", 300_000)
    monkeypatch.setattr(pickles, "_MAX_TENSORS", 10_000)
    path = archive(tmp_path / "w.pt", HOSTILE[kind])
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(
        ValueError, match=r"w\.pt is .*give a \.safetensors|w\.pt is .*Give a \.safetensors"
    ) as error:
        load_torch_file(path)
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(str(error.value)) <= 400 and str(error.value).isprintable()
    assert peak < 100e6 and seconds < 20


def test_the_tensor_of_these_tests_is_read(tmp_path):
    """The refusals above are of what is wrong, not of the form."""
    path = archive(tmp_path / "w.pt", b"}" + KEY + rebuilt(b"K\x00K\x02K\x02\x86K\x02K\x01\x86") + b"s")
    assert torch.equal(load_torch_file(path)["a"], torch.zeros(2, 2))


@pytest.mark.skipif(sys.platform != "linux", reason="the watchdog needs Linux")
def test_the_storage_list_of_an_old_file_holds_texts(tmp_path, monkeypatch):
    """Each nested level doubles the length of its text."""
    monkeypatch.setattr(torch, "load", lambda *args, **options: pytest.fail("torch.load was reached"))
    torch.save({}, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    keys = b"\x80\x02]q\x00" + b"".join(b"](h\x00h\x00eq\x00" for _ in range(40)) + b"."
    data = (tmp_path / "w.pt").read_bytes()
    assert data.endswith(b"\x80\x02]q\x00.")
    (tmp_path / "w.pt").write_bytes(data.removesuffix(b"\x80\x02]q\x00.") + keys)
    with watchdog(seconds=5), pytest.raises(ValueError, match="list of storages has other entries than text"):
        load_torch_file(tmp_path / "w.pt")


def module_state() -> OrderedDict:
    """A state dict with its `_metadata`."""
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).state_dict()


DTYPES = (
    torch.float64, torch.half, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
    torch.bool, torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16,
)  # fmt: skip
CONTENTS = {
    "state dict": module_state(),
    "parameters": {"w": torch.nn.Parameter(torch.ones(2, 2))},
    "views": {"a": torch.arange(12.0).view(3, 4).t(), "b": torch.arange(6)[2:4], "c": torch.ones(())},
    "empty": {"a": torch.empty(0, 3), "b": {}, "c": [], "d": ()},
    "plain values": {"step": 3, "lr": 1e-4, "big": 2**70, "on": True, "none": None, "betas": (0.9, 0.999)},
    "other types": {"shape": torch.Size([2, 3]), "dtype": torch.bfloat16, "device": torch.device("cpu")},
    "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "groups": [{"params": [0, 1]}]},
    "dtypes": {
        f"{dtype}": torch.zeros(4, dtype=dtype)
        for dtype in DTYPES
    },
    "one tensor": torch.ones(3),
}  # fmt: skip


def plain(value):
    """The same tree with each tensor as its description."""
    if isinstance(value, torch.Tensor):
        return PickledTensor(tuple(value.shape), value.dtype)
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, torch.Size):
        return tuple(value)
    return type(value)(map(plain, value)) if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("is_archive", [True, False])
def test_what_torch_saves_is_described_and_read(tmp_path, kind, is_archive):
    content = CONTENTS[kind]
    if not is_archive and kind == "dtypes":
        content = {
            name: value for name, value in content.items() if "float8" not in name and "uint16" not in name
        }
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=is_archive)
    read = load_torch_file(tmp_path / "w.pt")
    assert plain(read) == plain(content)
    if is_archive and kind != "other types":
        with zipfile.ZipFile(tmp_path / "w.pt") as file:
            described = describe(io.BytesIO(file.read("w/data.pkl")))
        assert described.value == plain(content)
    tensors, expected = leaves(read), leaves(content)
    assert all(
        torch.equal(a.view(torch.uint8), b.view(torch.uint8))
        for a, b in zip(tensors, expected, strict=True)
        if a.ndim
    )


def leaves(value) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value.detach().contiguous()]
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [leaf for entry in entries for leaf in leaves(entry)]


def test_objects_beside_tensors_are_named(tmp_path):
    torch.save({"milestones": Counter([3])}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"asks for collections\.Counter; nothing of it was run"):
        load_torch_file(tmp_path / "w.pt")
