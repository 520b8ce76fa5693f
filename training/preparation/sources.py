"""The source videos of a preparation."""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path

from vdot_core.text import counted, shown

from .config import ENDINGS
from .stage import Row
from .store import STORE

logger = logging.getLogger("vdot")
MAX_NAME = 60


def find_sources(inputs: Sequence[str]) -> list[Row]:
    """All videos under folders, files and patterns, without those that a preparation wrote.

    Args:
        inputs: As `PrepareConfig.input`.

    Returns:
        A row for each, sorted by id: `id`; `path`; `state`, which changes with the file; and `name`, under
        its input, with bytes that are no UTF-8 as escapes. An id is the same wherever the input lies.

    Raises:
        ValueError: An input does not exist, or there is no video in any.
    """
    rows: dict[str, Row] = {}
    holds_results = cache(lambda folder: (folder / STORE).is_file())
    for text in inputs:
        found = list(_files(text))
        paths = [(name, path) for name, path in found if not _is_output(text, path, holds_results)]
        if len(paths) < len(found):
            num_outputs = counted(len(found) - len(paths), "video")
            logger.info("input %s: %s of an earlier preparation left out", shown(text), num_outputs)
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
            # A table holds no surrogates, by which Python names bytes that are not UTF-8.
            label = name.encode("utf-8", "backslashreplace").decode("utf-8")
            rows[source_id] = {"id": source_id, "path": path, "name": label, "state": state}
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


def _is_output(text: str, path: str, holds_results: Callable[[Path], bool]) -> bool:
    """True for a file in the output folder of a preparation, if that lies in the input, such as its own."""
    parts = Path(text).expanduser().parts
    root = Path(*takewhile(lambda part: not glob.has_magic(part), parts)).resolve()
    file = Path(path)
    if file == root or not file.is_relative_to(root):
        return False
    levels = len(file.relative_to(root).parts)
    return any(holds_results(folder) for folder in list(file.parents)[:levels])


def source_name(name: str) -> str:
    """An id for file names: a readable part, and a digest that tells all names apart."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", name.rsplit(".", 1)[0]).strip("-").lower()[:MAX_NAME] or "video"
    return f"{stem}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
