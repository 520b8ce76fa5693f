"""One weight file of any kind: names, shapes and dtypes first, the tensors only when asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ..files import open_file, version_of
from ..text import shown
from ..torch_files import PICKLE_MAGIC, ZIP_MAGIC
from .ggml_types import num_packed_bytes


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of a tensor whose values have not been read.

    Args:
        shape: of its values.
        dtype: of its values.
        ggml_type: format of a GGUF file's blocks, which are read as bytes and decoded to `dtype`; else empty.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    ggml_type: str = ""

    @classmethod
    def of(cls, tensor: torch.Tensor) -> TensorSpec:
        return cls(tuple(tensor.shape), tensor.dtype)

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Size in the file."""
        if self.ggml_type:
            return num_packed_bytes(self.ggml_type, self.num_elements)
        return self.num_elements * self.dtype.itemsize


@dataclass(frozen=True)
class TensorFile:
    """One file of weights whose header has been read and checked.

    Args:
        path: the file.
        specs: shape and dtype of every tensor by its name in the file.
        read: every tensor by its name, GGUF's blocks as uint8; a private memory map of the file where it is
            `mapped`. With writable=False the map is read-only on Windows, where a private one counts as
            memory in use.
        metadata: strings of a safetensors or GGUF header.
        container: the key that the tensors lie under in a torch file.
        mapped: `read` maps the file, whose pages are read at use and dropped with the tensors.
        load: one tensor by its name, read into memory; None where the format does not allow it. A file that
            is cut meanwhile is an error here, and ends the process where it is mapped.
        version: `files.version_of` when it was opened.
    """

    path: Path
    specs: dict[str, TensorSpec]
    read: Callable[..., dict[str, torch.Tensor]] = field(repr=False, compare=False)
    metadata: dict[str, str] = field(default_factory=dict)
    container: str = ""
    mapped: bool = True
    load: Callable[[str], torch.Tensor] | None = field(default=None, repr=False, compare=False)
    version: tuple[int, ...] = ()

    def require_unchanged(self) -> None:
        """ValueError if the file was written to, cut or exchanged since it was opened."""
        if version_of(self.path) != self.version:
            raise ValueError(f"{shown(self.path)} changed while it was being read; try again")


@dataclass(frozen=True)
class Problem:
    """The reason why a readable file is not a loadable network."""

    layout: str
    reason: str = ""


def open_tensor_file(path: str | Path) -> TensorFile:
    """Read and check the header of one weight file; the content decides its format, not its name.

    Args:
        path: a `.safetensors`, `.gguf`, `.pt`, `.pth`, `.bin` or `.ckpt` file.
    Returns:
        The file's names, shapes and dtypes.
    Raises:
        ValueError: the file is truncated, corrupt, unsafe, or of a format that is not read.
    """
    from .gguf_files import open_gguf
    from .gguf_header import GGUF_MAGIC
    from .pt_files import open_pt
    from .safetensors_files import looks_like_safetensors, open_safetensors

    path = Path(path)
    version = version_of(path)
    with open_file(path) as file:
        magic = file.read(64)
    if magic.startswith(GGUF_MAGIC):
        return replace(open_gguf(path), version=version)
    if magic.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{shown(path)} is a git-lfs pointer, not the weights; run `git lfs pull` or download the file"
        )
    if magic.lstrip()[:1] == b"<":
        raise ValueError(f"{shown(path)} is a web page, not weights; download the file itself")
    is_pickle = magic.startswith((ZIP_MAGIC, PICKLE_MAGIC))
    if looks_like_safetensors(magic) or (path.suffix == ".safetensors" and not is_pickle):
        return replace(open_safetensors(path), version=version)
    return replace(open_pt(path), version=version)


def read_tensors(path: str | Path, kind: str = "weights") -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Every tensor of one weight file, memory-mapped where its format allows, and the header's strings.

    Args:
        path: as for `open_tensor_file`.
        kind: what the file should be, for the error.
    Raises:
        ValueError: as for `open_tensor_file`.
    """
    try:
        file = open_tensor_file(path)
        return file.read(), file.metadata
    except ValueError as error:
        raise ValueError(f"{error} (expected {kind})") from error
