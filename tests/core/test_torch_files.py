"""Unsafe files are refused before torch's unpickler sees them; files of `torch.save` are read."""

import ast
import io
import os
import pickle
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch

from vdot_core.checkpoints import inspect, read_weights
from vdot_core.signals import load_raft
from vdot_core.torch_files import load_torch_file

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("vdot_core", "nodes", "training", "tiny", "devtools", "benchmarks", "docs")
CONTENT = {"a": torch.arange(5.0), "step": 3, "names": ["x", {"y": 1.5}], "b": torch.ones(2, 3).bfloat16()}


def rewritten(path: Path, target: Path, change=lambda name, data: (name, data), extra=()) -> Path:
    """The same archive with other records, stored as torch.save stores them."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as out:
        for name in source.namelist():
            out.writestr(*change(name, source.read(name)))
        for name, data in extra:
            out.writestr(name, data)
    return target


@pytest.fixture
def saved(tmp_path):
    torch.save(CONTENT, tmp_path / "saved.pt")
    return tmp_path / "saved.pt"


@pytest.fixture
def unreachable(monkeypatch):
    """torch.load must not be called."""
    monkeypatch.setattr(torch, "load", lambda *args, **options: pytest.fail("torch.load was reached"))


READERS = [load_torch_file, inspect, read_weights, load_raft]


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("name", ["saved.pt", "mod\udce8le.pt", "模型 1.pt"])
@pytest.mark.parametrize("mapped", [True, False])
def test_what_torch_saves_is_read(tmp_path, archive, name, mapped):
    path = tmp_path / "plain.pt"
    torch.save(CONTENT, path, _use_new_zipfile_serialization=archive)
    path = path.rename(tmp_path / name)
    if mapped and archive and not name.isprintable():
        with pytest.raises(ValueError, match=r"mod\\udce8le\.pt is named in another encoding.*rename"):
            load_torch_file(path, mapped=True)
        return
    read = load_torch_file(path, mapped=mapped)
    assert read.keys() == CONTENT.keys() and (read["step"], read["names"]) == (3, CONTENT["names"])
    assert all(torch.equal(read[key], CONTENT[key]) and read[key].dtype == CONTENT[key].dtype for key in "ab")
    read["a"].zero_()
    assert torch.equal(load_torch_file(path)["a"], CONTENT["a"])


def test_nothing_else_calls_torch_load():
    """Neither torch.load nor pickle, by any name, anywhere but in the modules that check first."""
    loaders = {("torch", "load"), ("pickle", "load"), ("pickle", "loads"), ("pickle", "Unpickler")}
    loaders |= {("dcp", "FileSystemReader"), ("torch.distributed.checkpoint", "FileSystemReader")}
    callers = set()
    for path in (file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                names = {(node.module, alias.name) for alias in node.names}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                names = {(node.value.id, node.attr)}
            else:
                continue
            if names & loaders:
                callers.add(path.relative_to(ROOT).as_posix())
    assert callers == {"vdot_core/torch_files.py", "training/engine/metadata.py"}


class Script(torch.nn.Module):
    """A program whose unpickling computes something, in place of an attacker's code."""

    def forward(self, x):
        return x

    @torch.jit.export
    def __getstate__(self):
        return (torch.ones(1), self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        print("code of the file runs")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_torchscript_never_reaches_torch(tmp_path, unreachable, capfd, reader, suffix):
    """torch before 2.6 runs it, weights_only or not (CVE-2025-32434)."""
    torch.jit.save(torch.jit.script(Script()), str(tmp_path / "script.pt"))
    path = rewritten(tmp_path / "script.pt", tmp_path / f"stored{suffix}")
    capfd.readouterr()
    for file in (path, (tmp_path / "script.pt").rename(tmp_path / f"original{suffix}")):
        if suffix == ".safetensors" and reader is load_raft:
            continue  # read as safetensors
        with pytest.raises(ValueError, match=r"TorchScript|compressed"):
            reader(file)
    assert "code of the file runs" not in capfd.readouterr().out


@pytest.mark.parametrize(
    "extra",
    [
        [("saved/constants.pkl", b"x")],
        [("saved/CONSTANTS.PKL", b"x")],
        [("saved/code/__torch__.py", b"x")],
        [("saved/Code/__torch__.py", b"x")],
        [("saved/data/../constants.pkl", b"x")],
        [("saved/./constants.pkl", b"x")],
        [("saved//constants.pkl", b"x")],
        [("saved\\constants.pkl", b"x")],
        [("saved/constants.pkl\0.txt", b"x")],
        [("../constants.pkl", b"x")],
        [("/constants.pkl", b"x")],
        [("constants.pkl", b"x")],
        [("other/data.pkl", b"x")],
        [("saved/data.pkl", b"x")],
        [("saved/DATA.pkl", b"x")],
    ],
    ids=lambda extra: repr(extra[0][0]),
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_misleading_records_are_refused(saved, tmp_path, unreachable, extra):
    with pytest.raises(ValueError, match="unsafe"):
        load_torch_file(rewritten(saved, tmp_path / "x.pt", extra=extra))


def test_an_archive_with_two_directories_is_refused(saved, tmp_path, unreachable):
    """zipfile takes the directory before the end record, torch the one at the place that the record names."""
    torch.jit.save(torch.jit.script(Script()), str(tmp_path / "script.pt"))
    script = rewritten(tmp_path / "script.pt", tmp_path / "stored.pt").read_bytes()
    small = rewritten(saved, tmp_path / "small.pt").read_bytes()  # without the records of archives over 4 GB
    for second, reason in ((small, "directory is not where"), (saved.read_bytes(), "contradict each other")):
        (tmp_path / "both.pt").write_bytes(script + second)
        with pytest.raises(ValueError, match=reason):
            load_torch_file(tmp_path / "both.pt")
    for trailer in (b"\0", saved.read_bytes()[-22:-2] + b"\1\0x"):
        (tmp_path / "both.pt").write_bytes(saved.read_bytes() + trailer)
        with pytest.raises(ValueError, match="unsafe"):
            load_torch_file(tmp_path / "both.pt")


def test_an_archive_inside_a_record_is_data(tmp_path, saved):
    """Bytes of a tensor that look like an archive are never opened as one."""
    inner = torch.frombuffer(bytearray(saved.read_bytes()), dtype=torch.uint8)
    torch.save({"inner": inner}, tmp_path / "outer.pt")
    assert torch.equal(load_torch_file(tmp_path / "outer.pt")["inner"], inner)


def test_tar_files_are_refused(tmp_path, unreachable):
    """torch would unpack the format of its first versions onto the disk; one may begin as a pickle does."""
    for first in ("sys_info", "\udc80\x02\udc8a\nl\udcfc\udc9cF\udcf9 j\udca8P\x19."):
        with tarfile.open(tmp_path / "old.pth", "w", format=tarfile.GNU_FORMAT) as archive:
            for name in (first, "pickle", "storages", "tensors"):
                archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        with pytest.raises(ValueError, match=r"old\.pth is (refused: it is a tar|not a readable)"):
            load_torch_file(tmp_path / "old.pth")


@pytest.mark.parametrize("archive", [True, False])
def test_a_small_file_cannot_ask_for_much_memory(tmp_path, archive):
    """bytearray(size) is allowed by torch's weights-only reader and fills the memory."""

    class Large:
        def __reduce__(self):
            return bytearray, (2**30,)

    torch.save({"a": Large()}, tmp_path / "large.pt", _use_new_zipfile_serialization=archive)
    tracemalloc.start()
    with pytest.raises(ValueError, match="bytearray"):
        load_torch_file(tmp_path / "large.pt")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_a_large_record_is_not_read(saved, tmp_path):
    """A file that is a hole on the disk; neither its pickle nor an unknown record may fill the memory."""
    for name in ("saved/data.pkl", "saved/readme"):
        path = tmp_path / "hole.pt"
        with zipfile.ZipFile(path, "w") as archive, archive.open(name, "w", force_zip64=True) as record:
            for _ in range(17):
                record.write(bytes(10**6))
        tracemalloc.start()
        with pytest.raises(ValueError, match=r"no data\.pkl of at most 16 MB"):
            load_torch_file(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**24


def test_overlapping_records_are_refused(saved, tmp_path, unreachable):
    """Many names for the same bytes would be read many times over."""
    path = rewritten(saved, tmp_path / "x.pt", extra=[("saved/big", bytes(10**5))])
    with zipfile.ZipFile(path, "a") as archive:
        big = archive.getinfo("saved/big")
        for number in range(50):
            copy = zipfile.ZipInfo(f"saved/big{number}")
            copy.header_offset, copy.CRC = big.header_offset, big.CRC
            copy.file_size = copy.compress_size = big.file_size
            archive.filelist.append(copy)
        archive._didModify = True
    with pytest.raises(ValueError, match="unsafe"):
        load_torch_file(path)


def test_what_is_no_file_is_refused(tmp_path, unreachable):
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "device.pt").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe.pt", tmp_path / "device.pt", tmp_path, tmp_path / "none.pt"):
        with pytest.raises(ValueError, match="is not a file"):
            load_torch_file(path)
    for content in (b"", b"\x00" * 40, b"not a pickle"):
        (tmp_path / "x.pt").write_bytes(content)
        with pytest.raises(ValueError, match="not a readable weight file"):
            load_torch_file(tmp_path / "x.pt")


def test_a_pickle_that_runs_code_is_refused_by_name(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch '{tmp_path}/owned'",)

    torch.save({"x": Payload()}, tmp_path / "evil.pt")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Payload(), protocol=2))
    for path in (tmp_path / "evil.pt", tmp_path / "evil.pkl"):
        with pytest.raises(ValueError, match=r"evil.*nothing of it was run"):
            load_torch_file(path)
    assert not (tmp_path / "owned").exists()
