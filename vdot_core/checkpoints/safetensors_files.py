"""Safetensors files: headers checked by the format's own library, tensors mapped, and a streaming writer."""

from __future__ import annotations

import json
import math
import mmap
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..dtypes import SAFETENSORS_CODES, SAFETENSORS_DTYPES
from ..files import file_size, new_file, open_file, read_at
from ..text import listed, shown
from .tensor_files import MAX_HEADER_BYTES, MAX_NAME, MAX_TENSORS, TensorFile, TensorSpec

_HEADER_ALIGNMENT = 8


def looks_like_safetensors(start: bytes) -> bool:
    """True if a file's first bytes are a header length and the start of a JSON object."""
    return len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= 100_000_000


def open_safetensors(path: Path) -> TensorFile:
    """Read the header alone; ValueError where it and the file's size do not fit together."""
    from safetensors import SafetensorError, safe_open

    size = file_size(path)
    with open_file(path) as file:
        header_size = int.from_bytes(file.read(8), "little")
        if 8 + header_size > size or size < 8:
            raise ValueError(
                f"{shown(path)} is truncated or not safetensors: {size} bytes, and its header alone would "
                f"take {header_size}; download it again"
            )
        if header_size > MAX_HEADER_BYTES:
            raise ValueError(
                f"{shown(path)} has a header of {header_size} bytes, expected at most {MAX_HEADER_BYTES}; "
                "give a file of weights"
            )
        raw = file.read(header_size)
    try:
        # The library checks types, overflows, and that the tensors fill the file without gap or overlap.
        with safe_open(path, framework="np"):
            pass
        header = json.loads(raw, object_pairs_hook=_unique)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"{shown(path)} is truncated, corrupt or not safetensors ({shown(error)}); download it again"
        ) from error
    metadata = header.pop("__metadata__", None) or {}
    if len(header) > MAX_TENSORS or any(len(name) > MAX_NAME for name in header):
        raise ValueError(
            f"{shown(path)} has {len(header)} tensors with names of up to {max(map(len, header))} "
            f"characters, expected at most {MAX_TENSORS} and {MAX_NAME}; give a file of weights"
        )
    specs = {name: _spec_of(path, name, entry) for name, entry in header.items()}
    offsets = {name: 8 + header_size + entry["data_offsets"][0] for name, entry in header.items()}
    read = partial(_map_tensors, path, size, specs, offsets)
    return TensorFile(path, specs, read, metadata, load=partial(_load_tensor, path, specs, offsets))


def _load_tensor(
    path: Path, specs: Mapping[str, TensorSpec], offsets: Mapping[str, int], name: str
) -> torch.Tensor:
    """One tensor, read into memory."""
    spec = specs[name]
    if not spec.num_elements:
        return torch.empty(spec.shape, dtype=spec.dtype)
    values = read_at(path, offsets[name], spec.num_bytes)
    return torch.frombuffer(values, dtype=spec.dtype).view(spec.shape)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice in its header")
    return table


def _spec_of(path: Path, name: str, entry: dict[str, Any]) -> TensorSpec:
    if not isinstance(entry, dict):
        raise ValueError(f"{shown(path)} has a corrupt header at '{shown(name, 80)}'; download it again")
    dtype = SAFETENSORS_DTYPES.get(entry["dtype"])
    if dtype is None:
        raise ValueError(
            f"{shown(path)}: '{shown(name, 80)}' has dtype '{shown(entry['dtype'], 20)}', which is not read; "
            "give a bf16, fp16, fp32 or fp8 file"
        )
    return TensorSpec(tuple(entry["shape"]), dtype)


def _map_tensors(
    path: Path,
    num_bytes: int,
    specs: Mapping[str, TensorSpec],
    offsets: Mapping[str, int],
    *,
    writable: bool = True,
) -> dict[str, torch.Tensor]:
    """Every tensor as a memory map of the file; nothing is read yet."""
    content = map_file(path, num_bytes, writable=writable)
    return {name: view_at(content, offsets[name], spec.dtype, spec.shape) for name, spec in specs.items()}


def view_at(content: mmap.mmap, offset: int, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    """A contiguous tensor that lies in a map of its file."""
    count = math.prod(shape)
    if not count:
        return torch.empty(shape, dtype=dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(content, dtype=dtype, count=count, offset=offset).view(shape)


def map_file(path: Path, num_bytes: int, *, writable: bool = True) -> mmap.mmap:
    """Map a file privately: writing to the memory copies the page and never changes the file.

    Args:
        path: the file.
        num_bytes: the size it had when its header was checked.
        writable: False where the memory is only read: Windows then reserves nothing for copies of the pages,
            and writing would end the process.
    Returns:
        The mapping, which lives as long as a tensor refers to it.
    Raises:
        ValueError: the file has changed its size meanwhile.
    """
    with open_file(path) as file:
        if os.fstat(file.fileno()).st_size != num_bytes:
            raise ValueError(f"{shown(path)} changed while it was being read; try again")
        if sys.platform != "linux":
            access = mmap.ACCESS_READ if sys.platform == "win32" and not writable else mmap.ACCESS_COPY
            return mmap.mmap(file.fileno(), num_bytes, access=access)
        # Without NORESERVE Linux refuses a private map larger than memory and swap together, and so a 35 GB
        # network on a machine of 32 GB, though hardly a page of it is ever written. That is why the tensors
        # do not come from safe_open itself.
        flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0x4000)
        return mmap.mmap(file.fileno(), num_bytes, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def write_safetensors(
    path: Path,
    specs: Mapping[str, TensorSpec],
    tensors: Iterable[tuple[str, torch.Tensor]],
    metadata: Mapping[str, str],
    *,
    overwrite: bool = True,
) -> None:
    """Write a safetensors file one tensor at a time; it appears under its name only when it is complete.

    Args:
        path: the file to write; an existing one is replaced at the end, in one step.
        specs: shape and dtype of every tensor, in their order in the file.
        tensors: the values, in any order and on any device; each is dropped before the next is asked for.
        metadata: strings kept in the header.
        overwrite: replace an existing file; otherwise it is an error, also if it appears meanwhile.
    Raises:
        ValueError: the folder does not exist or cannot be written to, the disk is full, or a dtype that the
            format cannot hold.
    """
    header = _encode_header(path, specs, metadata)
    with new_file(path, overwrite=overwrite) as partial_path, partial_path.open("wb") as file:
        _write(file, header, specs, tensors)


def fill_safetensors(
    path: Path,
    specs: Mapping[str, TensorSpec],
    tensors: Iterable[tuple[str, torch.Tensor]],
    metadata: Mapping[str, str],
) -> None:
    """Write the content of a safetensors file to a file that is not known by its name yet; as above.

    Raises:
        ValueError: a dtype that the format cannot hold.
        OSError: the file cannot be written.
    """
    header = _encode_header(path, specs, metadata)
    with path.open("wb") as file:
        _write(file, header, specs, tensors)


def _write(
    file: BinaryIO,
    header: bytes,
    specs: Mapping[str, TensorSpec],
    tensors: Iterable[tuple[str, torch.Tensor]],
) -> None:
    file.write(header)
    places = _places(specs)
    for name, tensor in tensors:
        spec, place = specs[name], places.pop(name)
        assert TensorSpec.of(tensor) == spec, f"{shown(name)} is not {spec}"
        if file.tell() != len(header) + place:
            file.seek(len(header) + place)
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        file.write(memoryview(flat.view(torch.uint8).numpy()))
        del tensor, flat
    assert not places, f"tensors are missing from the stream: {listed(places)}"


def _places(specs: Mapping[str, TensorSpec]) -> dict[str, int]:
    """Name -> offset in the data, which has the order of `specs` without gaps."""
    ends = list(accumulate((spec.num_bytes for spec in specs.values()), initial=0))
    return dict(zip(specs, ends, strict=False))


def _encode_header(path: Path, specs: Mapping[str, TensorSpec], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    places = _places(specs)
    for name, spec in specs.items():
        if spec.dtype not in SAFETENSORS_CODES:
            raise ValueError(
                f"cannot write {shown(path)}: {shown(name)} is {spec.dtype}, which safetensors does not hold"
            )
        offsets = (places[name], places[name] + spec.num_bytes)
        code = SAFETENSORS_CODES[spec.dtype]
        header[name] = {"dtype": code, "shape": spec.shape, "data_offsets": offsets}
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % _HEADER_ALIGNMENT)
    return len(raw).to_bytes(8, "little") + raw
