"""Runs the stages of a preparation over all rows; what is done already is not done again."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from vdot_core.text import counted, shown

from .captions import text_state
from .config import PrepareConfig
from .duplicates import find_duplicates
from .executors import Executor
from .make_rows import is_held_out
from .sources import find_sources
from .stage import SIZES, Row, Stage, file_sizes
from .stages import CAPTIONS, MOTION, QUALITY, REFERENCES, SHOTS, TRIM, annotation_stages, row_stage
from .store import Store

logger = logging.getLogger("vdot")
LOG_EVERY_S = 10.0
NUM_LOGGED = 20


@dataclass
class Clips:
    """The clips of all sources, in order.

    Attributes:
        starts: Clip -> its source, its place there, and the source's size: what `trim` starts from.
        keys: Clip -> stage -> key of its result.
        rejected: Source or clip -> (stage, reasons).
        names: Source -> its name under its input.
        later: Rows whose results could not be made now: (stage, row, reason).
        provisional: Clip -> why its caption is the template's until a server answers.
        absent: Annotator or stage -> why it does not run here.
    """

    starts: dict[str, Row] = field(default_factory=dict)
    keys: dict[str, dict[str, str]] = field(default_factory=dict)
    rejected: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    later: list[tuple[str, str, str]] = field(default_factory=list)
    provisional: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def used(self) -> list[str]:
        """Clips that were not rejected."""
        return [clip_id for clip_id in self.starts if clip_id not in self.rejected]

    def used_sources(self) -> set[str]:
        """Sources of these clips."""
        return {self.starts[clip_id]["source"] for clip_id in self.used()}


class Pipeline:
    """One preparation.

    Args:
        config: All settings.
        store: Results of earlier runs; this one's are added.
        executor: Runs the stages.
    """

    def __init__(self, config: PrepareConfig, store: Store, executor: Executor) -> None:
        self.config, self.store, self.executor = config, store, executor
        self.clips = Clips()

    def run(self) -> Clips:
        """Run all stages.

        Raises:
            ValueError: There is no source, or a required package or model is missing.
            StopError: A mistake that every row would meet.
        """
        annotations = annotation_stages(self.config)
        optional = self._runnable([*annotations, REFERENCES], self.config.require_annotators)
        required = self._runnable([SHOTS, TRIM, QUALITY, MOTION, CAPTIONS], True)
        sources = find_sources(self.config.input, self.config.out_dir)
        logger.info("%s", counted(len(sources), "source"))
        self._cut(required[0], sources)
        for stage in required[1:3]:
            self._run(stage, self.clips.used())
        self._drop_duplicates()
        for stage in [*required[3:], *optional]:
            self._run(stage, self.clips.used())
        names = [stage.name for stage in [*required[3:], *optional]]
        self._run(row_stage(names), self.clips.used())
        self.store.commit()
        return self.clips

    def _runnable(self, stages: list[Stage], required: bool) -> list[Stage]:
        """The stages that can run; the others are named, or are an error where all are required."""
        runnable = []
        for stage in stages:
            reason = stage.missing(self.config)
            if reason is None:
                runnable.append(stage)
            elif required:
                raise ValueError(
                    f"{reason}. Or set require_annotators false" if _is_optional(stage) else reason
                )
            else:
                self.clips.absent[stage.name.removeprefix("annotate_")] = reason
                logger.warning("%s does not run: %s", stage.name, reason)
        return runnable

    def _cut(self, stage: Stage, sources: list[Row]) -> None:
        """The clips of all sources."""
        starts = {row["id"]: ({"id": row["id"], "path": row["path"]}, [str(row["state"])]) for row in sources}
        keys = self._apply(stage, [(row_id, row, before) for row_id, (row, before) in starts.items()])
        self.clips.names = {row["id"]: row["name"] for row in sources}
        for source in sources:
            result = self.store.get(stage.name, source["id"]) if source["id"] in keys else None
            if result is None:
                continue
            if "rejected" in result:
                self.clips.rejected[source["id"]] = (stage.name, result["rejected"])
                logger.warning("%s: %s", shown(source["name"], 120), "; ".join(result["rejected"]))
                continue
            for number, clip in enumerate(result["clips"]):
                clip_id = f"{source['id']}-{number:04d}"
                self.clips.starts[clip_id] = {
                    "id": clip_id,
                    "source": source["id"],
                    "path": source["path"],
                    "width": result["width"],
                    "height": result["height"],
                    "held_out": is_held_out(source["id"], self.config.tasks),
                    **clip,
                }
                self.clips.keys[clip_id] = {stage.name: keys[source["id"]]}
        logger.info("%s of %d sources", counted(len(self.clips.starts), "clip"), len(sources))

    def _run(self, stage: Stage, clip_ids: list[str]) -> None:
        """One stage over clips; those that it rejects are not used by later ones."""
        work = []
        for clip_id in clip_ids:
            keys = self.clips.keys[clip_id]
            if any(name not in keys for name in stage.after):
                continue  # a result before it has to be tried again later
            before = [keys[name] for name in stage.after]
            if stage.name == "tasks":
                before.append(str(sorted(self.clips.absent.items())))
            if stage.name == CAPTIONS.name:
                before += text_state(self.clips.starts[clip_id]["path"])
            work.append((clip_id, None, before))
        keys = self._apply(stage, work, stage.after)
        for clip_id in clip_ids:
            if clip_id not in keys:
                continue
            self.clips.keys[clip_id][stage.name] = keys[clip_id]
            reasons = self.store.get(stage.name, clip_id).get("rejected")
            # That of an annotator, or of references, concerns its own tasks alone.
            if reasons and not _is_optional(stage):
                self.clips.rejected[clip_id] = (stage.name, reasons)

    def _row(self, clip_id: str, after: Iterable[str]) -> Row:
        """A clip's row with the results of these stages."""
        results = {name: self.store.get(name, clip_id) for name in after if name != "shots"}
        return {**self.clips.starts[clip_id], "absent": self.clips.absent, **results}

    def _apply(
        self, stage: Stage, work: list[tuple[str, Row | None, list[str]]], after: Iterable[str] = ()
    ) -> dict[str, str]:
        """Run a stage over the rows that lack its result.

        Args:
            stage: The stage.
            work: Of each row its id, its content where it is not a clip's, and the keys before it.
            after: Stages whose results a clip's row has.

        Returns:
            Row -> key, of all rows that have a result now.
        """
        keys = {row_id: stage.key(self.config, row_id, before) for row_id, _, before in work}
        open_ids = [row_id for row_id in keys if not self._is_done(stage.name, row_id, keys[row_id])]
        contents = {row_id: row for row_id, row, _ in work if row is not None}
        if not open_ids:
            logger.info("%-18s %d rows, all done before", stage.name, len(keys))
            return keys

        def started(row_id: str) -> Row:
            # The row's files are replaced: after a kill, an earlier result would stand for the new ones.
            self.store.drop(stage.name, row_id)
            return contents.get(row_id) or self._row(row_id, after)

        rows = map(started, open_ids)
        begin = logged = time.monotonic()
        done = num_later = 0
        for outcome in self.executor.run(stage, rows):
            done += 1
            if outcome.value is None:
                num_later += 1
                self._log_later(stage.name, outcome.row_id, outcome.reason)
                del keys[outcome.row_id]
            else:
                key = keys[outcome.row_id]
                if reason := outcome.value.get("provisional"):
                    self.clips.provisional[outcome.row_id] = reason
                    key = f"provisional {key}"  # the next run makes it again
                sizes = file_sizes(outcome.value, self.config)
                value = outcome.value | ({SIZES: sizes} if sizes else {})
                self.store.put(stage.name, outcome.row_id, key, value, outcome.seconds)
            if time.monotonic() - logged > LOG_EVERY_S:
                logged = time.monotonic()
                each = (logged - begin) / done
                logger.info("%-18s %d of %d rows, %.2g s each", stage.name, done, len(open_ids), each)
        self.store.commit()
        logger.info(
            "%-18s %d rows in %.1f s%s%s", stage.name, done, time.monotonic() - begin,
            f", {len(keys) + num_later - done} done before" if len(keys) + num_later > done else "",
            f", {num_later} to be tried again" if num_later else "",
        )  # fmt: skip
        return keys

    def _is_done(self, stage: str, row_id: str, key: str) -> bool:
        """True if a row has this result, and its files are there as they were written."""
        if self.store.key(stage, row_id) != key:
            return False
        value = self.store.get(stage, row_id)
        return file_sizes(value, self.config) == value.get(SIZES, {})

    def _log_later(self, stage: str, row_id: str, reason: str) -> None:
        self.clips.later.append((stage, row_id, reason))
        if len(self.clips.later) <= NUM_LOGGED:
            logger.warning("%s of %s: %s", stage, row_id, reason)

    def _drop_duplicates(self) -> None:
        """Reject clips that show what an earlier one shows."""
        hashes = ((clip_id, self.store.get("quality", clip_id)["hashes"]) for clip_id in self.clips.used())
        limits = self.config.quality.max_hash_distance, self.config.quality.max_motion_distance
        for clip_id, first in find_duplicates(hashes, *limits).items():
            self.clips.rejected[clip_id] = ("duplicates", [f"duplicate (of {first})"])


def _is_optional(stage: Stage) -> bool:
    return stage.name == REFERENCES.name or stage.name.startswith("annotate_")
