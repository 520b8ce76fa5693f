"""`.pt` and `.pth` files of weights, memory-mapped where they are archives."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..files import read_at
from ..pickles import PickledTensor
from ..text import listed, shown
from ..torch_files import inspect_torch_file, load_torch_file
from .tensor_files import TensorFile, TensorSpec

# Where a training program's file keeps the network: VDOT's release, then common trainers.
CONTAINERS = ("generator", "state_dict")


def open_pt(path: Path) -> TensorFile:
    """Read names, shapes and dtypes; ValueError for a damaged or unsafe file, or no weights."""
    content = inspect_torch_file(path)
    container, tensors = _find_state_dict(path, content.value, PickledTensor)
    specs = {name: TensorSpec(tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    num_bytes = sum(spec.num_bytes for spec in specs.values())
    if num_bytes > 2 * content.num_bytes:  # a network may have a module under two names
        raise ValueError(
            f"{shown(path)} has tensors of {num_bytes} bytes over values of {content.num_bytes}: several "
            "share the same; save each with its own"
        )
    read = partial(_read, path, container, specs)
    in_place = content.places and all(tensor.storage for tensor in tensors.values())
    load = partial(_load_tensor, path, tensors, content.places) if in_place else None
    return TensorFile(path, specs, read, container=container, mapped=content.is_archive, load=load)


def _load_tensor(
    path: Path, tensors: dict[str, PickledTensor], places: dict[str, int], name: str
) -> torch.Tensor:
    """One tensor, its values read into memory from their place in the archive."""
    tensor = tensors[name]
    if 0 in tensor.shape:
        return torch.empty(tensor.shape, dtype=tensor.dtype)
    steps = zip(tensor.shape, tensor.stride, strict=True)
    num_values = 1 + sum((size - 1) * step for size, step in steps)
    item_size = tensor.dtype.itemsize
    offset = places[tensor.storage.key] + tensor.offset * item_size
    values = torch.frombuffer(read_at(path, offset, num_values * item_size), dtype=tensor.dtype)
    return values.as_strided(tensor.shape, tensor.stride)


def _read(path: Path, container: str, specs: dict[str, TensorSpec]) -> dict[str, torch.Tensor]:
    content = load_torch_file(path, mapped=True)
    new_container, tensors = _find_state_dict(path, content, torch.Tensor)
    tensors = {name: tensor.detach() for name, tensor in tensors.items()}
    new_specs = {name: TensorSpec.of(tensor) for name, tensor in tensors.items()}
    if (new_container, new_specs) != (container, specs):
        raise ValueError(f"{shown(path)} changed while it was being read; try again")
    return tensors


def _find_state_dict(path: Path, content: Any, tensor_type: type) -> tuple[str, dict[str, Any]]:
    """The table of tensors, and the key that it lies under ('' where the file is the table itself)."""
    if not isinstance(content, dict):
        raise ValueError(f"{shown(path)} holds a {type(content).__name__}; expected a table of named tensors")
    for container in CONTAINERS:
        table = content.get(container)
        if isinstance(table, dict) and table:
            break
    else:
        container, table = "", content
    for name, value in table.items():
        if not isinstance(name, str) or not isinstance(value, tensor_type):
            kind = "Tensor" if isinstance(value, tensor_type) else type(value).__name__
            raise ValueError(
                f"{shown(path, 100)} holds a {kind} at '{shown(name, 60)}' where tensors are expected; it "
                f"has the keys {listed(content, width=60)}; expected a table of tensors, or one under "
                f"{' or '.join(map(repr, CONTAINERS))}"
            )
    return container, table
