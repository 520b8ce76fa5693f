"""`.pt` and `.pth` files: the one place that unpickles, by torch's weights-only reader after checks."""

from __future__ import annotations

import io
import os
import re
import struct
import sys
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch

from .files import open_file
from .pickles import MAX_PICKLE_BYTES, Description, ForbiddenGlobalError, Storage, describe
from .text import shown

ZIP_MAGIC = b"PK\x03\x04"
PICKLE_MAGIC = b"\x80"
_RECORD_END = (b"PK\x07\x08", ZIP_MAGIC, b"PK\x01\x02")
_MAX_DIRECTORY_BYTES = 16_000_000
# What a file of torch before 1.6 begins with: a number, the format's version, the machine it was written on.
_OLD_MAGIC = (0x1950A86A20F9469CFC6C, 1001)


@dataclass(frozen=True)
class TorchContent:
    """The checked content of a torch file, its tensors' values not read.

    Args:
        value: the object that was saved, with a `PickledTensor` for each tensor.
        num_bytes: size of all values that tensors refer to.
        is_archive: it is a zip archive, which can be memory-mapped; plain pickles were before torch 1.6.
        places: offset in the file of each storage by its key; empty where its bytes are not those in memory.
    """

    value: Any
    num_bytes: int
    is_archive: bool
    places: dict[str, int] = field(default_factory=dict)


class _Record(NamedTuple):
    """Size and offset of a record's data in the file."""

    size: int
    offset: int


def load_torch_file(path: str | Path, *, mapped: bool = False) -> Any:
    """Read a file of `torch.save`; nothing but tensors and plain values is unpickled.

    Args:
        path: a `.pt`, `.pth`, `.bin` or `.ckpt` file.
        mapped: map an archive's tensors instead of reading them; changing them never changes the file.
    Returns:
        The object that was saved, its tensors on the CPU.
    Raises:
        ValueError: the file is missing, damaged or unsafe, or `torch.save` did not write it.
    """
    path = Path(path)
    is_archive = inspect_torch_file(path).is_archive
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and is_archive)
    except Exception as error:  # a damaged file can raise anything at all
        raise ValueError(_explain(path, error)) from error


def inspect_torch_file(path: Path) -> TorchContent:
    """Check a file of `torch.save` and describe its content, without a call of torch's reader.

    Args:
        path: the file.
    Returns:
        What it holds.
    Raises:
        ValueError: it is missing, damaged, or anything but tensors and plain values: TorchScript, tar files,
            archives that `torch.save` did not write, pickles that ask for other objects.
    """
    with open_file(path) as file:
        magic = file.read(4)
        try:
            if magic == ZIP_MAGIC:
                return _inspect_archive(file)
            if magic.startswith(PICKLE_MAGIC):
                return _inspect_old(file)
        except ForbiddenGlobalError as error:
            raise ValueError(
                f"{shown(path)} is refused: besides tensors its pickle asks for {shown(error, 80)}; nothing "
                "of it was run. Give a .safetensors file, or a .pt of tensors alone"
            ) from error
        except Exception as error:  # zipfile and tarfile raise many kinds for damaged files
            kind = "unsafe .pt archive" if magic == ZIP_MAGIC else "unsafe pickle"
            raise ValueError(
                f"{shown(path)} is not a readable weight file: a truncated, corrupt or {kind}: "
                f"{shown(error, 160)}; download it again, or give a .safetensors file"
            ) from error
    raise ValueError(
        f"{shown(path)} is not a readable weight file: it is neither an archive of torch.save nor a "
        "pickle; download it again, or give a .safetensors file"
    )


def _inspect_old(file: BinaryIO) -> TorchContent:
    """The format before torch 1.6: five pickles, then each storage's length and values."""
    size = file.seek(0, 2)
    file.seek(0)
    start = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    file.seek(0)
    if tarfile.is_tarfile(file):
        raise ValueError("it is a tar file, which torch would unpack onto the disk")
    if tuple(describe(start).value for _ in range(2)) != _OLD_MAGIC:
        raise ValueError("it is not of torch.save")
    describe(start)
    content, keys = describe(start), describe(start).value
    # The text of a nested key can be exponentially longer than the file.
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("its list of storages has other entries than text")
    if sorted(keys) != sorted(content.storages):
        raise ValueError("its list of storages does not fit its tensors")
    if any(storage.dtype is None for storage in content.storages.values()):
        raise ValueError("torch does not read these dtypes from files in the format before torch 1.6")
    total = sum(storage.num_bytes for storage in content.storages.values())
    if start.tell() + total + 8 * len(keys) > size:
        raise ValueError(f"it has {size} bytes and describes {total} bytes of weights")
    return TorchContent(content.value, total, is_archive=False)


def _inspect_archive(file: BinaryIO) -> TorchContent:
    """Check directory and records of an archive, and describe its pickle."""
    size = file.seek(0, 2)
    directory = _directory_offset(file)
    if size - directory > _MAX_DIRECTORY_BYTES:
        raise ValueError(f"its directory has {size - directory} bytes")
    with zipfile.ZipFile(file) as archive:
        # zipfile takes the directory from right before its end, torch from where the end says it is.
        if archive.start_dir != directory:
            raise ValueError("its directory is not where its end says")
        records = _checked_records(file, archive, size)
        if "data.pkl" not in records or records["data.pkl"].size > MAX_PICKLE_BYTES:
            raise ValueError(f"it has no data.pkl of at most {MAX_PICKLE_BYTES / 1e6:.0f} MB")
        top = archive.infolist()[0].orig_filename.split("/")[0]
        content = describe(io.BytesIO(archive.read(f"{top}/data.pkl")))
        order = archive.read(f"{top}/byteorder") if "byteorder" in records else b"little"
    for storage in content.storages.values():
        _check_storage(storage, records)
    places = {key: records[f"data/{key}"].offset for key in content.storages}
    is_native = order == sys.byteorder.encode()
    return TorchContent(content.value, _total(content), True, places if is_native else {})


def _total(content: Description) -> int:
    return sum(storage.num_bytes for storage in content.storages.values())


def _check_storage(storage: Storage, records: dict[str, _Record]) -> None:
    """A record must have the bytes that the pickle says; torch's map would run on into the next."""
    record = records.get(f"data/{storage.key}", _Record(0, 0))
    if record.size != storage.num_bytes or not record.offset:
        raise ValueError(
            f"its record data/{shown(storage.key, 40)} has {record.size} bytes, its pickle says "
            f"{storage.num_bytes}"
        )


def _checked_records(file: BinaryIO, archive: zipfile.ZipFile, size: int) -> dict[str, _Record]:
    """Check every record's place, and the checksums of all but the tensors'."""
    infos = archive.infolist()
    offsets = [_check_record(file, record, infos[0].orig_filename) for record in infos]
    if sum(record.file_size for record in infos) > size:
        raise ValueError("its records have more bytes than the file")
    records = {
        record.orig_filename.partition("/")[2]: _Record(record.file_size, offset)
        for record, offset in zip(infos, offsets, strict=True)
    }
    if len({name.lower() for name in records}) != len(infos):
        raise ValueError("it has two records of one name")
    for record in infos:
        is_data = record.orig_filename.partition("/")[2].startswith("data/")
        if not is_data and record.file_size <= MAX_PICKLE_BYTES:
            archive.read(record)
    return records


def _directory_offset(file: BinaryIO) -> int:
    """Place of the archive's directory by its end record, which must be the last bytes of the file."""
    end = file.seek(-22, os.SEEK_END)
    signature, offset, comment_size = struct.unpack("<4s12xLH", file.read(22))
    if signature != b"PK\x05\x06" or comment_size:
        raise ValueError("it does not end where a zip archive ends")
    file.seek(max(end - 20, 0))
    signature, offset64 = struct.unpack("<4s4xQ4x", file.read(20))
    if signature != b"PK\x06\x07":
        return offset
    file.seek(end - 76)
    signature, offset = struct.unpack("<4s44xQ", file.read(56))
    if offset64 != end - 76 or signature != b"PK\x06\x06":
        raise ValueError("its end records contradict each other")
    return offset


def _check_record(file: BinaryIO, record: zipfile.ZipInfo, first: str) -> int:
    """Check a record's name and place, and return where its data begins.

    It must end at a signature, for a damaged header would shift it.
    """
    name, label = record.orig_filename, shown(record.orig_filename, 80)
    top, *parts = name.split("/")
    if not parts or top != first.split("/")[0] or {"", ".", ".."} & set(parts) or re.search(r"[\\\0]", name):
        raise ValueError(f"its record {label} is not named as torch.save does")
    if parts[0].lower() == "code" or parts[-1].lower() == "constants.pkl":
        raise ValueError(
            f"it is a TorchScript program (it has {label}), which could run code; nothing was run"
        )
    if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size:
        raise ValueError(f"its record {label} is compressed: torch.save did not write it")
    file.seek(record.header_offset)
    signature, name_size, extra_size = struct.unpack("<4s22xHH", file.read(30))
    if signature != ZIP_MAGIC or file.read(name_size) != name.encode("utf-8"):
        raise ValueError(f"its record {label} is not where the directory says")
    offset = file.seek(extra_size, 1)
    file.seek(record.file_size, 1)
    if file.read(4) not in _RECORD_END:
        raise ValueError(f"its record {label} does not end where the directory says")
    return offset


def _explain(path: Path, error: Exception) -> str:
    """Reason of torch's reader, without its advice to switch the safe mode off."""
    if "unable to mmap" in str(error):
        return (
            f"{shown(path)} ({path.stat().st_size / 1e9:.1f} GB) cannot be mapped: Linux maps no file larger "
            "than memory and swap together; add swap, or convert it to .safetensors on a larger machine"
        )
    if isinstance(error, UnicodeEncodeError):
        return f"{shown(path)} is named in another encoding than UTF-8, which torch cannot open; rename it"
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "weights_only" in line:
        line = "its pickle holds more than tensors, or is damaged; nothing of it was run"
    return (
        f"{shown(path)} is not a readable weight file (truncated, corrupt or of another kind): "
        f"{shown(line, 160)}; download it again"
    )
