"""The source videos of a preparation."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vdot_core.text import shown

from .config import ENDINGS
from .stage import Row

MAX_NAME = 60


def find_sources(inputs: Sequence[str]) -> list[Row]:
    """All videos under folders, files and patterns.

    Args:
        inputs: As `PrepareConfig.input`.

    Returns:
        A row for each, sorted by id: `id`; `path`; `state`, which changes with the file; and `name`, under
        its input. An id is the same wherever the input lies.

    Raises:
        ValueError: An input does not exist, or there is no video in any.
    """
    rows: dict[str, Row] = {}
    for text in inputs:
        paths = list(_files(text))
        if not paths:
            raise ValueError(
                f"input {shown(text)}: no video is there; expected files ending in {' '.join(ENDINGS)}"
            )
        for name, path in paths:
            status = os.stat(path)
            source_id = source_name(name)
            if source_id in rows and rows[source_id]["path"] != path:
                raise ValueError(
                    f"{shown(path)} and {shown(rows[source_id]['path'])} have the same place in two inputs; "
                    "rename one, or give the folder above both"
                )
            state = [status.st_size, status.st_mtime_ns]
            rows[source_id] = {"id": source_id, "path": path, "name": name, "state": state}
    return [rows[name] for name in sorted(rows)]


def _files(text: str) -> Iterator[tuple[str, str]]:
    """(name under the input, absolute path) of each video of one input."""
    path = Path(text).expanduser()
    if path.is_dir():
        files = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
        for file in files:
            if file.suffix.lower() in ENDINGS and file.is_file() and not file.name.startswith("."):
                yield file.relative_to(path).as_posix(), str(file.resolve())
    elif path.is_file():
        yield path.name, str(path.resolve())
    else:
        root = Path(glob.escape(text).split("[", 1)[0]).parent if glob.has_magic(text) else None
        for name in glob.glob(text, recursive=True):
            if Path(name).is_file() and Path(name).suffix.lower() in ENDINGS:
                yield Path(os.path.relpath(name, root)).as_posix(), str(Path(name).resolve())


def source_name(name: str) -> str:
    """An id for file names: a readable part, and a digest that tells all names apart."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", name.rsplit(".", 1)[0]).strip("-").lower()[:MAX_NAME] or "video"
    return f"{stem}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
