"""Safetensors files: a strict header reader, a memory map of the tensors, and an atomic streaming writer."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..text import shown
from .tensor_files import TensorSpec, map_file, tensor_at

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_HEADER_ALIGNMENT = 8


def looks_like_safetensors(start: bytes) -> bool:
    """Whether a file's first bytes are a header length and the opening of a JSON object."""
    return len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _MAX_HEADER_BYTES


@dataclass(frozen=True)
class SafetensorsFile:
    """A safetensors file whose header has been read and checked against the file's size."""

    path: Path
    specs: dict[str, TensorSpec]
    metadata: dict[str, str]
    offsets: dict[str, int]
    num_bytes: int
    container: str = ""
    remappable: bool = True

    @classmethod
    def open(cls, path: Path) -> SafetensorsFile:
        """Read the header alone; ValueError where it and the file's size do not fit together."""
        size = path.stat().st_size
        header_size, header = _read_header(path, size)
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError(f"{shown(path)} has a corrupt header: its metadata is not a table of strings")
        specs, spans = {}, {}
        for name, entry in header.items():
            specs[name], spans[name] = _read_entry(path, name, entry)
        _check_spans(path, specs, spans, size - 8 - header_size)
        offsets = {name: 8 + header_size + begin for name, (begin, _) in spans.items()}
        return cls(path, specs, metadata, offsets, size)

    def map(self) -> dict[str, torch.Tensor]:
        """Every tensor as a private (copy on write) memory map of the file; nothing is read yet."""
        buffer = map_file(self.path, self.num_bytes)
        return {
            name: tensor_at(buffer, self.offsets[name], spec.num_elements, spec.dtype).view(spec.shape)
            for name, spec in self.specs.items()
        }


def write_safetensors(
    path: Path,
    specs: Mapping[str, TensorSpec],
    tensors: Iterable[tuple[str, torch.Tensor]],
    metadata: Mapping[str, str],
) -> None:
    """Write a safetensors file one tensor at a time; it appears under its name only when it is complete.

    Args:
        path: the file to write; an existing one is replaced at the end, in one step.
        specs: shape and dtype of every tensor, in the order in which `tensors` gives them.
        tensors: the values, on any device; each is dropped before the next is asked for.
        metadata: strings kept in the header.
    Raises:
        ValueError: the folder does not exist, or a dtype that the format cannot hold.
    """
    if not path.parent.is_dir():
        raise ValueError(
            f"cannot write {shown(path)}: the folder {shown(path.parent)} does not exist; create it first"
        )
    # A name of its own in the same folder: os.replace is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(_encode_header(path, specs, metadata))
            remaining = iter(specs.items())
            for name, tensor in tensors:
                expected, spec = next(remaining)
                assert name == expected, f"{name} written where the header has {expected}"
                assert tuple(tensor.shape) == spec.shape and tensor.dtype == spec.dtype, (
                    f"{shown(name)} is not {spec}"
                )
                flat = tensor.detach().cpu().contiguous().reshape(-1)
                file.write(memoryview(flat.view(torch.uint8).numpy()))
                del tensor, flat
            assert next(remaining, None) is None, "tensors are missing from the stream"
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _encode_header(path: Path, specs: Mapping[str, TensorSpec], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, spec in specs.items():
        if spec.dtype not in _DTYPE_NAMES:
            raise ValueError(
                f"cannot write {shown(path)}: {shown(name)} is {spec.dtype}, which safetensors does not hold"
            )
        end = offset + spec.num_bytes
        header[name] = {"dtype": _DTYPE_NAMES[spec.dtype], "shape": spec.shape, "data_offsets": (offset, end)}
        offset = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % _HEADER_ALIGNMENT)
    return len(raw).to_bytes(8, "little") + raw


def _read_header(path: Path, size: int) -> tuple[int, dict[str, Any]]:
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        if size < 8 or header_size > size - 8:
            raise ValueError(
                f"{shown(path)} is truncated or not safetensors: {size} bytes, and its header alone would "
                f"take {header_size}; download it again"
            )
        if header_size > _MAX_HEADER_BYTES:
            raise ValueError(
                f"{shown(path)} is corrupt: a header of {header_size} bytes is over the format's limit"
            )
        raw = file.read(header_size)
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{shown(path)} has a corrupt safetensors header ({shown(error)}); download it again"
        ) from error
    if not isinstance(header, dict):
        raise ValueError(
            f"{shown(path)} has a corrupt safetensors header: not a JSON object; download it again"
        )
    return header_size, header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _read_entry(path: Path, name: str, entry: Any) -> tuple[TensorSpec, tuple[int, int]]:
    """One line of the header: what the tensor is, and where its bytes lie after the header."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(
            f"{shown(path)} has a corrupt header at '{shown(name)}': {shown(entry, 80)}; download it again"
        )
    shape, span = entry["shape"], entry["data_offsets"]
    if not isinstance(shape, list) or not all(map(_is_count, shape)):
        raise ValueError(f"{shown(path)} has a corrupt header at '{shown(name)}': shape {shown(shape, 80)}")
    if not isinstance(span, list) or len(span) != 2 or not all(map(_is_count, span)):
        raise ValueError(
            f"{shown(path)} has a corrupt header at '{shown(name)}': data_offsets {shown(span, 80)}"
        )
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        raise ValueError(
            f"{shown(path)}: '{shown(name)}' has dtype '{shown(entry['dtype'], 20)}', which is not read "
            f"(known: {', '.join(DTYPES)})"
        )
    return TensorSpec(tuple(shape), DTYPES[entry["dtype"]]), (span[0], span[1])


def _check_spans(
    path: Path, specs: dict[str, TensorSpec], spans: dict[str, tuple[int, int]], size: int
) -> None:
    """The tensors must fill the file after the header without gap or overlap: the format says so."""
    position = 0
    for name in sorted(spans, key=lambda name: spans[name]):
        begin, end = spans[name]
        if begin != position or end - begin != specs[name].num_bytes:
            raise ValueError(
                f"{shown(path)} has a corrupt header: '{shown(name)}' {shown(specs[name].shape)} lies at "
                f"{begin}:{end}, expected {position}:{position + specs[name].num_bytes}; download it again"
            )
        position = end
    if position > size:
        raise ValueError(
            f"{shown(path)} is truncated: its header promises {position} bytes of weights, it has {size}; "
            "download it again"
        )
    if position < size:
        raise ValueError(
            f"{shown(path)} is corrupt: {size - position} bytes after its last tensor; download it again"
        )
