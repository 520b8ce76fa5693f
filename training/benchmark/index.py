"""The rows of a benchmark in UVCBench's layout.

    indices/*.txt     one JSON object a line:
      subtask         the task's name, such as depth, extension or reference+pose
      sample_id       the row's name within its task
      en_prompt       the caption
      src_video       the control, or the clip of which something is kept; null: none
      src_mask        1 (white) = generate; null: everything
      src_ref_images  pictures, a list; null: none

Paths start at the benchmark's folder and stay in it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vdot_core.files import file_size, read_file, sha256_of
from vdot_core.text import described, listed, parse_json, shown

from ..data.bad_rows import BadRowError, Skipped
from ..data.cells import SURROGATE

FOLDER = "indices"
MAX_INDEX_BYTES = 64 * 2**20
MAX_NAME = 100
MAX_PROMPT = 10_000
# Names become files, also on Windows.
NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
FAMILIES = ("text", "control", "keep", "reference", "composite")


@dataclass(frozen=True)
class Sample:
    """One row.

    Attributes:
        task: Its subtask.
        id: Its name within the task.
        prompt: The caption.
        source, mask: Videos or pictures; None: none.
        references: Pictures.
        composite: Its index is named so.
    """

    task: str
    id: str
    prompt: str
    source: Path | None = None
    mask: Path | None = None
    references: tuple[Path, ...] = ()
    composite: bool = False

    @property
    def name(self) -> str:
        """Task and id, such as depth/0003: the place of its video in a folder of videos, without ending."""
        return f"{self.task}/{self.id}"

    @property
    def family(self) -> str:
        """One of `FAMILIES`, by what it brings."""
        if self.composite or (self.references and (self.source or self.mask)):
            return "composite"
        if self.references:
            return "reference"
        if self.mask:
            return "keep"
        return "control" if self.source else "text"

    def key(self) -> str:
        """Digest of all that a video of it depends on: texts, and the files' contents."""
        files = [self.source, self.mask, *self.references]
        parts = [self.task, self.id, self.prompt, *(path and sha256_of(path) for path in files)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        folder: Its folder.
        samples: The usable rows, in order of the indices.
        skipped: The others, each with its reason.
    """

    folder: Path
    samples: tuple[Sample, ...]
    skipped: tuple[Skipped, ...]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in order."""
        return tuple(dict.fromkeys(sample.task for sample in self.samples))

    def chosen(self, tasks: Sequence[str], samples_per_task: int | None) -> Benchmark:
        """The same with some tasks and some rows of each.

        Args:
            tasks: Their names; empty: all.
            samples_per_task: The first so many of each; None: all.

        Raises:
            ValueError: There is no such task.
        """
        if unknown := [task for task in tasks if task not in self.tasks]:
            raise ValueError(f"tasks has {described(unknown[0])}; the benchmark has {listed(self.tasks, 40)}")
        counts: dict[str, int] = {}
        samples = []
        for sample in self.samples:
            counts[sample.task] = counts.get(sample.task, 0) + 1
            if (not tasks or sample.task in tasks) and counts[sample.task] <= (
                samples_per_task or len(self.samples)
            ):
                samples.append(sample)
        return Benchmark(self.folder, tuple(samples), self.skipped)


def read_benchmark(folder: str | Path) -> Benchmark:
    """Read the indices of a benchmark; the files behind the rows are only looked up.

    Raises:
        ValueError: There are no indices, or no row is usable.
    """
    folder = Path(folder)
    indices = sorted((folder / FOLDER).glob("*.txt"), key=lambda path: (_is_composite(path), path.name))
    if not indices:
        raise ValueError(
            f"{shown(folder / FOLDER)} holds no .txt; give the folder of a benchmark in UVCBench's layout"
        )
    samples: dict[str, Sample] = {}
    skipped = []
    for index in indices:
        for place, line in _lines(index):
            try:
                sample = _sample(line, folder, composite=_is_composite(index))
                # Names that differ in case alone are one file on some systems.
                if sample.name.lower() in samples:
                    raise BadRowError("wrong", f"{sample.name} stands there twice; the first is used")
                samples[sample.name.lower()] = sample
            except BadRowError as error:
                skipped.append(Skipped.from_error(_name(line), place, error))
    if not samples:
        first = f"; the first: {skipped[0]}" if skipped else ""
        raise ValueError(f"no row of {shown(folder / FOLDER)} can be used{first}")
    return Benchmark(folder, tuple(samples.values()), tuple(skipped))


def _is_composite(index: Path) -> bool:
    return "composite" in index.stem.lower()


def _lines(index: Path) -> Iterator[tuple[str, bytes]]:
    for number, line in enumerate(
        read_file(index, MAX_INDEX_BYTES).removeprefix(b"\xef\xbb\xbf").splitlines(), 1
    ):
        if line.strip():
            yield f"{index.name} line {number}", line


def _name(line: bytes) -> str:
    """A faulty row's name where it has one."""
    try:
        values = json.loads(line)
        return shown(f"{values['subtask']}/{values['sample_id']}", 80)
    except (ValueError, LookupError, TypeError, RecursionError):
        return "?"


def _sample(line: bytes, folder: Path, *, composite: bool) -> Sample:
    try:
        values = parse_json(line)
    except ValueError as error:
        raise BadRowError("misshapen", f"it is no JSON ({error})") from error
    if not isinstance(values, dict):
        raise BadRowError("misshapen", f"it is {described(values)}, expected an object")
    prompt = _text(values, "en_prompt")
    if len(prompt) > MAX_PROMPT:
        raise BadRowError("wrong", f"en_prompt has {len(prompt)} characters, expected at most {MAX_PROMPT}")
    references = values.get("src_ref_images") or []
    # VACE's own runner takes a list with commas in between.
    references = references.split(",") if isinstance(references, str) else references
    if not isinstance(references, list):
        raise BadRowError("misshapen", f"src_ref_images is {described(references)}, expected a list of paths")
    return Sample(
        _file_name(values, "subtask"),
        _file_name(values, "sample_id"),
        prompt,
        _file(values.get("src_video"), "src_video", folder),
        _file(values.get("src_mask"), "src_mask", folder),
        tuple(path for one in references if (path := _file(one, "src_ref_images", folder))),
        composite,
    )


def _text(values: dict[str, Any], name: str) -> str:
    text = values.get(name)
    if isinstance(text, int) and not isinstance(text, bool) and name == "sample_id":
        text = str(text)
    if not isinstance(text, str) or not text.strip():
        raise BadRowError(
            "missing" if not text else "misshapen", f"{name} is {described(text)}, expected text"
        )
    if SURROGATE.search(text):
        raise BadRowError("misshapen", f"{name} holds half of a surrogate pair; write whole characters")
    return text.strip()


def _file_name(values: dict[str, Any], name: str) -> str:
    text = _text(values, name)
    if NOT_IN_NAMES.search(text) or text.startswith(".") or text.endswith((".", " ")) or len(text) > MAX_NAME:
        raise BadRowError(
            "wrong",
            f"{name} is {described(text)}, expected a name that can be a file's, up to {MAX_NAME} characters",
        )
    return text


def _file(value: Any, name: str, folder: Path) -> Path | None:
    """An existing file within the folder."""
    if value is None or value == "":
        return None
    if not isinstance(value, str) or "\0" in value or SURROGATE.search(value):
        raise BadRowError("misshapen", f"{name} is {described(value)}, expected a path")
    # Links may lead out of the folder, too.
    path = (folder / value.strip()).resolve()
    if PurePosixPath(value.strip()).is_absolute() or not path.is_relative_to(folder.resolve()):
        raise BadRowError("wrong", f"{name} is {described(value)}, which leaves the benchmark's folder")
    try:
        file_size(path)
    except ValueError as error:
        raise BadRowError("missing", f"{name}: {error}") from error
    return path
