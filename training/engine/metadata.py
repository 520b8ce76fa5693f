"""The table of a checkpoint's tensors, which torch keeps as a pickle: the one place that reads it.

Only torch's own plain records are built from it; a pickle that asks for anything else is refused, and nothing
of it is run.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import filesystem, metadata
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata, TensorStorageMetadata

from vdot_core.files import read_file
from vdot_core.text import shown

METADATA = ".metadata"
# 14B on 64 processes has under 200 MB.
MAX_BYTES = 1 << 30
RECORDS = (
    metadata.Metadata,
    metadata.TensorStorageMetadata,
    metadata.BytesStorageMetadata,
    metadata.ChunkStorageMetadata,
    metadata.TensorProperties,
    metadata.MetadataIndex,
    metadata.StorageMeta,
    metadata._MEM_FORMAT_ENCODING,
    filesystem._StorageInfo,
)


# Of each instruction of a pickle: bytes of its argument, or how they are counted.
_LENGTHS = {ord(code.code): code.arg.n if code.arg else 0 for code in pickletools.opcodes}
_WIDTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_STOP, _PUT, _LONG_PUT, _TWO_LINES = b"."[0], b"p"[0], b"r"[0], b"ci"


class Reader(dcp.FileSystemReader):
    """`dcp.FileSystemReader`, whose table is read by `read_metadata`."""

    def read_metadata(self, *args: Any, **options: Any) -> Metadata:
        """The table, as torch's own reader gives it."""
        table = read_metadata(Path(self.path))
        table.storage_meta = table.storage_meta or metadata.StorageMeta()
        table.storage_meta.load_id = self.load_id
        return table


def read_metadata(folder: Path) -> Metadata:
    """Names, shapes and files of a checkpoint's tensors.

    Raises:
        ValueError: The table is missing or damaged, or not torch's.
    """
    content = read_file(folder / METADATA, MAX_BYTES)
    try:
        _check_memo(content)
        with _unchanged():
            table = _Unpickler(io.BytesIO(content)).load()
        _check(table)
    except _ForbiddenError as error:
        raise ValueError(f"its pickle asks for {shown(error, 80)}; nothing of it was run") from None
    except Exception as error:
        # A pickle that is cut off can raise any error.
        raise ValueError(f"its pickle is damaged: {type(error).__name__}") from error
    return table


def part_ends(table: Metadata) -> dict[str, int]:
    """File name -> its least number of bytes."""
    ends: dict[str, int] = {}
    for part in table.storage_data.values():
        ends[part.relative_path] = max(part.offset + part.length, ends.get(part.relative_path, 0))
    return ends


def is_plain(name: str) -> bool:
    """True if a name is a file's in a folder, not a path that leads elsewhere."""
    return name != "" and Path(name).name == name


def _check(table: Any) -> None:
    """Types, plain file names, a place for every value and no more values than bytes; any error is damage."""
    parts, claimed = table.storage_data, 0
    for name, entry in table.state_dict_metadata.items():
        if not isinstance(entry, BytesStorageMetadata):
            assert isinstance(entry, TensorStorageMetadata) and isinstance(entry.size, torch.Size)
            assert all(metadata.MetadataIndex(name, chunk.offsets) in parts for chunk in entry.chunks)
            claimed += entry.size.numel() * entry.properties.dtype.itemsize
    for index, part in parts.items():
        assert isinstance(index, metadata.MetadataIndex)
        assert min(part.offset, part.length) >= 0 and is_plain(part.relative_path)
    assert claimed <= sum(part.length for part in parts.values())


def _check_memo(content: bytes) -> None:
    """Refuse to remember a value at a place beyond the number of bytes: the reader fills all before it.

    Raises:
        ValueError, or any error of a pickle that is cut off.
    """
    place, size = 0, len(content)
    while (code := content[place]) != _STOP:
        length = _LENGTHS[code]
        place += 1
        is_far = code == _LONG_PUT and int.from_bytes(content[place : place + 4], "little") > size
        if is_far or code == _PUT:
            raise ValueError("a place beyond its end")
        if length == pickletools.UP_TO_NEWLINE:
            # That of a global has two lines.
            length = content.index(b"\n", place) + 1 - place
            if code in _TWO_LINES:
                length = content.index(b"\n", place + length) + 1 - place
        elif length < 0:
            width = _WIDTHS[length]
            length = width + int.from_bytes(content[place : place + width], "little")
        place += length


class _ForbiddenError(Exception):
    """The name of what a pickle asks for."""


class _Unpickler(pickle.Unpickler):
    """Builds records, dtypes and plain values: a name never stands for code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _CALLS:
            return _CALLS[module, name]
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        # Where it was written, which no one reads; module and class differ between Pythons and hosts.
        if module.partition(".")[0] == "pathlib" and name in ("PosixPath", "WindowsPath"):
            return _JOINED
        raise _ForbiddenError(f"{module}.{name}")


class _Joined:
    """Text in place of a path; without attributes that a pickle could set."""

    __slots__ = ()

    def __call__(self, *parts: str) -> str:
        return "/".join(parts)


_JOINED = _Joined()
_CALLS: dict[tuple[str, str], Any] = {
    **{(record.__module__, record.__name__): record for record in RECORDS},
    ("torch", "Size"): torch.Size,
    ("torch.serialization", "_get_layout"): {"torch.strided": torch.strided}.__getitem__,
}


@contextmanager
def _unchanged() -> Iterator[None]:
    """Undo and refuse what a pickle sets in the classes themselves."""
    shared = [*RECORDS, *metadata._MEM_FORMAT_ENCODING]
    before = [dict(vars(one)) for one in shared]
    try:
        yield
    finally:
        changed = False
        for one, values in zip(shared, before, strict=True):
            for name in {
                name for name in {*vars(one), *values} if vars(one).get(name) is not values.get(name)
            }:
                changed = True
                delattr(one, name) if name not in values else setattr(one, name, values[name])
        if changed:
            raise _ForbiddenError("attributes of a class")
