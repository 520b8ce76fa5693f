"""`.pt` and `.pth` files: always torch's weights-only reader, memory-mapped where the file is a zip."""

from __future__ import annotations

import re
import struct
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch

from .tensor_files import ZIP_MAGIC, TensorSpec, map_file, tensor_at

# Where a training program's file keeps the network: VDOT's release, then common trainers.
CONTAINERS = ("generator", "state_dict")
_RECORD_END = (b"PK\x07\x08", ZIP_MAGIC, b"PK\x01\x02")


# Newer torch leaves the data alone for the meta device, and says where in the file it lies.
_TELLS_OFFSETS = hasattr(torch.serialization, "_is_meta_location")


@dataclass(frozen=True)
class Place:
    """Where in the file a tensor's storage lies, and how the tensor lies in it (counted in elements)."""

    byte_offset: int
    num_stored: int
    strides: tuple[int, ...]
    first: int


@dataclass(frozen=True)
class TorchFile:
    """A torch file whose pickle has been read without its tensors' values."""

    path: Path
    specs: dict[str, TensorSpec]
    container: str
    remappable: bool
    num_bytes: int
    places: dict[str, Place] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> TorchFile:
        """Read names, shapes and dtypes; ValueError for a damaged or unsafe file, or no weights."""
        size = path.stat().st_size
        with path.open("rb") as file:
            is_zip = file.read(4) == ZIP_MAGIC
        records = _check_archive(path) if is_zip else {}
        container, tensors = _find_state_dict(path, _load(path, is_zip and not _TELLS_OFFSETS, "meta"))
        specs = {name: _spec_of(path, name, value) for name, value in tensors.items()}
        places = {}
        if is_zip and _TELLS_OFFSETS:
            places = {name: _place_of(path, name, value, records) for name, value in tensors.items()}
        elif is_zip:
            _check_sizes(path, tensors, records)
        return cls(path, specs, container, is_zip, size, places)

    def map(self) -> dict[str, torch.Tensor]:
        """Every tensor; memory-mapped from a zip, read at once from the old pickle format, which must be."""
        if self.places:
            buffer = map_file(self.path, self.num_bytes)
            return {name: self._map_one(buffer, name) for name in self.specs}
        container, tensors = _find_state_dict(self.path, _load(self.path, self.remappable, "cpu"))
        if container != self.container or tensors.keys() != self.specs.keys():
            raise ValueError(f"{self.path} changed while it was being read; try again")
        return {name: tensor.detach() for name, tensor in tensors.items()}

    def _map_one(self, buffer: Any, name: str) -> torch.Tensor:
        spec, place = self.specs[name], self.places[name]
        stored = tensor_at(buffer, place.byte_offset, place.num_stored, spec.dtype)
        return stored.as_strided(spec.shape, place.strides, place.first)


def _load(path: Path, mapped: bool, device: str) -> Any:
    try:
        return torch.load(path, map_location=device, weights_only=True, mmap=mapped)
    except Exception as error:  # a damaged pickle can raise anything at all
        raise ValueError(_explain(path, error)) from error


def _explain(path: Path, error: Exception) -> str:
    """Say what torch's reader met, without its advice to switch the safe mode off."""
    forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
    if forbidden:
        return (
            f"{path} is refused: besides tensors its pickle asks for {forbidden[1]}, which could run code; "
            "nothing of it was run. Give a .safetensors file, or a .pt that holds tensors alone"
        )
    reason = re.search(r"WeightsUnpickler error: (.+)", str(error))
    line = reason[1] if reason else (str(error).strip() or type(error).__name__).splitlines()[0]
    if "weights_only" in line:
        line = "its pickle holds more than tensors, or is damaged; nothing of it was run"
    return f"{path} is not a readable weight file (truncated, corrupt or of another kind): {line[:200]}"


def _check_archive(path: Path) -> dict[int, int]:
    """Check the zip's directory, the checksums of its small records and the place of every tensor's bytes.

    Returns the verified tensor records: offset of the bytes -> their number.
    """
    records = {}
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            pickles = 0
            for record in archive.infolist():
                if record.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"its record {record.filename} is compressed: it was packed anew")
                offset = _check_record(file, record)
                if "/data/" in record.filename:
                    records[offset] = record.file_size
                elif archive.read(record) == b"big" and record.filename.endswith("/byteorder"):
                    raise ValueError("it was written on a big-endian machine, which is not read")
                pickles += record.filename.endswith("/data.pkl")
            if pickles != 1:
                raise ValueError("it has no data.pkl: torch.save did not write it")
    except Exception as error:  # zipfile raises many kinds for damaged archives
        raise ValueError(
            f"{path} is a truncated or corrupt .pt archive: {error}; download it again"
        ) from error
    return records


def _check_record(file: BinaryIO, record: zipfile.ZipInfo) -> int:
    """Where a record's bytes begin; they must end at a signature, for a damaged header would shift them."""
    file.seek(record.header_offset)
    local = file.read(30)
    if len(local) < 30 or not local.startswith(ZIP_MAGIC):
        raise ValueError(f"its record {record.filename} is not where the directory says")
    name_size, extra_size = struct.unpack("<HH", local[26:30])
    if file.read(name_size) != record.orig_filename.encode("utf-8"):
        raise ValueError(f"its record {record.filename} has another name in its own header")
    offset = file.seek(extra_size, 1)
    file.seek(record.file_size, 1)
    if file.read(4) not in _RECORD_END:
        raise ValueError(f"its record {record.filename} does not end where the directory says")
    return offset


def _place_of(path: Path, name: str, value: torch.Tensor, records: dict[int, int]) -> Place:
    """The pickle's word on where a tensor lies, held against the archive's verified records."""
    storage = value.untyped_storage()
    offset = getattr(storage, "_checkpoint_offset", None)
    if storage.nbytes() > 0 and records.get(offset, -1) < storage.nbytes():
        raise ValueError(
            f"{path} is corrupt: the bytes of {name} are not in any of its records; download it again"
        )
    count = storage.nbytes() // value.dtype.itemsize
    last = value.storage_offset() + sum((n - 1) * s for n, s in zip(value.shape, value.stride(), strict=True))
    if value.numel() and last >= count:
        raise ValueError(f"{path} is corrupt: {name} reaches beyond its bytes; download it again")
    return Place(offset or 0, count, value.stride(), value.storage_offset())


def _check_sizes(path: Path, tensors: dict[str, torch.Tensor], records: dict[int, int]) -> None:
    """Where torch does not tell offsets: the pickle must not claim sizes that the archive does not have."""
    storages = {
        value.untyped_storage()._cdata: value.untyped_storage().nbytes() for value in tensors.values()
    }
    claimed = Counter(storages.values()) - Counter(records.values())
    if claimed:
        raise ValueError(f"{path} is corrupt: tensors of {max(claimed)} bytes are in none of its records")


def _find_state_dict(path: Path, content: Any) -> tuple[str, dict[str, torch.Tensor]]:
    """The table of tensors, and the key that it lies under ('' where the file is the table itself)."""
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a table of named tensors")
    for container in CONTAINERS:
        inner = content.get(container)
        if isinstance(inner, dict) and inner:
            break
    else:
        container, inner = "", content
    for name, value in inner.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            names = ", ".join(str(name) for name in list(content)[:10])
            raise ValueError(
                f"{path} holds a {type(value).__name__} at {str(name)[:80]!r} where tensors are expected; "
                f"it has the keys {names}; expected a table of tensors, or one under "
                f"{' or '.join(map(repr, CONTAINERS))}"
            )
    return container, inner


def _spec_of(path: Path, name: str, value: torch.Tensor) -> TensorSpec:
    spec = TensorSpec(tuple(value.shape), value.dtype)
    if value.layout != torch.strided or value.is_quantized:
        raise ValueError(f"{path}: {name} is a sparse or quantised tensor, which is not read; save it dense")
    if value.untyped_storage().nbytes() < spec.num_bytes:
        raise ValueError(
            f"{path}: {name} {list(spec.shape)} has fewer values than its shape; save it contiguous"
        )
    return spec
