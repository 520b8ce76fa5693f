"""The cache on disk: safetensors shards with a JSON index each, a header, and an index of all.

    cache.json            who made it: files' hashes, sizes, text length; another maker is refused
    empty.safetensors     the embedding of the empty prompt
    shard-00007.safetensors, shard-00007.json
    index.json            all shards' entries, written when the last one is there

Every file is written beside its place and moved there, a shard's JSON after its tensors: what has a JSON is
whole. Which process writes a shard changes nothing in it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from ..engine.files import save_safetensors
from .producer import Producer
from .samples import EncodedSample, SampleInfo, Skipped, pack

logger = logging.getLogger("vdot")
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


def write_json(values: dict[str, Any], path: Path) -> None:
    """Write a JSON file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may write the same header at once; each needs a file of its own to move.
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    partial.write_text(json.dumps(values, indent=1))
    os.replace(partial, path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file; ValueError names it where it is none."""
    try:
        return json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); remove it and run training/cache.py again"
        ) from error


def check_header(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    """Refuse a cache that was made otherwise, naming what differs."""
    for name, value in wanted.items():
        if found.get(name) != value:
            raise ValueError(
                f"the cache {folder} was made with another {name}: it has {found.get(name)!r}, "
                f"this run {value!r}; give another cache_dir or remove the old one"
            )


def _shard(folder: Path, number: int, ending: str) -> Path:
    return folder / f"shard-{number:05d}.{ending}"


def write_shard(folder: Path, number: int, samples: Iterable[EncodedSample], skipped: list[Skipped]) -> None:
    """Write one shard: tensors, then its index."""
    tensors: dict[str, Tensor] = {}
    entries = []
    for slot, sample in enumerate(samples):
        named, info = pack(sample, slot)
        tensors |= named
        entries.append(info.to_dict())
    path = _shard(folder, number, "safetensors")
    # One entry of metadata, no more: the library writes several in any order, and files would differ.
    save_safetensors(tensors, path, {})
    index = {"samples": entries, "skipped": [asdict(row) for row in skipped], "bytes": path.stat().st_size}
    write_json(index, _shard(folder, number, "json"))


def missing_shards(folder: Path, num_shards: int) -> list[int]:
    """Numbers of shards that are not written yet."""
    return [number for number in range(num_shards) if not _shard(folder, number, "json").is_file()]


def fill(
    folder: str | Path,
    producer: Producer,
    rank: int = 0,
    world_size: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Encode every shard of this process that is not there yet.

    Args:
        folder: The cache; it may be begun by an earlier start, or be filled by other processes too.
        producer: Gives the samples.
        rank, world_size: Shards with number % world_size == rank are this process's.
        progress: Called with (shards done, shards to do) after each.

    Returns:
        Whether the cache is complete now; where other processes still work on it, it is not.

    Raises:
        ValueError: The folder holds a cache made otherwise.
    """
    folder = Path(folder)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank} of {world_size}; expected 0 to {world_size - 1}")
    wanted = {
        "format": FORMAT,
        **json.loads(json.dumps(producer.header())),
        "num_shards": producer.num_shards,
    }
    if (folder / HEADER).is_file():
        check_header(read_json(folder / HEADER), wanted, folder)
    else:
        write_json(wanted, folder / HEADER)
    if rank == 0 and not (folder / EMPTY).is_file():
        save_safetensors({"text": producer.empty_text()}, folder / EMPTY, {})
    own = [number for number in missing_shards(folder, producer.num_shards) if number % world_size == rank]
    for done, number in enumerate(own, 1):
        samples, skipped = producer.encode(number)
        for row in skipped:
            logger.warning("skipped %s", row)
        write_shard(folder, number, samples, skipped)
        if progress:
            progress(done, len(own))
    return finish(folder, producer.num_shards)


def forget_skipped(folder: Path, rank: int = 0, world_size: int = 1) -> None:
    """Take this process's shards with rows that were missing or unreadable for not written."""
    for path in sorted(folder.glob("shard-*.json")):
        if int(path.stem.split("-")[1]) % world_size == rank and any(
            row["kind"] in ("missing", "unreadable") for row in read_json(path)["skipped"]
        ):
            (folder / INDEX).unlink(missing_ok=True)
            path.unlink()


def finish(folder: Path, num_shards: int) -> bool:
    """Write the index where every shard is there; False where some are still missing."""
    if missing_shards(folder, num_shards) or not (folder / EMPTY).is_file():
        return False
    if not (folder / INDEX).is_file():
        shards = [read_json(_shard(folder, number, "json")) for number in range(num_shards)]
        write_json({"shards": shards}, folder / INDEX)
    return True


class Cache:
    """A finished cache, opened for reading; files are mapped, not read whole."""

    MAX_OPEN = 256

    def __init__(self, folder: str | Path) -> None:
        from safetensors.torch import load_file

        self.folder = Path(folder)
        if not (self.folder / INDEX).is_file():
            begun = (self.folder / HEADER).is_file()
            raise ValueError(
                f"{self.folder} {'is a cache that is not finished' if begun else 'holds no cache'}; run "
                "`python training/cache.py --config ..` (started again, it goes on)"
            )
        self.header = read_json(self.folder / HEADER)
        if self.header.get("format") != FORMAT:
            raise ValueError(
                f"{self.folder} has format {self.header.get('format')}, expected {FORMAT}; encode anew"
            )
        self.empty_text = load_file(str(self.folder / EMPTY))["text"]
        self.text_len = int(self.header["text_len"])
        self.samples: list[tuple[int, SampleInfo]] = []
        self.skipped: list[Skipped] = []
        for number, shard in enumerate(read_json(self.folder / INDEX)["shards"]):
            self._add(number, shard)
        self._files: dict[int, Any] = {}

    def _add(self, number: int, shard: dict[str, Any]) -> None:
        self.skipped += [Skipped(**row) for row in shard["skipped"]]
        path = _shard(self.folder, number, "safetensors")
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

    def read(self, sample: int, caption: int, *, contexts: bool, latents: bool) -> dict[str, Tensor]:
        """Tensors of one sample: "text", and "latents" and "contexts" where asked for.

        Raises:
            RuntimeError: Its shard was whole when the cache was opened and is not any more.
        """
        from safetensors import SafetensorError

        number, info = self.samples[sample]
        try:
            return self._tensors(self._open(number), info, caption, contexts=contexts, latents=latents)
        except (OSError, SafetensorError) as error:
            # Left out here, it would change what every later batch is made of, on this process alone.
            raise RuntimeError(
                f"{_shard(self.folder, number, 'safetensors')} was whole at the start and now cannot be read "
                f"({error}): sample {info.id} is in it. Put it back and start again, or start again without "
                "it: its samples are left out then"
            ) from error

    def _tensors(
        self, file: Any, info: SampleInfo, caption: int, *, contexts: bool, latents: bool
    ) -> dict[str, Tensor]:
        tensors = {"text": file.get_tensor(f"{info.slot}.text.{caption}")}
        if latents:
            tensors["latents"] = file.get_tensor(f"{info.slot}.latents")
        if contexts:
            from .samples import unpack_contexts

            pictures, bits = (file.get_tensor(f"{info.slot}.{name}") for name in ("pictures", "masks"))
            tensors["contexts"] = unpack_contexts(pictures, bits)
        return tensors

    def _open(self, number: int) -> Any:
        from safetensors import safe_open

        if number not in self._files:
            if len(self._files) >= self.MAX_OPEN:
                self._files.pop(next(iter(self._files)))
            self._files[number] = safe_open(str(_shard(self.folder, number, "safetensors")), framework="pt")
        return self._files[number]
