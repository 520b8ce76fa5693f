"""What every kind of weight file offers: names, shapes and dtypes first, the tensors only when asked for."""

from __future__ import annotations

import math
import mmap
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from ..text import shown

ZIP_MAGIC = b"PK\x03\x04"
GGUF_MAGIC = b"GGUF"
PICKLE_MAGIC = b"\x80"


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of a tensor whose values have not been read."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.num_elements * self.dtype.itemsize


class TensorFile(Protocol):
    """One file of weights, its header read and checked."""

    path: Path
    specs: dict[str, TensorSpec]
    metadata: dict[str, str]
    container: str
    remappable: bool

    def map(self) -> dict[str, torch.Tensor]:
        """Every tensor by its name in the file; memory-mapped (and so not read yet) where `remappable`."""


def map_file(path: Path, num_bytes: int) -> mmap.mmap:
    """Map a whole file privately: writing to the memory copies the page and never changes the file.

    Args:
        path: the file.
        num_bytes: the size it had when its header was checked.
    Returns:
        The mapping, which lives as long as a tensor refers to it.
    Raises:
        ValueError: the file has changed its size meanwhile.
    """
    with path.open("rb") as file:
        if file.seek(0, 2) != num_bytes:
            raise ValueError(f"{shown(path)} changed while it was being read; try again")
        if sys.platform != "linux":
            return mmap.mmap(file.fileno(), num_bytes, access=mmap.ACCESS_COPY)
        # Without NORESERVE Linux refuses a private map larger than memory and swap together, and so a 35 GB
        # network on a machine of 32 GB, though hardly a page of it is ever written.
        flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0x4000)
        return mmap.mmap(file.fileno(), num_bytes, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def tensor_at(buffer: mmap.mmap, offset: int, num_elements: int, dtype: torch.dtype) -> torch.Tensor:
    """A flat tensor over part of a mapping; nothing is read."""
    if num_elements == 0:
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(buffer, dtype=dtype, count=num_elements, offset=offset)


@dataclass(frozen=True)
class Problem:
    """Why a readable file is not a network that can be loaded."""

    layout: str
    reason: str = field(default="")


def open_tensor_file(path: Path) -> TensorFile:
    """Read and check the header of one weight file; the content decides its format, not its name.

    Args:
        path: a `.safetensors`, `.pt`, `.pth`, `.bin` or `.ckpt` file.
    Returns:
        The file's names, shapes and dtypes.
    Raises:
        ValueError: the file is truncated, corrupt, unsafe, or of a format that is not read.
    """
    from .safetensors_files import SafetensorsFile, looks_like_safetensors
    from .torch_files import TorchFile

    if not path.is_file():
        raise ValueError(f"{shown(path)} is not a file; check the path")
    with path.open("rb") as file:
        magic = file.read(64)
    if magic.startswith(GGUF_MAGIC):
        raise ValueError(
            f"{shown(path)} is GGUF, which is not read; give the .safetensors or .pt of the same model"
        )
    if magic.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{shown(path)} is a git-lfs pointer, not the weights; run `git lfs pull` or download the file"
        )
    if magic.lstrip()[:1] == b"<":
        raise ValueError(f"{shown(path)} is a web page, not weights; download the file itself")
    is_pickle = magic.startswith((ZIP_MAGIC, PICKLE_MAGIC))
    if looks_like_safetensors(magic) or (path.suffix == ".safetensors" and not is_pickle):
        return SafetensorsFile.open(path)
    return TorchFile.open(path)
