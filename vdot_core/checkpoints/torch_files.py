"""`.pt` and `.pth` files: always torch's weights-only reader, memory-mapped where the file is a zip."""

from __future__ import annotations

import re
import struct
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .tensor_files import ZIP_MAGIC, TensorSpec

# Where a training program's file keeps the network: VDOT's release, then common trainers.
CONTAINERS = ("generator", "state_dict")
_RECORD_END = (b"PK\x07\x08", ZIP_MAGIC, b"PK\x01\x02")


@dataclass(frozen=True)
class TorchFile:
    """A torch file whose pickle has been read without its tensors' values."""

    path: Path
    specs: dict[str, TensorSpec]
    container: str
    remappable: bool
    metadata: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> TorchFile:
        """Read names, shapes and dtypes; ValueError for a file that is damaged, unsafe or holds no weights."""
        with path.open("rb") as file:
            is_zip = file.read(4) == ZIP_MAGIC
        if is_zip:
            _check_archive(path)
        content = _load(path, is_zip, "cpu" if is_zip else "meta")
        container, tensors = _find_state_dict(path, content)
        specs = {name: _spec_of(path, name, value) for name, value in tensors.items()}
        return cls(path, specs, container, remappable=is_zip)

    def map(self) -> dict[str, torch.Tensor]:
        """Every tensor; memory-mapped from a zip, read at once from the old pickle format, which cannot be."""
        container, tensors = _find_state_dict(self.path, _load(self.path, self.remappable, "cpu"))
        if container != self.container or tensors.keys() != self.specs.keys():
            raise ValueError(f"{self.path} changed while it was being read; try again")
        return {name: tensor.detach() for name, tensor in tensors.items()}


def _load(path: Path, is_zip: bool, device: str) -> Any:
    try:
        return torch.load(path, map_location=device, weights_only=True, mmap=is_zip)
    except Exception as error:  # a damaged pickle can raise anything at all
        raise ValueError(_explain(path, error)) from error


def _explain(path: Path, error: Exception) -> str:
    """Say what torch's reader met, without its advice to switch the safe mode off."""
    forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
    if forbidden:
        return (
            f"{path} is refused: besides tensors its pickle asks for {forbidden[1]}, which could run code; nothing "
            "of it was run. Give a .safetensors file, or a .pt that holds tensors alone"
        )
    line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return f"{path} is not a readable weight file (truncated, corrupt or of another kind): {line}"


def _check_archive(path: Path) -> None:
    """Check the zip's directory, the checksum of its small records and the place of every tensor's bytes."""
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            pickles = 0
            for record in archive.infolist():
                if record.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(
                        f"its record {record.filename} is compressed, so that it was packed anew"
                    )
                _check_record(file, record)
                if "/data/" not in record.filename:
                    archive.read(record)
                pickles += record.filename.endswith("/data.pkl")
            if pickles != 1:
                raise ValueError("it has no data.pkl, so that torch.save did not write it")
    except Exception as error:  # zipfile raises many kinds for damaged archives
        raise ValueError(
            f"{path} is a truncated or corrupt .pt archive: {error}; download it again"
        ) from error


def _check_record(file: Any, record: zipfile.ZipInfo) -> None:
    """A damaged local header would shift the tensor's bytes unseen: the record must end at the next signature."""
    file.seek(record.header_offset)
    local = file.read(30)
    if len(local) < 30 or not local.startswith(ZIP_MAGIC):
        raise ValueError(f"its record {record.filename} is not where the directory says")
    name_size, extra_size = struct.unpack("<HH", local[26:30])
    if file.read(name_size) != record.orig_filename.encode("utf-8"):
        raise ValueError(f"its record {record.filename} has another name in its own header")
    file.seek(extra_size + record.file_size, 1)
    if file.read(4) not in _RECORD_END:
        raise ValueError(f"its record {record.filename} does not end where the directory says")


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
                f"{path} holds a {type(value).__name__} at {str(name)[:80]!r} where tensors are expected; it has the "
                f"keys {names}; expected a table of tensors, or one under {' or '.join(map(repr, CONTAINERS))}"
            )
    return container, inner


def _spec_of(path: Path, name: str, value: torch.Tensor) -> TensorSpec:
    spec = TensorSpec(tuple(value.shape), value.dtype)
    if value.layout != torch.strided or value.is_quantized:
        raise ValueError(f"{path}: {name} is a sparse or quantised tensor, which is not read; save it dense")
    if value.device.type != "meta" and value.untyped_storage().nbytes() < spec.num_bytes:
        raise ValueError(
            f"{path}: {name} {list(spec.shape)} has fewer values than its shape; save it contiguous"
        )
    return spec
