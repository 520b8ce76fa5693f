"""Which task a clip suits, and why not: one rule for each part of a task.

A rule gives the columns of the manifest's row, and raises `UnsuitableError` with the reason. The parts and
their names are those of `training/data/conditioning.py`, which builds the unit from these columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..data.conditioning import WHOLE, part_names
from . import task_masks
from .config import PrepareConfig
from .stage import Row

BODY_POINTS = 6  # of 18 that make a person
Columns = dict[str, str | list[str]]


class UnsuitableError(Exception):
    """A clip does not suit a task; the message says why."""


@dataclass(frozen=True)
class Clip:
    """A clip and the task of one row.

    Attributes:
        row: Its row, with the results of all stages.
        config: All settings.
        task: The task that is being made.
        absent: Annotator -> why it did not run.
        files: Masks and layouts that several tasks of the clip share, written once.
    """

    row: Row
    config: PrepareConfig
    task: str
    absent: dict[str, str]
    files: dict[str, str | None]

    def annotation(self, name: str) -> Row:
        """An annotator's result."""
        result = self.row.get(f"annotate_{name}")
        if result is None:
            raise UnsuitableError(self.absent.get(name, f"the annotator {name} is not in annotators"))
        if "rejected" in result:
            raise UnsuitableError(f"{name}: {'; '.join(result['rejected'])}")
        return result

    def subject(self) -> str:
        """The file of the subject's masks, where its size is that of a subject in every frame."""
        matte, (low, high) = self.annotation("matte"), self.config.tasks.subject_area
        fitting = sum(low <= area <= high for area in matte["areas"])
        if fitting < len(matte["areas"]):
            raise UnsuitableError(
                f"no subject of {low:.0%} to {high:.0%} in every frame ({fitting} of {len(matte['areas'])})"
            )
        return matte["masks"]

    def shared(self, kind: str, write: Callable[[], str | None]) -> str | None:
        """A file of `files`, written by the first task that needs it."""
        if kind not in self.files:
            self.files[kind] = write()
        return self.files[kind]


def _control(name: str) -> Callable[[Clip], Columns]:
    return lambda clip: {"src_video_path": clip.annotation(name)["control"]}


def _pose(clip: Clip) -> Columns:
    result = clip.annotation("pose")
    count = sum(points >= BODY_POINTS for points in result["people"])
    if count < clip.config.tasks.min_pose_share * len(result["people"]):
        raise UnsuitableError(f"too few frames with a person ({count} of {len(result['people'])})")
    return {"src_video_path": result["control"]}


def _flow(clip: Clip) -> Columns:
    motion, limit = clip.row["motion"]["mean_px"], clip.config.tasks.min_motion_px
    if motion < limit:
        raise UnsuitableError(f"little motion ({motion:.2f} px a frame, min_motion_px {limit:g})")
    return _control("flow")(clip)


def _layout(clip: Clip) -> Columns:
    subject = clip.subject()
    file = clip.shared("layout", lambda: task_masks.write_layout(clip.row, subject, clip.config))
    return {"src_video_path": file}


def _inpainting(clip: Clip) -> Columns:
    try:
        subject = clip.subject()
    except UnsuitableError:
        subject = None
    return {"mask_video_path": task_masks.write_inpainting(clip.row, subject, clip.task, clip.config)}


def _removal(clip: Clip) -> Columns:
    subject = clip.subject()
    file = clip.shared("removal", lambda: task_masks.write_removal(clip.row, subject, clip.config))
    if file is None:
        raise UnsuitableError("its subject's shape fits nowhere beside the subject")
    return {"mask_video_path": file}


def _subject_mask(clip: Clip) -> Columns:
    return {"mask_video_path": clip.subject()}


def _kept_frames(kind: str) -> Callable[[Clip], Columns]:
    def rule(clip: Clip) -> Columns:
        file = clip.shared(kind, lambda: task_masks.write_kept(clip.row, kind, clip.config))
        return {"mask_video_path": file}

    return rule


def _reference(clip: Clip) -> Columns:
    result = clip.row.get("references")
    if result is None:
        raise UnsuitableError(
            clip.absent.get("references", clip.absent.get("matte", "references were not made"))
        )
    if "file" not in result:
        raise UnsuitableError(result.get("none") or "; ".join(result["rejected"]))
    return {"ref_image_path": [result["file"]]}


def _garment(clip: Clip) -> Columns:
    raise UnsuitableError("no annotator marks garments; give rows of try_on with masks of your own")


def _nothing(clip: Clip) -> Columns:
    return {}


PART_RULES: dict[str, Callable[[Clip], Columns]] = {
    "text": _nothing,
    "depth": _control("depth"),
    "gray": lambda clip: {"src_video_path": clip.row["trim"]["file"]},  # its unit is the clip's luma
    "pose": _pose,
    "flow": _flow,
    "scribble": _control("scribble"),
    "lines": _control("scribble"),
    "layout": _layout,
    "layout_track": _layout,
    "inpainting": _inpainting,
    "inpaint": _inpainting,
    "outpainting": _kept_frames("outpainting"),
    "outpaint": _kept_frames("outpainting"),
    "removal": _removal,
    "firstframe": _nothing,
    "lastframe": _nothing,
    "firstlast": _nothing,
    "firstclip": _kept_frames("firstclip"),
    "lastclip": _kept_frames("lastclip"),
    "firstlastclip": _kept_frames("firstlastclip"),
    "keyframes": _kept_frames("keyframes"),
    "extend": _kept_frames("firstclip"),
    "move": _layout,
    "reference": _reference,
    "references": _reference,
}
WHOLE_RULES: dict[str, tuple[Callable[[Clip], Columns], ...]] = {
    "animate": (_reference, _pose),
    "swap": (_reference, _subject_mask),
    "try_on": (_reference, _garment),
    "expand": (_reference, _kept_frames("expand")),
    "replacement": (_reference, _subject_mask, _pose),
}
assert set(WHOLE_RULES) == set(WHOLE)


def columns_of(clip: Clip) -> Columns:
    """The columns of a clip's row of one task.

    Args:
        clip: The clip; its `task` in the form of docs/TASKS.md.

    Returns:
        Column -> file under the output folder, or a list of files.

    Raises:
        UnsuitableError: The clip does not suit the task.
    """
    rules = WHOLE_RULES.get(clip.task) or [PART_RULES[name] for name in part_names(clip.task)]
    columns: Columns = {}
    for rule in rules:
        columns |= rule(clip)
    return columns
