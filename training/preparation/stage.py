"""A stage: a function of one row, and what its result depends on."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from vdot_core.text import shown

from ..data.bad_rows import BadRowError
from ..engine.hashes import sampled_hash
from .config import PrepareConfig

logger = logging.getLogger("vdot")
NUM_BLOCKS, BLOCK_BYTES = 64, 1 << 16  # of the digest of a model's file
SIZES = "sizes"
"""Entry of a stored result: the sizes of its files."""
FILE_ENTRIES = (
    "file", "control", "masks", "src_video_path", "mask_video_path", "target_video_path", "ref_image_path"
)  # fmt: skip
FOLDERS = ("clips", "annotations", "masks", "layouts", "references")
"""Folders of the output folder that stages write to."""
Row = dict[str, Any]
"""A row's id, what it starts from, and by stage the results of the stages before it."""


class RetryLaterError(Exception):
    """A result that could not be made now, such as from a server that does not answer; the row stays open."""


class StopError(Exception):
    """A mistake that every row would meet, such as a server's wrong key; the run ends."""


@dataclass(frozen=True)
class Stage:
    """One stage of the preparation.

    Attributes:
        name: Its name in the store and in reports.
        version: To be raised with every change of what it computes.
        run: (row, configuration) -> result, as JSON can hold it. Files go to the output folder under names
            of the row. A result with `rejected`, a list of reasons, ends the row's way.
        after: Stages whose results it reads.
        settings: The part of the configuration that its results depend on.
        missing: Says why it cannot run here, and what to do; None where it can.
    """

    name: str
    version: int
    run: Callable[[Row, PrepareConfig], Row]
    after: tuple[str, ...] = ()
    settings: Callable[[PrepareConfig], Any] = field(default=lambda config: None)
    missing: Callable[[PrepareConfig], str | None] = field(default=lambda config: None)

    def key(self, config: PrepareConfig, row_id: str, before: Sequence[str]) -> str:
        """Digest of everything that a row's result depends on.

        Args:
            config: All settings.
            row_id: The row.
            before: Keys of the results that it reads, or the start of a first stage.
        """
        settings = self.settings(config)
        settings = asdict(settings) if is_dataclass(settings) else settings
        parts = [self.name, self.version, settings, row_id, list(before)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Outcome:
    """What a stage made of a row.

    Attributes:
        row_id: The row.
        value: The result; None where it has to be tried again later.
        seconds: Time of the work.
        reason: Why it has to be tried again.
    """

    row_id: str
    value: Row | None
    seconds: float
    reason: str = ""


def apply(stage: Stage, row: Row, config: PrepareConfig) -> Outcome:
    """Run a stage on a row; whatever is wrong with the row's files becomes a reason to reject it.

    Raises:
        MemoryError, ImportError, OSError: The machine's fault, which would reject every row.
    """
    begin = time.perf_counter()
    try:
        value, reason = stage.run(row, config), ""
    except RetryLaterError as error:
        value, reason = None, shown(error, 300)
    except (MemoryError, ImportError):
        raise
    except (BadRowError, ValueError) as error:
        value, reason = rejection(shown(error, 300)), ""
    return Outcome(row["id"], value, time.perf_counter() - begin, reason)


def rejection(*reasons: str) -> Row:
    """The result of a row that goes no further."""
    return {"rejected": list(reasons)}


def model_state(path: str | None) -> Any:
    """State of a model under its path: the path, and name, size and digest of its files.

    Args:
        path: A file or a folder; None: no model, of which None is the state.
    """
    if path is None:
        return None
    place = Path(path)
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    stats = [(file, file.stat()) for file in files if file.is_file()]
    # The time of an inode's change is the one that no program sets.
    return [path, *([file.name, s.st_size, _digest(file, s.st_ino, s.st_ctime_ns)] for file, s in stats)]


@lru_cache(maxsize=1024)
def _digest(file: Path, inode: int, changed_ns: int) -> str:
    """Digest of blocks spread over a file: other weights may have its size and its time."""
    return sampled_hash(file, NUM_BLOCKS, BLOCK_BYTES)


def files_of(value: Any) -> set[str]:
    """The files under the output folder that a result names."""
    if not isinstance(value, dict):
        return set().union(*map(files_of, value)) if isinstance(value, list) else set()
    named = [entry for name, entry in value.items() if name in FILE_ENTRIES]
    names = {name for entry in named for name in (entry if isinstance(entry, list) else [entry])}
    return names.union(*map(files_of, value.values())) - {None}


def file_sizes(value: Row, config: PrepareConfig) -> dict[str, int]:
    """File of a result -> its size in bytes, -1 where it is not there."""
    paths = {name: Path(config.out_dir, name) for name in sorted(files_of(value))}
    return {name: path.stat().st_size if path.is_file() else -1 for name, path in paths.items()}


def out_path(config: PrepareConfig, relative: str) -> Path:
    """A file of the output folder; its folder is created."""
    assert relative.split("/")[0] in FOLDERS, relative
    path = Path(config.out_dir) / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def draw(seed: int, *names: object) -> float:
    """A number in [0, 1) that depends on the names alone: the same in every order of rows."""
    text = json.dumps([seed, *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") / 2**56
