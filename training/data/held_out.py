"""The samples that a run holds out for validation: all those of some clips, none of the other clips."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vdot_core.text import counted, shown

from ..engine.files import read_json, write_json
from .checks import require
from .encoded import SampleInfo
from .file_names import name_digest
from .source_files import Version

logger = logging.getLogger("vdot")
FILE = "held_out.json"


@dataclass(frozen=True)
class ValidationConfig:
    """Validation on samples that are never trained on. Samples of one clip are held out together.

    Attributes:
        every: Steps between validations; 0: never, and nothing is held out.
        rows: Samples to hold out, at least; null: by `fraction`.
        fraction: Share of the samples to hold out, at least.
        samples: Samples of a validation: one of each task, then a second of each, until there are as many.
    """

    every: int = 0
    rows: int | None = None
    fraction: float = 0.02
    samples: int = 16

    def __post_init__(self) -> None:
        require(self.every >= 0, f"validation.every is {self.every}; expected 0 (never) or more")
        require(self.samples >= 1, f"validation.samples is {self.samples}; expected at least 1")
        valid = self.rows is None or self.rows >= 1
        require(valid, f"validation.rows is {self.rows}; expected at least 1, or null to go by fraction")
        require(0 < self.fraction < 1, f"validation.fraction is {self.fraction}; expected above 0, below 1")


def clip_of(info: SampleInfo) -> str:
    """Name of the clip that a sample was made from; in a cache of an older version, the sample's own."""
    return info.id if info.clip is None else info.clip


def copies(files: Iterable[Mapping[str, Version]]) -> dict[str, str]:
    """Find the clips whose files have equal content: links, copies, and one path in two spellings.

    Args:
        files: Versions of the files that a cache's shards were made from.

    Returns:
        Name of a clip -> the first of those with its content; clips without another name are not in it.
    """
    names: dict[tuple, set[str]] = {}
    for shard in files:
        for name, (size, _, digest) in shard.items():
            names.setdefault((size, digest), set()).add(name_digest(name))
    # A file that was changed between two shards has two contents; its names stay together.
    first: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := first.get(name, name)) != name:
            name = above
        return name

    for same in names.values():
        roots = sorted({root(name) for name in same})
        first |= dict.fromkeys(roots[1:], roots[0])
    return {name: root(name) for name in first}


def choose_held_out(
    infos: Sequence[SampleInfo], config: ValidationConfig, same: Mapping[str, str] | None = None
) -> list[str]:
    """Choose clips to hold out, in the order of a hash: the choice depends on no seed and no order of rows.

    Args:
        infos: Of all samples.
        config: How many.
        same: Clips of equal content, as `copies` gives them, which are held out together.

    Returns:
        Names of the clips, as `clip_of` gives them.

    Raises:
        ValueError: Nothing would be left to train on.
    """
    same = same or {}
    members: dict[str, set[str]] = {}
    counts: Counter[str] = Counter()
    for clip in map(clip_of, infos):
        name = same.get(clip, clip)
        members.setdefault(name, set()).add(clip)
        counts[name] += 1
    target = config.rows or math.ceil(config.fraction * len(infos))
    clips: list[str] = []
    num_samples = 0
    for clip in sorted(counts, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if num_samples >= target:
            break
        clips.append(clip)
        num_samples += counts[clip]
    if len(clips) == len(counts):
        raise ValueError(
            f"validation would hold out all {len(infos)} samples, of {len(counts)} clips (at least {target} "
            "samples); lower validation.rows or fraction, set validation.every 0, or add clips"
        )
    return [clip for name in clips for clip in sorted(members[name])]


def read_held_out(
    folder: Path,
    infos: Sequence[SampleInfo],
    config: ValidationConfig,
    same: Mapping[str, str] | None = None,
    *,
    write: bool,
) -> list[str]:
    """The clips that a run holds out: those that it has trained without, or a new choice.

    Args:
        folder: The run's, in which the choice is saved.
        infos: Of all samples.
        config: How many; a resumed run cannot have changed it.
        same: As in `choose_held_out`; copies of a saved clip are held out from now on, too.
        write: Save a new choice.

    Returns:
        Names of the clips.

    Raises:
        ValueError: The saved choice is missing from a run that has trained, or damaged, none of its clips is
            among the samples, or nothing would be left to train on.
    """
    path = folder / FILE
    cure = "restore it, or give another out_dir: a new choice would validate on samples that were trained on"
    has_trained = any((folder / "checkpoints").glob("step-*"))
    # A start that ended before its first checkpoint may have had other settings or clips.
    if path.exists() and has_trained:
        clips = read_json(path, dict, cure).get("clips")
        if not (isinstance(clips, list) and all(isinstance(clip, str) for clip in clips)):
            raise ValueError(f"{shown(path)} is damaged (it lists no clips); {cure}")
        if not {*clips} & {*map(clip_of, infos)}:
            raise ValueError(
                f"none of the clips in {shown(path)} is in the cache; give the run's cache, or another "
                "out_dir"
            )
        return _with_saved_copies(clips, infos, same or {})
    if has_trained:
        raise ValueError(
            f"validation.every is {config.every}, and {shown(folder)} was trained without {FILE}; {cure}"
        )
    clips = choose_held_out(infos, config, same)
    if write:
        held_out = {*clips}
        ids = [info.id for info in infos if clip_of(info) in held_out]
        write_json({"clips": clips, "samples": ids}, path)
    return clips


def _with_saved_copies(
    clips: Sequence[str], infos: Sequence[SampleInfo], same: Mapping[str, str]
) -> list[str]:
    """A saved choice, and all other clips with the content of one of these."""
    content = {same.get(clip, clip) for clip in clips}
    names = {clip_of(info) for info in infos}
    others = sorted(clip for clip in names.difference(clips) if same.get(clip, clip) in content)
    if others:
        logger.warning(
            "held out from now on, too: %s with the content of clips held out for validation (copies, or "
            "other names of the same files); if this run has trained on them, its validation was on "
            "trained clips",
            counted(len(others), "clip"),
        )
    return [*clips, *others]
