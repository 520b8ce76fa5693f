"""A weight file of any kind whose header has been read: names, shapes and dtypes; tensors when asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..files import version_of
from ..text import shown
from .ggml_types import num_packed_bytes

# Limits of a header, which takes some ten times its size once parsed. A network of 14B has 1,300 tensors in
# 0.2 MB, twice as many with scale factors; language models in GGUF take up to 10 MB with their vocabulary.
MAX_HEADER_BYTES = 16_000_000
MAX_TENSORS = 50_000
MAX_NAME = 1_000  # characters
_CHUNK = 2**22  # values


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


def all_finite(tensor: torch.Tensor) -> bool:
    """True if no value is NaN or infinite; unlike torch.isfinite it needs no memory of the tensor's size."""
    if tensor.dtype.itemsize == 1:  # few operations know these numbers
        return all(all_finite(part.float()) for part in tensor.reshape(-1).split(_CHUNK))
    return not tensor.numel() or bool(torch.stack(torch.aminmax(tensor)).isfinite().all())


def require_finite(name: str, tensor: torch.Tensor, path: Path) -> None:
    """ValueError if a tensor of a file has infinite values or NaN, of which every result would be NaN."""
    if tensor.is_floating_point() and not all_finite(tensor):
        raise ValueError(
            f"{shown(path)}: {shown(name, 80)} has values that are not finite (NaN or infinity); download it "
            "again, or give an undamaged file"
        )
