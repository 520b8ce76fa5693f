"""`.pt` and `.pth` files of weights: always torch's weights-only reader, memory-mapped from an archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..text import listed, shown
from ..torch_files import check_torch_file, load_torch_file
from .tensor_files import TensorSpec

# Where a training program's file keeps the network: VDOT's release, then common trainers.
CONTAINERS = ("generator", "state_dict")


@dataclass(frozen=True)
class TorchFile:
    """A torch file whose pickle has been read without its tensors' values."""

    path: Path
    specs: dict[str, TensorSpec]
    container: str
    remappable: bool
    record_sizes: Counter[int]
    metadata: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> TorchFile:
        """Read names, shapes and dtypes; ValueError for a damaged or unsafe file, or no weights."""
        records = check_torch_file(path)
        container, tensors = _find_state_dict(path, load_torch_file(path, device="meta"))
        specs = {name: _spec_of(path, name, value) for name, value in tensors.items()}
        sizes = Counter(size for name, size in records.items() if name.startswith("data/"))
        return cls(path, specs, container, bool(records), sizes)

    def map(self) -> dict[str, torch.Tensor]:
        """Every tensor; memory-mapped from an archive, read at once from the old format, which must be."""
        content = load_torch_file(self.path, mapped=self.remappable)
        container, tensors = _find_state_dict(self.path, content)
        if container != self.container or tensors.keys() != self.specs.keys():
            raise ValueError(f"{shown(self.path)} changed while it was being read; try again")
        if self.remappable:
            self._check_sizes(tensors.values())
        return {name: tensor.detach() for name, tensor in tensors.items()}

    def _check_sizes(self, tensors: Iterable[torch.Tensor]) -> None:
        """Refuse a pickle that claims more bytes than the records have; torch's map runs on into the next."""
        storages = {s.data_ptr(): s.nbytes() for s in (tensor.untyped_storage() for tensor in tensors)}
        excess = Counter(filter(None, storages.values())) - self.record_sizes
        if excess:
            raise ValueError(
                f"{shown(self.path)} is corrupt: tensors of {max(excess)} bytes are in none of its records; "
                "download it again"
            )


def _find_state_dict(path: Path, content: Any) -> tuple[str, dict[str, torch.Tensor]]:
    """The table of tensors, and the key that it lies under ('' where the file is the table itself)."""
    if not isinstance(content, dict):
        raise ValueError(f"{shown(path)} holds a {type(content).__name__}; expected a table of named tensors")
    for container in CONTAINERS:
        inner = content.get(container)
        if isinstance(inner, dict) and inner:
            break
    else:
        container, inner = "", content
    for name, value in inner.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ValueError(
                f"{shown(path)} holds a {type(value).__name__} at '{shown(name, 80)}' where tensors are "
                f"expected; it has the keys {listed(content)}; expected a table of tensors, or one under "
                f"{' or '.join(map(repr, CONTAINERS))}"
            )
    return container, inner


def _spec_of(path: Path, name: str, value: torch.Tensor) -> TensorSpec:
    spec = TensorSpec(tuple(value.shape), value.dtype)
    if value.layout != torch.strided or value.is_quantized:
        raise ValueError(
            f"{shown(path)}: {shown(name)} is sparse or quantized, which is not read; save it dense"
        )
    if value.untyped_storage().nbytes() < spec.num_bytes:
        raise ValueError(
            f"{shown(path)}: {shown(name)} {shown(list(spec.shape))} has fewer values than its shape; save "
            "it contiguous"
        )
    return spec
