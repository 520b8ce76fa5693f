"""The JSON files of a cache: read with care, and compared with the checksums that they were written with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vdot_core.files import read_file
from vdot_core.text import shown

from .bad_rows import Skipped
from .source_files import is_record

HEADER, CHECKSUM, FILES = "cache.json", "checksum", "files"
MAX_JSON_BYTES = 2**30  # an index takes some 400 bytes a sample


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a cache; ValueError names the file where it holds none."""
    try:
        values = json.loads(read_file(path, MAX_JSON_BYTES))
    except (ValueError, OSError, RecursionError) as error:
        raise damaged(path, error) from error
    if not isinstance(values, dict):
        raise damaged(path, f"it holds a {type(values).__name__}, expected an object")
    return values


def damaged(path: Path, reason: object) -> ValueError:
    """The error for a file of a cache that cannot be used."""
    # Without its header, nothing says what encoded the shards.
    what = f"the folder {shown(path.parent)}" if path.name == HEADER else "it"
    return ValueError(
        f"{shown(path)} is damaged ({shown(reason, 120)}); remove {what} and run training/cache.py again"
    )


def read_shards(index: Path) -> list[dict[str, Any]]:
    """The shards' entries of an index.

    Raises:
        ValueError: It is damaged.
    """
    shards = read_json(index).get("shards")
    if not (isinstance(shards, list) and all(map(_is_shard, shards))):
        raise damaged(index, "it does not list the shards as they were written")
    return shards


def read_shard(path: Path) -> dict[str, Any]:
    """A shard's entry, from its JSON.

    Raises:
        ValueError: It is damaged.
    """
    shard = read_json(path)
    if not _is_shard(shard):
        raise damaged(path, "it does not list the samples as they were written")
    return shard


def checksum(shard: Mapping[str, Any]) -> str:
    """Checksum of a shard's entry, over all that it lists."""
    values = {name: value for name, value in shard.items() if name != CHECKSUM}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _is_shard(shard: Any) -> bool:
    if not (isinstance(shard, dict) and isinstance(shard.get("bytes"), int)):
        return False
    # Caches of older versions have none.
    if shard.get(CHECKSUM, "") not in ("", checksum(shard)):
        return False
    # The same of the versions of its files.
    if not is_record(shard.get(FILES, {})):
        return False
    samples, skipped = shard.get("samples"), shard.get("skipped")
    return isinstance(samples, list) and isinstance(skipped, list) and all(map(Skipped.is_entry, skipped))
