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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vdot_core.checkpoints import read_tensors

from .bad_rows import Skipped
from .encoded import EncodedSample, SampleInfo, unpack

FORMAT = 1
HEADER, INDEX, EMPTY = "cache.json", "index.json", "empty.safetensors"


def digest(*paths: str | Path) -> str:
    """SHA-256 of files, or of all files of folders with their names; not of hidden ones (.cache, .git)."""
    total = hashlib.sha256()
    for path in map(Path, paths):
        if not path.exists():
            raise ValueError(f"{path} does not exist; give a model file or folder")
        for file in [path] if path.is_file() else _visible(path):
            if path.is_dir():
                total.update(f"{file.relative_to(path).as_posix()}\0".encode())
            with file.open("rb") as stream:
                while block := stream.read(1 << 22):
                    total.update(block)
    return total.hexdigest()


def _visible(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(p for p in files if not any(x.startswith(".") for x in p.relative_to(folder).parts))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file; ValueError names it where it is none."""
    try:
        return json.loads(path.read_text())
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); remove it and run training/cache.py again"
        ) from error


def read_header(folder: str | Path) -> dict[str, Any] | None:
    """The header of a cache; None where there is none."""
    path = Path(folder) / HEADER
    return read_json(path) if path.is_file() else None


def cached_rows(folder: str | Path) -> list[list]:
    """`versions` of the rows that a cache holds; none where it is new, or of an older layout."""
    rows = (read_header(folder) or {}).get("rows")
    return rows if isinstance(rows, list) else []


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
            f"the cache {folder} was made with another {name}: it has {header.get(name)!r}, "
            f"this run {value!r}; give another cache_dir or remove the old one"
        )


def shard_path(folder: Path, number: int, ending: str) -> Path:
    """File of a shard: its tensors ("safetensors") or its index ("json")."""
    return folder / f"shard-{number:05d}.{ending}"


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

    Raises:
        ValueError: It is missing, unfinished or of another format.
    """

    MAX_OPEN = 256

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        header, index = read_header(folder), self.folder / INDEX
        shards = read_json(index)["shards"] if index.is_file() else []
        if header is None or len(shards) != header.get("num_shards", len(shards)) or not index.is_file():
            raise ValueError(
                f"{self.folder} {'holds no cache' if header is None else 'is an unfinished cache'}; "
                "run `python training/cache.py --config ..`, which resumes it"
            )
        self.header = header
        if header.get("format") != FORMAT:
            raise ValueError(
                f"{self.folder} has format {header.get('format')}, expected {FORMAT}; encode it again"
            )
        self.empty_text = read_tensors(self.folder / EMPTY)[0]["text"]
        self.text_len = int(self.header["text_len"])
        self.samples: list[tuple[int, SampleInfo]] = []
        self.skipped: list[Skipped] = []
        for number, shard in enumerate(shards):
            self._add(number, shard)
        self._files: dict[int, Any] = {}

    def _add(self, number: int, shard: dict[str, Any]) -> None:
        self.skipped += [Skipped(**row) for row in shard["skipped"]]
        path = shard_path(self.folder, number, "safetensors")
        size = path.stat().st_size if path.is_file() else None
        for values in shard["samples"]:
            info = SampleInfo.from_dict(values)
            if size == shard["bytes"]:
                self.samples.append((number, info))
                continue
            kind = "missing" if size is None else "unreadable"
            reason = f"{path} has {size or 0} bytes, not {shard['bytes']}"
            self.skipped.append(Skipped(info.id, f"{path.name} sample {info.slot}", kind, reason))

    def __getstate__(self) -> dict[str, Any]:
        # Open files stay in their process; another one opens its own.
        return {**vars(self), "_files": {}}

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

        if number not in self._files:
            if len(self._files) >= self.MAX_OPEN:
                self._files.pop(next(iter(self._files)))
            self._files[number] = safe_open(
                str(shard_path(self.folder, number, "safetensors")), framework="pt"
            )
        return self._files[number]
