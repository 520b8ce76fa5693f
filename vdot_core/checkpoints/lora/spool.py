"""Tensors set aside on disk until their file's header can be written."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import torch

from ..tensor_files import TensorSpec


class Spool:
    """A nameless temporary file of tensors, so that files whose sizes are known last need little memory.

    Args:
        folder: where the file is made; it disappears when it is closed, or the process ends.

    Attributes:
        specs: shape and dtype of every tensor, in the order in which they were added.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)
        self.specs: dict[str, TensorSpec] = {}

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Append a tensor, on any device."""
        assert name not in self.specs, f"{name} twice"
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        self._file.write(memoryview(flat.view(torch.uint8).numpy()))
        self.specs[name] = TensorSpec.of(tensor)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every (name, tensor), in order, one at a time in memory."""
        self._file.seek(0)
        for name, spec in self.specs.items():
            values = bytearray(spec.num_bytes)
            if self._file.readinto(values) != spec.num_bytes:
                raise OSError(f"the temporary file ends before {name}")
            yield name, torch.frombuffer(values, dtype=spec.dtype).view(spec.shape)
            del values
