"""`.pt` and `.pth` files of weights, memory-mapped where they are archives."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..files import file_size, read_at
from ..pickles import PickledTensor
from ..text import listed, shown
from ..torch_files import inspect_torch_file, load_torch_file
from .safetensors_files import map_file, view_at
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
    in_place = content.places and all(tensor.storage for tensor in tensors.values())
    places = content.places if in_place else {}
    read = partial(_read, path, container, specs, tensors, places)
    load = partial(_load_tensor, path, tensors, places) if in_place else None
    return TensorFile(path, specs, read, container=container, mapped=content.is_archive, load=load)


def _load_tensor(
    path: Path, tensors: dict[str, PickledTensor], places: dict[str, int], name: str
) -> torch.Tensor:
    """One tensor, its values read into memory from their place in the archive."""
    tensor = tensors[name]
    if 0 in tensor.shape:
        return torch.empty(tensor.shape, dtype=tensor.dtype)
    offset, num_values = _place(tensor, places)
    values = read_at(path, offset, num_values * tensor.dtype.itemsize)
    return view_at(values, 0, tensor.dtype, (num_values,)).as_strided(tensor.shape, tensor.stride)


def _place(tensor: PickledTensor, places: dict[str, int]) -> tuple[int, int]:
    """Offset in the file of a tensor's first value, and the number of values from there to its last."""
    steps = zip(tensor.shape, tensor.stride, strict=True)
    num_values = 1 + sum((size - 1) * step for size, step in steps)
    return places[tensor.storage.key] + tensor.offset * tensor.dtype.itemsize, num_values


def _read(
    path: Path,
    container: str,
    specs: dict[str, TensorSpec],
    tensors: dict[str, PickledTensor],
    places: dict[str, int],
    *,
    writable: bool = True,
) -> dict[str, torch.Tensor]:
    if places:
        if inspect_torch_file(path).places != places:
            raise ValueError(f"{shown(path)} changed while it was being read; try again")
        return _map(path, tensors, places, writable=writable or sys.platform != "win32")
    content = load_torch_file(path, mapped=True)
    new_container, read = _find_state_dict(path, content, torch.Tensor)
    read = {name: tensor.detach() for name, tensor in read.items()}
    new_specs = {name: TensorSpec.of(tensor) for name, tensor in read.items()}
    if (new_container, new_specs) != (container, specs):
        raise ValueError(f"{shown(path)} changed while it was being read; try again")
    return read


def _map(
    path: Path, tensors: dict[str, PickledTensor], places: dict[str, int], *, writable: bool
) -> dict[str, torch.Tensor]:
    """Every tensor of an archive as a map, which unlike torch's own may be larger than memory and swap."""
    content = map_file(path, file_size(path), writable=writable)
    read = {}
    for name, tensor in tensors.items():
        if 0 in tensor.shape:
            read[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
            continue
        offset, num_values = _place(tensor, places)
        values = view_at(content, offset, tensor.dtype, (num_values,))
        read[name] = values.as_strided(tensor.shape, tensor.stride)
    return read


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
