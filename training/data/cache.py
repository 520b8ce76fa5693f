"""The cache on disk: safetensors shards with a JSON index each, a header, and an index of all.

    cache.json            what encoded it: files' hashes, sizes, text length; a different encoder is refused
    empty.safetensors     the embedding of the empty prompt
    shard-00007.safetensors, shard-00007.json
    index.json            all shards' entries, written when the last one is there

Every file is written under another name and moved to its place, a shard's JSON after its tensors: a shard
with a JSON is complete. Which process writes a shard changes nothing in it. `cache_writer.py` fills it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdot_core.checkpoints import read_tensors
from vdot_core.text import described, shown

from ..engine.hashes import sampled_hash
from .bad_rows import Skipped
from .cache_index import FILES, HEADER, damaged, read_json, read_shards
from .encoded import EncodedSample, SampleInfo, unpack
from .source_files import Version

FORMAT = 1
INDEX, EMPTY = "index.json", "empty.safetensors"
MADE_FROM = "made_from"
NUM_BLOCKS, BLOCK_BYTES = 16, 1 << 16  # of a shard's digest


def made_from(header: Mapping[str, Any]) -> str:
    """Identify all that a cache's files were made from; rows that are appended do not change it."""
    values = {name: value for name, value in header.items() if name not in ("format", "num_shards")}
    if isinstance(values.get("rows"), list):
        values["rows"] = values["rows"][:1]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def empty_tensors(text: Tensor, header: Mapping[str, Any]) -> dict[str, Tensor]:
    """Content of the file of the empty prompt's embedding [L, D]."""
    return {"text": text, MADE_FROM: torch.tensor(list(made_from(header).encode()), dtype=torch.uint8)}


def read_empty(path: Path, header: Mapping[str, Any]) -> Tensor:
    """[L, D] embedding of the empty prompt.

    Raises:
        ValueError: It is missing or damaged, or of a cache with another header.
    """
    try:
        tensors = read_tensors(path)[0]
    except ValueError as error:
        raise damaged(path, "it is not the file of tensors that was written") from error
    text, own = tensors.get("text"), tensors.get(MADE_FROM)
    # Caches of older versions do not say what it was made from.
    if own is not None and bytes(own.flatten().tolist()).decode("latin-1") != made_from(header):
        raise damaged(path, "it is of another cache")
    if text is None or text.ndim != 2 or not text.is_floating_point():
        raise damaged(path, "it holds no embedding")
    return text


def read_header(folder: str | Path) -> dict[str, Any] | None:
    """The header of a cache; None where there is none."""
    path = Path(folder) / HEADER
    return read_json(path) if os.path.lexists(path) else None


def cached_rows(folder: str | Path) -> list[list]:
    """`versions` of the rows that a cache holds; none where it is new, or of an older layout."""
    rows = (read_header(folder) or {}).get("rows")
    if not isinstance(rows, list):
        return []
    if not (rows and all(isinstance(row, list) and list(map(type, row)) == [int, str] for row in rows)):
        raise damaged(Path(folder) / HEADER, "its rows are not numbers with hashes")
    return rows


def check_header(header: Mapping[str, Any], expected: Mapping[str, Any], folder: Path) -> None:
    """Refuse a cache that was made with other settings, naming what differs.

    Args:
        header: The cache's.
        expected: The header that this run would write.
        folder: The cache, for the message.

    Raises:
        ValueError: A value differs.
    """
    for name, value in expected.items():
        if header.get(name) == value:
            continue
        if name == "rows":
            raise ValueError(
                f"the cache {folder} was made from other rows; rows appended at the end can be added to it, "
                "other changes cannot: give another cache_dir or remove the old one"
            )
        raise ValueError(
            f"the cache {shown(folder)} was made with another {name}: it has "
            f"{described(header.get(name), 80)}, this run {described(value, 80)}; "
            f"give another cache_dir or remove the old one"
        )


def shard_path(folder: Path, number: int, ending: str) -> Path:
    """File of a shard: its tensors ("safetensors") or its index ("json")."""
    return folder / f"shard-{number:05d}.{ending}"


def shard_indexes(folder: Path) -> list[Path]:
    """The JSON files of a cache's shards, in order; copies by other names are none."""
    return sorted(path for path in folder.glob("shard-*.json") if path.stem.partition("-")[2].isdecimal())


def written_ns(folder: Path, number: int) -> int | None:
    """Time at which a shard's tensors were written, in nanoseconds; None where they are not there."""
    with suppress(OSError):
        return shard_path(folder, number, "safetensors").stat().st_mtime_ns
    return None


def shard_digest(path: Path) -> str:
    """Digest of a shard's tensors: of its size and of blocks evenly spread over it, 1 MiB in all.

    It tells a shard from any other, and costs little to compare at the start of every run; a change of a few
    bytes between two blocks is not noticed.
    """
    return sampled_hash(path, NUM_BLOCKS, BLOCK_BYTES)


class Cache:
    """A finished cache, opened for reading; files are mapped, not loaded.

    Args:
        folder: The cache's folder.

    Attributes:
        header: The settings and models that encoded it.
        empty_text: [L, D] embedding of the empty prompt.
        text_len: Tokens that the network reads.
        samples: Shard and index entry of each sample.
        skipped: Rows that were left out.
        files: Versions of the files that each shard was made from; of caches of older versions, none.
        content: Digest of all shards' tensors.

    Raises:
        ValueError: It is missing, unfinished or of another format.
    """

    MAX_OPEN = 256

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        header, index = read_header(folder), self.folder / INDEX
        shards = read_shards(index) if header is not None and os.path.lexists(index) else []
        if header is None or len(shards) != header.get("num_shards", len(shards)) or not index.is_file():
            none = header is None
            raise ValueError(
                f"{self.folder} {'holds no cache' if none else 'is an unfinished cache'}; run `python "
                f"training/cache.py --config ..`, which {'makes' if none else 'resumes'} it"
            )
        self.header = header
        if header.get("format") != FORMAT:
            raise ValueError(
                f"{self.folder} has format {header.get('format')}, expected {FORMAT}; encode it again"
            )
        self.text_len = header.get("text_len")
        if not isinstance(self.text_len, int):
            raise damaged(self.folder / HEADER, f"its text_len is {described(self.text_len, 22)}")
        self.empty_text = read_empty(self.folder / EMPTY, header)
        if self.text_len < len(self.empty_text):
            raise damaged(self.folder / HEADER, f"its text_len is {self.text_len}")
        self._made_from = made_from(header)
        self.samples: list[tuple[int, SampleInfo]] = []
        self.skipped: list[Skipped] = []
        for number, shard in enumerate(shards):
            self._add(number, shard)
        self._files: dict[int, Any] = {}
        self._num_bytes = [shard["bytes"] for shard in shards]
        self.files: list[dict[str, Version]] = [shard.get(FILES, {}) for shard in shards]
        digests = [shard.get("digest", "") for shard in shards]
        self.content = hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16]

    def _add(self, number: int, shard: dict[str, Any]) -> None:
        self.skipped += [Skipped(**row) for row in shard["skipped"]]
        path = shard_path(self.folder, number, "safetensors")
        size = path.stat().st_size if path.is_file() else None
        reason = f"{path} has {size or 0} bytes, not {shard['bytes']}" if size != shard["bytes"] else None
        # Caches of older versions have no digests.
        if reason is None and shard.get("digest", "") not in ("", shard_digest(path)):
            reason = f"{path} has other content than was written"
        if reason is None and shard.get(MADE_FROM, self._made_from) != self._made_from:
            reason = f"{path} is of a cache of other rows or settings"
        slots = set()
        for values in shard["samples"]:
            try:
                info = SampleInfo.from_dict(values)
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise damaged(self.folder / INDEX, f"a sample of shard {number}: {error}") from error
            if info.slot in slots:
                raise damaged(self.folder / INDEX, f"it lists sample {info.slot} of shard {number} twice")
            slots.add(info.slot)
            if reason is None:
                self.samples.append((number, info))
                continue
            kind = "missing" if size is None else "unreadable"
            self.skipped.append(Skipped(info.id, f"{path.name} sample {info.slot}", kind, reason))

    def __getstate__(self) -> dict[str, Any]:
        # Open files stay in their process; another one opens its own.
        return {**vars(self), "_files": {}}

    def require_samples(self) -> None:
        """Refuse, by ValueError, a cache of no sample."""
        if not self.samples:
            first = f" (the first: {shown(str(self.skipped[0]), 120)})" if self.skipped else ""
            raise ValueError(
                f"the cache {shown(self.folder, 100)} holds no sample: {len(self.skipped)} rows were left out"
                f"{first}, and no other is there. Correct the rows, remove that folder and encode them again"
            )

    def read(self, sample: int, caption: int, *, contexts: bool) -> EncodedSample:
        """Read one sample with one of its captions.

        Args:
            sample: Its place in `samples`.
            caption: Index of the caption.
            contexts: Read its contexts, too.

        Raises:
            RuntimeError: Its shard was complete when the cache was opened and no longer is.
        """
        from safetensors import SafetensorError

        number, info = self.samples[sample]
        try:
            return unpack(self._open(number), info, caption, contexts=contexts)
        except (OSError, SafetensorError) as error:
            # Leaving it out here would change all later batches on this process alone.
            raise RuntimeError(
                f"{shard_path(self.folder, number, 'safetensors')} was complete at the start and now cannot "
                f"be read ({error}): sample {info.id} is in it. Restore it and start again, or start again "
                "without it: its samples are left out then"
            ) from error

    def _open(self, number: int) -> Any:
        from safetensors import safe_open

        path = shard_path(self.folder, number, "safetensors")
        file, inode = self._files.get(number, (None, None))
        with suppress(FileNotFoundError) if file else nullcontext():  # a mapped file that was removed stays
            status, expected = path.stat(), self._num_bytes[number]
            # What lies beyond the end of a mapped file that was cut ends the process where it is read; one
            # that was exchanged stays as it was.
            if status.st_size != expected and inode in (None, status.st_ino):
                raise OSError(f"it has {status.st_size} bytes, not {expected}")
        if file is None:
            if len(self._files) >= self.MAX_OPEN:
                self._files.pop(next(iter(self._files)))
            file = safe_open(str(path), framework="pt")
            self._files[number] = file, status.st_ino
        return file
