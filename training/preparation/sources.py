"""The source videos of a preparation."""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import takewhile
from pathlib import Path

from vdot_core.text import counted, shown

from ..data.source_files import THREADS
from ..engine.hashes import sampled_hash
from .config import ENDINGS
from .stage import FOLDERS, Row
from .store import STORE

logger = logging.getLogger("vdot")
MAX_NAME = 60
RECURSION = re.compile(r"(?:^|/)\*\*/")
NUM_BLOCKS, BLOCK_BYTES = 4, 1 << 16  # of a source's digest


def check_inputs(inputs: Sequence[str], out_dir: str) -> None:
    """Refuse inputs that lie where the preparation writes, since it could not tell its clips from sources.

    Args:
        inputs, out_dir: As in `PrepareConfig`; links are followed.

    Raises:
        ValueError: An input is the output folder, or lies in one of `FOLDERS` there.
    """
    out, own = os.path.realpath(out_dir), _own_folders(out_dir)
    for text in map(os.path.expanduser, inputs):
        root = Path(os.path.realpath(_root(text)))
        folder = next((folder for folder in own if root.is_relative_to(folder)), None)
        if folder is None and str(root) == out:
            folder = root
        if folder is not None:
            raise ValueError(
                f"input {shown(text, 100)} lies where this run writes its results ({shown(folder, 100)}); "
                f"give another out_dir, such as {shown(os.path.join(out_dir, 'prepared'), 100)}"
            )


def find_sources(inputs: Sequence[str], out_dir: str | None = None) -> list[Row]:
    """All videos under folders, files and patterns, without those that a preparation wrote.

    Args:
        inputs: As `PrepareConfig.input`.
        out_dir: The preparation's folder, whose own clips are no sources, however an input reaches them.

    Returns:
        A row for each, sorted by id: `id`; `path`, in which links stay; `state`, which changes with the file;
        and `name`, under its input, with bytes that are no UTF-8 as escapes. An id is the same wherever the
        input lies.

    Raises:
        ValueError: An input does not exist, or there is no video in any.
    """
    rows: dict[str, Row] = {}
    holds_results = cache(lambda folder: (folder / STORE).is_file())
    own = [] if out_dir is None else _own_folders(out_dir)
    lies_in_own = cache(lambda folder: any(Path(os.path.realpath(folder)).is_relative_to(o) for o in own))
    for text in map(os.path.expanduser, inputs):
        found = list(_files(text))
        paths = [
            (name, path)
            for name, path in found
            if not _is_output(text, path, holds_results)
            and not lies_in_own(os.path.dirname(os.path.realpath(path) if os.path.islink(path) else path))
        ]
        if len(paths) < len(found):
            num_outputs = counted(len(found) - len(paths), "video")
            logger.info("input %s: %s of an earlier preparation left out", shown(text), num_outputs)
        if found and not paths:
            raise ValueError(
                f"input {shown(text)} holds only videos in folders of a preparation (those with {STORE}); "
                "give the folder of the raw videos"
            )
        if not paths:
            raise ValueError(
                f"input {shown(text)}: no video is there; expected files ending in {' '.join(ENDINGS)}"
            )
        for name, path in paths:
            source_id = source_name(name)
            if source_id in rows and not os.path.samefile(rows[source_id]["path"], path):
                raise ValueError(
                    f"{shown(path)} and {shown(rows[source_id]['path'])} have the same place in two inputs; "
                    "rename one, or give the folder above both"
                )
            # A table holds no surrogates, by which Python names bytes that are not UTF-8.
            label = name.encode("utf-8", "backslashreplace").decode("utf-8")
            rows[source_id] = {"id": source_id, "path": path, "name": label}
    with ThreadPoolExecutor(THREADS) as threads:
        states = threads.map(_state, [row["path"] for row in rows.values()])
        for row, state in zip(rows.values(), states, strict=True):
            row["state"] = state
    return [rows[name] for name in sorted(rows)]


def _state(path: str) -> list[int | str]:
    """Size, time and digest of a source, since another file may come with both size and time."""
    status = os.stat(path)
    try:
        digest = sampled_hash(Path(path), NUM_BLOCKS, BLOCK_BYTES)
    except ValueError:  # its row says why it cannot be read
        digest = ""
    return [status.st_size, status.st_mtime_ns, digest]


def _files(text: str) -> Iterator[tuple[str, str]]:
    """(name under the input, absolute path) of each video of one input."""
    path = Path(text)
    if path.is_dir():
        files = (Path(folder, name) for folder, names in _folders(path) for name in names)
        for file in files:
            if file.suffix.lower() in ENDINGS and file.is_file() and not file.name.startswith("."):
                yield file.relative_to(path).as_posix(), os.path.abspath(file)
    elif path.is_file():
        yield path.name, os.path.abspath(path)
    else:
        root = Path(glob.escape(text).split("[", 1)[0]).parent if glob.has_magic(text) else None
        for name in _matches(text):
            if Path(name).is_file() and Path(name).suffix.lower() in ENDINGS:
                yield Path(os.path.relpath(name, root)).as_posix(), os.path.abspath(name)


def _matches(pattern: str) -> Iterator[str]:
    """Files that fit a pattern, ** for folders at any depth, each once: glob follows links in circles."""
    parts = RECURSION.split(pattern if not pattern.endswith("**") else f"{pattern}/*", maxsplit=1)
    if len(parts) == 1:
        yield from glob.glob(pattern)
        return
    for root in glob.glob(f"{parts[0]}/") if parts[0] or pattern.startswith("/") else ["."]:
        for folder, _ in _folders(Path(root)):
            # Of hidden folders, glob finds nothing either.
            if not any(part.startswith(".") for part in Path(folder).relative_to(root).parts):
                yield from _matches(os.path.join(glob.escape(folder), parts[1]))


def _folders(path: Path) -> Iterator[tuple[str, list[str]]]:
    """A folder and those below it with their files' names, behind links too, each once."""
    seen: set[tuple[int, int]] = set()
    links = [str(path)]
    while links:
        for folder, names_of_folders, names in os.walk(links.pop(0), onerror=_refuse):
            status = os.stat(folder)
            if (place := (status.st_dev, status.st_ino)) in seen:
                names_of_folders.clear()
                continue
            seen.add(place)
            names_of_folders.sort()
            folders = (os.path.join(folder, name) for name in names_of_folders)
            links += filter(os.path.islink, folders)
            yield folder, names


def _refuse(error: OSError) -> None:
    reason = shown(error.strerror or error, 80)
    raise ValueError(f"{shown(error.filename)} cannot be read ({reason}); make it readable, or move it away")


def _own_folders(out_dir: str) -> list[str]:
    """Where a preparation writes its clips, behind links."""
    return [os.path.realpath(os.path.join(out_dir, name)) for name in FOLDERS]


def _root(text: str) -> Path:
    """The absolute folder or file of an input; of a pattern, the folder before its first sign."""
    parts = Path(text).parts
    if not os.path.lexists(text):
        parts = takewhile(lambda part: not glob.has_magic(part), parts)
    return Path(os.path.abspath(Path(*parts)))


def _is_output(text: str, path: str, holds_results: Callable[[Path], bool]) -> bool:
    """True for a file in the output folder of a preparation, if that lies in the input, such as its own."""
    root, file = _root(text), Path(path)
    if file == root or not file.is_relative_to(root):
        return False
    levels = len(file.relative_to(root).parts)
    return any(holds_results(folder) for folder in list(file.parents)[:levels])


def source_name(name: str) -> str:
    """An id for file names: a readable part, and a digest that tells all names apart."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", name.rsplit(".", 1)[0]).strip("-").lower()[:MAX_NAME] or "video"
    return f"{stem}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
