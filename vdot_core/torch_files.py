"""`.pt` and `.pth` files: the one place that unpickles, by torch's weights-only reader after a check."""

from __future__ import annotations

import mmap
import re
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from .text import shown

ZIP_MAGIC = b"PK\x03\x04"
PICKLE_MAGIC = b"\x80"
_RECORD_END = (b"PK\x07\x08", ZIP_MAGIC, b"PK\x01\x02")
# Names, shapes and other plain values; tensors' values are records of their own.
_MAX_PICKLE_BYTES = 100_000_000
# The one constructor that torch's weights-only reader allows and that fills memory of any size asked for.
_BYTEARRAY = b"\nbytearray\n"


def load_torch_file(path: str | Path, *, mapped: bool = False, device: str = "cpu") -> Any:
    """Read a file of `torch.save`; nothing but tensors and plain values is unpickled.

    Args:
        path: a `.pt`, `.pth`, `.bin` or `.ckpt` file.
        mapped: map an archive's tensors instead of reading them; changing them never changes the file.
        device: where the tensors go; 'meta' for their shapes and dtypes alone.
    Returns:
        The object that was saved.
    Raises:
        ValueError: the file is missing, damaged or unsafe, or `torch.save` did not write it.
    """
    path = Path(path)
    is_archive = bool(check_torch_file(path))
    try:
        return torch.load(path, map_location=device, weights_only=True, mmap=mapped and is_archive)
    except Exception as error:  # a damaged pickle can raise anything at all
        raise ValueError(_explain(path, error)) from error


def check_torch_file(path: Path) -> dict[str, int]:
    """Refuse what must not reach torch: TorchScript, tar files, archives that `torch.save` did not write.

    Args:
        path: the file.
    Returns:
        The archive's records: name -> number of bytes; empty for the plain pickles of torch before 1.6.
    Raises:
        ValueError: the file is missing or refused.
    """
    if not path.is_file():
        raise ValueError(f"{shown(path)} is not a file; check the path")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == ZIP_MAGIC:
        return _check_archive(path)
    if not magic.startswith(PICKLE_MAGIC):
        raise ValueError(
            f"{shown(path)} is not a readable weight file: it is neither an archive of torch.save nor a "
            "pickle; download it again, or give a .safetensors file"
        )
    _check_pickle_file(path)
    return {}


def _check_pickle_file(path: Path) -> None:
    try:
        tarfile.open(path, "r:").close()
        is_tar = True  # torch would unpack it onto the disk
    except tarfile.TarError:
        is_tar = False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if is_tar or content.find(_BYTEARRAY) >= 0:
            kind = "a tar file" if is_tar else "a pickle with a bytearray"
            raise ValueError(f"{shown(path)} is refused: it is {kind}; give a .safetensors file")


def _check_archive(path: Path) -> dict[str, int]:
    """Check the directory, every record's place, and the checksums of all records but the tensors'."""
    records: dict[str, int] = {}
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            # zipfile takes the directory from right before its end, torch from where the end says it is.
            if archive.start_dir != _directory_offset(file):
                raise ValueError("its directory is not where its end says")
            for record in archive.infolist():
                _check_record(file, record, archive.infolist()[0].orig_filename)
            if sum(record.file_size for record in archive.infolist()) > path.stat().st_size:
                raise ValueError("its records have more bytes than the file")
            for record in archive.infolist():
                name = record.orig_filename.partition("/")[2]
                if not name.startswith("data/") and record.file_size <= _MAX_PICKLE_BYTES:
                    content = archive.read(record)
                    if name == "data.pkl" and _BYTEARRAY in content:
                        raise ValueError("its pickle has a bytearray")
                records[name] = record.file_size
            if len({name.lower() for name in records}) != len(archive.infolist()):
                raise ValueError("it has two records of one name")
            if records.get("data.pkl", _MAX_PICKLE_BYTES + 1) > _MAX_PICKLE_BYTES:
                raise ValueError(f"it has no data.pkl of at most {_MAX_PICKLE_BYTES / 1e6:.0f} MB")
    except Exception as error:  # zipfile raises many kinds for damaged archives
        raise ValueError(
            f"{shown(path)} is a truncated, corrupt or unsafe .pt archive: {shown(error)}; download it "
            "again, or give a .safetensors file"
        ) from error
    return records


def _directory_offset(file: BinaryIO) -> int:
    """Place of the archive's directory by its end record, which must be the last bytes of the file."""
    end = file.seek(-22, 2)
    signature, offset, comment_size = struct.unpack("<4s12xLH", file.read(22))
    if signature != b"PK\x05\x06" or comment_size:
        raise ValueError("it does not end where a zip archive ends")
    file.seek(end - 20)
    signature, offset64 = struct.unpack("<4s4xQ4x", file.read(20))
    if signature != b"PK\x06\x07":
        return offset
    file.seek(end - 76)
    signature, offset = struct.unpack("<4s44xQ", file.read(56))
    if offset64 != end - 76 or signature != b"PK\x06\x06":
        raise ValueError("its end records contradict each other")
    return offset


def _check_record(file: BinaryIO, record: zipfile.ZipInfo, first: str) -> None:
    """Check a record's name and place; it must end at a signature, for a damaged header would shift it."""
    name, said = record.orig_filename, shown(record.orig_filename)
    top, *parts = name.split("/")
    if not parts or top != first.split("/")[0] or {"", ".", ".."} & set(parts) or re.search(r"[\\\0]", name):
        raise ValueError(f"its record {said} is not named as torch.save does")
    if parts[0].lower() == "code" or parts[-1].lower() == "constants.pkl":
        raise ValueError(
            f"it is a TorchScript program (it has {said}), which could run code; nothing was run"
        )
    if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size:
        raise ValueError(f"its record {said} is compressed: torch.save did not write it")
    file.seek(record.header_offset)
    signature, name_size, extra_size = struct.unpack("<4s22xHH", file.read(30))
    if signature != ZIP_MAGIC or file.read(name_size) != name.encode("utf-8"):
        raise ValueError(f"its record {said} is not where the directory says")
    file.seek(extra_size + record.file_size, 1)
    if file.read(4) not in _RECORD_END:
        raise ValueError(f"its record {said} does not end where the directory says")


def _explain(path: Path, error: Exception) -> str:
    """Reason of torch's reader, without its advice to switch the safe mode off."""
    if "unable to mmap" in str(error):
        return (
            f"{shown(path)} ({path.stat().st_size / 1e9:.1f} GB) cannot be mapped: Linux maps no file larger "
            "than memory and swap together; add swap, or convert it to .safetensors on a larger machine"
        )
    if isinstance(error, UnicodeEncodeError):
        return f"{shown(path)} is named in another encoding than UTF-8, which torch cannot open; rename it"
    forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
    if forbidden:
        return (
            f"{shown(path)} is refused: besides tensors its pickle asks for {shown(forbidden[1])}, which "
            "could run code; nothing of it was run. Give a .safetensors file, or a .pt of tensors alone"
        )
    reason = re.search(r"WeightsUnpickler error: (.+)", str(error))
    line = reason[1] if reason else (str(error).strip() or type(error).__name__).splitlines()[0]
    if "weights_only" in line:
        line = "its pickle holds more than tensors, or is damaged; nothing of it was run"
    return (
        f"{shown(path)} is not a readable weight file (truncated, corrupt or of another kind): {shown(line)}"
    )
