"""The header of a GGUF file, read with care: every length is checked against the bytes that are there.

Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import open_file
from ..text import described, shown
from .ggml_types import GGML_TYPES, UNREAD_TYPES, num_packed_bytes
from .tensor_files import MAX_HEADER_BYTES, MAX_NAME, MAX_TENSORS

GGUF_MAGIC = b"GGUF"
ORIGINAL_SHAPE = "comfy.gguf.orig_shape."  # + name: the shape of a tensor that was reshaped to be stored
ALIGNMENT = "general.alignment"
_MAX_FIELDS = 10_000
_MAX_AXES = 8
_MAX_KEPT = 64  # of longer arrays, such as vocabularies, only the length is kept
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class GgufTensor:
    """Location of one tensor.

    Args:
        ggml_type: name of its format, such as 'Q4_K'.
        shape: its logical shape, in torch's order.
        offset: of its first byte in the file.
        num_bytes: its size in the file.
    """

    ggml_type: str
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


@dataclass(frozen=True)
class GgufHeader:
    """Fields and tensors of a file; `fields` has numbers, strings and short tuples by their keys."""

    fields: dict[str, Any]
    tensors: dict[str, GgufTensor]
    num_bytes: int


def read_gguf_header(path: Path) -> GgufHeader:
    """Read a GGUF file's fields and the locations of its tensors, and no weights.

    Raises:
        ValueError: the file is truncated, corrupt, too large a header, or has a format that is not read.
    """
    with open_file(path) as file:
        num_bytes = os.fstat(file.fileno()).st_size
        content = file.read(MAX_HEADER_BYTES)
    try:
        return _parse(_Bytes(content), num_bytes)
    except struct.error as error:
        if len(content) < num_bytes:
            raise ValueError(
                f"{shown(path)} is corrupt GGUF, or its header has more than {MAX_HEADER_BYTES} bytes; give "
                "a file of weights"
            ) from error
        raise ValueError(f"{shown(path)} is truncated or corrupt GGUF; download it again") from error
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"{shown(path)} cannot be read as GGUF: {shown(error, 180)}; download it again"
        ) from error


class _Bytes:
    """Reads numbers and strings one after another; struct.error past the end."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.position = 0

    def skip(self, num_bytes: int) -> None:
        if num_bytes > len(self._content) - self.position:
            raise struct.error("past the end")
        self.position += num_bytes

    def numbers(self, code: str, count: int = 1) -> tuple[Any, ...]:
        start = self.position
        self.skip(struct.calcsize(f"<{code}") * count)
        return struct.unpack_from(f"<{count}{code}", self._content, start)

    def number(self, code: str) -> Any:
        return self.numbers(code)[0]

    def text(self) -> str:
        size = self.number("Q")
        start = self.position
        self.skip(size)
        return self._content[start : self.position].decode("utf-8")


def _parse(content: _Bytes, file_size: int) -> GgufHeader:
    if b"".join(content.numbers("c", 4)) != GGUF_MAGIC:
        raise ValueError("it does not begin with GGUF")
    version = content.number("I")
    if version not in (2, 3):
        raise ValueError(f"it has version {version}, expected 2 or 3, little-endian")
    num_tensors, num_fields = content.numbers("Q", 2)
    if num_tensors > MAX_TENSORS or num_fields > _MAX_FIELDS:
        raise ValueError(
            f"it has {num_tensors} tensors and {num_fields} fields, expected at most {MAX_TENSORS} and "
            f"{_MAX_FIELDS}"
        )
    fields: dict[str, Any] = {}
    for _ in range(num_fields):
        key = _name(content, fields)
        fields[key] = _value(content, content.number("I"))
    entries: dict[str, tuple[str, tuple[int, ...], int]] = {}
    for _ in range(num_tensors):
        name = _name(content, entries)
        entries[name] = _tensor_entry(content, name)
    alignment = fields.get(ALIGNMENT, 32)
    if type(alignment) is not int or alignment not in (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096):
        raise ValueError(
            f"its alignment is {described(alignment, 22)}, expected a power of two from 8 to 4096"
        )
    start = -(-content.position // alignment) * alignment
    tensors = {
        name: GgufTensor(kind, shape, start + offset, num_packed_bytes(kind, math.prod(shape)))
        for name, (kind, shape, offset) in entries.items()
    }
    _check_places(tensors, alignment, file_size)
    return GgufHeader(fields, {name: _reshaped(name, tensors[name], fields) for name in tensors}, file_size)


def _name(content: _Bytes, known: dict[str, Any]) -> str:
    name = content.text()
    if len(name) > MAX_NAME:
        raise ValueError(f"it has a name of {len(name)} characters, expected at most {MAX_NAME}")
    if name in known:
        raise ValueError(f"'{shown(name, 80)}' is in it twice")
    return name


def _value(content: _Bytes, kind: int) -> Any:
    if kind in _SCALARS:
        return content.number(_SCALARS[kind])
    if kind == _STRING:
        return content.text()
    if kind != _ARRAY:
        raise ValueError(f"it has a field of kind {kind}, which is not known")
    item, length = content.number("I"), content.number("Q")
    if item in _SCALARS:
        if length <= _MAX_KEPT:
            return content.numbers(_SCALARS[item], length)
        content.skip(struct.calcsize(f"<{_SCALARS[item]}") * length)
    elif item == _STRING:
        for _ in range(length):
            content.skip(content.number("Q"))
    else:
        raise ValueError(f"it has an array of items of kind {item}, which is not read")
    return f"{length} values"


def _tensor_entry(content: _Bytes, name: str) -> tuple[str, tuple[int, ...], int]:
    """Format, shape in torch's order, and offset within the data."""
    num_axes = content.number("I")
    if not 0 < num_axes <= _MAX_AXES:
        raise ValueError(f"'{shown(name, 80)}' has {num_axes} axes, expected 1 to {_MAX_AXES}")
    shape = content.numbers("Q", num_axes)[::-1]
    kind, offset = content.number("I"), content.number("Q")
    if kind not in GGML_TYPES:
        readable = ", ".join(known.name for known in GGML_TYPES.values())
        raise ValueError(
            f"'{shown(name, 80)}' has the format {UNREAD_TYPES.get(kind, f'number {kind}')}; expected "
            f"{readable}"
        )
    if 0 in shape or shape[-1] % GGML_TYPES[kind].block_size:
        raise ValueError(
            f"'{shown(name, 80)}' is {shown(list(shape), 60)}, which {GGML_TYPES[kind].name} cannot store: "
            f"expected rows of a multiple of {GGML_TYPES[kind].block_size}"
        )
    return GGML_TYPES[kind].name, shape, offset


def _check_places(tensors: dict[str, GgufTensor], alignment: int, file_size: int) -> None:
    """Every tensor lies in the file, and none over another."""
    end, last = 0, ""
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].offset):
        if tensor.offset % alignment or tensor.offset < end:
            raise ValueError(
                f"'{shown(name, 80)}' lies at byte {tensor.offset}, expected a multiple of {alignment} after "
                f"{f'{shown(last, 80)} ends at {end}' if last else 'the header'}"
            )
        end, last = tensor.offset + tensor.num_bytes, name
    if end > file_size:
        raise ValueError(f"it is truncated: {file_size} bytes, and '{shown(last, 80)}' ends at {end}")


def _reshaped(name: str, tensor: GgufTensor, fields: dict[str, Any]) -> GgufTensor:
    """A tensor with the shape that it had before it was reshaped to be stored."""
    shape = fields.get(ORIGINAL_SHAPE + name)
    if shape is None:
        return tensor
    is_shape = isinstance(shape, tuple) and len(shape) <= _MAX_AXES and all(type(n) is int for n in shape)
    if not is_shape or any(n < 1 for n in shape) or math.prod(shape) != math.prod(tensor.shape):
        raise ValueError(
            f"'{shown(name, 80)}' is {shown(list(tensor.shape), 60)}, its original shape {shown(shape, 60)}"
        )
    return GgufTensor(tensor.ggml_type, shape, tensor.offset, tensor.num_bytes)
