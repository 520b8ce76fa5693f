"""Maps of files that are only read: on Windows a private map counts as memory in use, a read-only one not."""

import mmap
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from vdot_core.checkpoints import pt_files, safetensors_files
from vdot_core.checkpoints.open_tensors import open_tensor_file

TENSORS = {
    "whole": torch.arange(12, dtype=torch.bfloat16).view(3, 4),
    "transposed": torch.arange(6, dtype=torch.float32).view(2, 3).T,
    "part": torch.arange(20, dtype=torch.float16)[7:13:2],
    "empty": torch.empty(0, 3),
    "number": torch.tensor(2.5),
}


@pytest.fixture
def accesses(monkeypatch):
    """Windows as far as maps are concerned; the list of how files are mapped."""
    made = []

    def record(*args, access=mmap.ACCESS_DEFAULT, **options):
        if args[0] != -1:
            made.append(access)
        return mmap.mmap(*args, access=access, **options)

    names = {name: getattr(mmap, name) for name in ("ACCESS_READ", "ACCESS_COPY")}
    monkeypatch.setattr(safetensors_files, "mmap", SimpleNamespace(mmap=record, **names))
    for module in (safetensors_files, pt_files):
        monkeypatch.setattr(module, "sys", SimpleNamespace(platform="win32"))
    return made


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_windows_maps_what_is_only_read_without_reserving_memory(tmp_path, accesses, name):
    if name.endswith(".pt"):
        torch.save({"generator": TENSORS}, tmp_path / name)
    else:
        save_file({key: value.contiguous() for key, value in TENSORS.items()}, tmp_path / name)
    read = open_tensor_file(tmp_path / name).read(writable=False)
    assert accesses == [mmap.ACCESS_READ]
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[key], value) for key, value in TENSORS.items())


def test_windows_maps_copies_where_weights_may_be_changed(tmp_path, accesses):
    save_file({"w": torch.ones(3)}, tmp_path / "w.safetensors")
    file = open_tensor_file(tmp_path / "w.safetensors")
    file.read()["w"].zero_()
    assert accesses == [mmap.ACCESS_COPY]
    assert torch.equal(file.read()["w"], torch.ones(3)), "the file itself was changed"
