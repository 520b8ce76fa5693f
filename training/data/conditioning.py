"""Builds the unit (VCU) of a row's task from its clips, by the builders that the nodes call.

A control task's source is the control, drawn already. A task that keeps something of a clip takes it from the
source, or from the target where there is no source or the source is another task's control.

Letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches

import torch
from torch import Tensor

from vdot_core import signals, vcu
from vdot_core.text import described
from vdot_core.vcu.unit import GRAY

from .bad_rows import BadRowError

MAX_NAME = 200


@dataclass(frozen=True, eq=False)
class Inputs:
    """The clips that a unit is made from, all of one size and length.

    Attributes:
        width, height, num_frames: Of the video.
        source, target: [F, H, W, 3] float in [0, 1], or None. A task that takes a
            short source gets all of it.
        mask: [F, H, W] float of 0 and 1, 1 = generate, or None.
        references: Pictures [H', W', 3 or 4] float in [0, 1].
    """

    width: int
    height: int
    num_frames: int
    source: Tensor | None = None
    mask: Tensor | None = None
    references: tuple[Tensor, ...] = ()
    target: Tensor | None = None

    @property
    def size(self) -> dict[str, int]:
        """As the builders take it."""
        return {"width": self.width, "height": self.height, "num_frames": self.num_frames}

    def clip(self) -> Tensor:
        """The clip that is partly kept."""
        if self.source is None and self.target is None:
            raise BadRowError("missing", "src_video_path and target_video_path are both empty; give one")
        return self.target if self.source is None else self.source


@dataclass(frozen=True)
class RowTask:
    """A task: how its unit is built from a row.

    Attributes:
        build: Makes it.
        needs: Columns it cannot do without.
        kind: 'reference', 'control', 'keep' or 'text'; says how it composes.
        short_source: Its source may be a part of the video only.
    """

    build: Callable[[Inputs], vcu.VCU]
    needs: tuple[str, ...] = ()
    kind: str = "control"
    short_source: bool = False


def _references(inputs: Inputs) -> vcu.VCU:
    """Each picture on white; one with alpha is cropped to its subject."""
    one_by_one = (
        vcu.reference([image], crop=image.shape[-1] == 4, **inputs.size) for image in inputs.references
    )
    return vcu.compose(*one_by_one)


def _inpaint(
    *, mask_shape: str = "original", expand: float = 0.0, grow_px: int = 0, blur_px: float = 0.0
) -> RowTask:
    def build(inputs: Inputs) -> vcu.VCU:
        clip, mask = inputs.clip(), inputs.mask
        return vcu.inpaint(clip, mask, mask_shape=mask_shape, expand=expand, grow_px=grow_px, blur_px=blur_px)

    return RowTask(build, ("mask_video_path",), "keep")


def _kept(inputs: Inputs) -> vcu.VCU:
    """Whatever the mask keeps of the clip."""
    frames = torch.where(inputs.mask[..., None] > 0.5, GRAY, inputs.clip())
    return vcu.VCU(frames, inputs.mask, kind="extension")


def _ends(first: int, last: int) -> RowTask:
    """Keep a number of frames of the start and end, or the mask's black frames."""

    def build(inputs: Inputs) -> vcu.VCU:
        if inputs.mask is not None:
            return _kept(inputs)
        clip = inputs.clip()
        return vcu.extend(clip[:first] if first else None, clip[-last:] if last else None, **inputs.size)

    return RowTask(build, kind="keep", short_source=not (first and last))


def _continuation(side: str) -> RowTask:
    """Keep the source as one end of the video, or the mask's black frames."""

    def build(inputs: Inputs) -> vcu.VCU:
        if inputs.mask is not None:
            return _kept(inputs)
        if inputs.source is None or len(inputs.source) >= inputs.num_frames:
            raise BadRowError(
                "missing",
                "which part of the clip is kept is not known; give mask_video_path, or a shorter source",
            )
        return vcu.extend(**{side: inputs.source}, **inputs.size)

    return RowTask(build, kind="keep", short_source=True)


def _move(inputs: Inputs) -> vcu.VCU:
    """The first frame of the clip, and boxes drawn on white; with a mask the source holds both."""
    if inputs.mask is not None:
        return vcu.VCU(inputs.source, inputs.mask, kind="extension")
    if inputs.target is None:
        raise BadRowError("missing", "target_video_path, or mask_video_path, is needed for the first frame")
    return vcu.compose(vcu.extend(inputs.target[:1], **inputs.size), vcu.control(inputs.source))


SOURCE, MASK, REFERENCES = ("src_video_path",), ("mask_video_path",), ("ref_image_path",)
_CONTROL = RowTask(lambda inputs: vcu.control(inputs.source), SOURCE)
_KEPT = RowTask(_kept, MASK, "keep")
_REFERENCE = RowTask(_references, REFERENCES, "reference")
_GARMENT = _inpaint(grow_px=2, blur_px=1.0)
_BOX = _inpaint(mask_shape="box", expand=vcu.EXPAND_RATIO)
PARTS: dict[str, RowTask] = {
    "text": RowTask(lambda inputs: vcu.text(**inputs.size), kind="text"),
    "depth": RowTask(lambda inputs: vcu.depth(inputs.source), SOURCE),
    "gray": RowTask(lambda inputs: vcu.control(signals.to_gray(inputs.source)), SOURCE),
    **{name: _CONTROL for name in ("pose", "flow", "scribble", "lines", "layout", "layout_track")},
    **{name: _inpaint() for name in ("inpainting", "inpaint", "outpainting", "outpaint")},
    "removal": _inpaint(mask_shape="hull", expand=vcu.EXPAND_RATIO),
    "firstframe": _ends(1, 0),
    "lastframe": _ends(0, 1),
    "firstlast": _ends(1, 1),
    "firstclip": _continuation("first"),
    "lastclip": _continuation("last"),
    **{name: _KEPT for name in ("firstlastclip", "keyframes", "extend")},
    "move": RowTask(_move, SOURCE),
    **{name: _REFERENCE for name in ("reference", "references")},
}
# Parts that others are the same as, by docs/TASKS.md.
SECOND_NAMES = ("inpaint", "outpaint", "references", "lines", "layout_track", "extend")
WHOLE = {
    "animate": ("reference", "pose"),
    "swap": ("reference", _BOX),
    "try_on": ("reference", _GARMENT),
    "expand": ("reference", _KEPT),
    "replacement": ("reference", "inpainting", "pose"),
}
ALIASES = {
    "t2v": "text",
    "r2v": "reference",
    "face": "reference",
    "object": "reference",
    "r2v_face": "reference",
    "r2v_object": "reference",
    "reference_face": "reference",
    "reference_object": "reference",
    "grey": "gray",
    "optical_flow": "flow",
    "extension": "firstframe",
    "first_frame": "firstframe",
    "last_frame": "lastframe",
    "tryon": "try_on",
    "replace": "replacement",
    "character_replacement": "replacement",
}


def canonical(name: str) -> str:
    """A task name in the form of docs/TASKS.md: 'Reference + Depth' -> 'reference_depth'."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return ALIASES.get(plain, plain)


def task_parts(name: str) -> tuple[RowTask, ...]:
    """The tasks of a name, one to three.

    Args:
        name: As `canonical` gives it.

    Raises:
        BadRowError: There is no such task; the message has the nearest name.
    """
    if name in WHOLE:
        return tuple(PARTS[part] if isinstance(part, str) else part for part in WHOLE[name])
    return tuple(PARTS[part] for part in part_names(name))


def part_names(name: str) -> tuple[str, ...]:
    """Names of the parts of a task, one or two; a whole one, such as swap, is its own.

    Args:
        name: As `canonical` gives it.

    Raises:
        BadRowError: There is no such task; the message has the nearest name.
    """
    if name in PARTS or name in WHOLE:
        return (name,)
    if len(name) > MAX_NAME:  # what follows takes its square in time
        raise BadRowError("wrong", f"task_name has {len(name)} characters; docs/TASKS.md lists the tasks")
    for cut in (match.start() for match in re.finditer("_", name)):
        first, second = (canonical(part) for part in (name[:cut], name[cut + 1 :]))
        if first in PARTS and second in PARTS and _compose(PARTS[first], PARTS[second]):
            return first, second
    composites = [f"reference_{part}" for part, task in PARTS.items() if task.kind in ("control", "keep")]
    near = get_close_matches(name, [*PARTS, *WHOLE, *composites], 1)
    hint = f"did you mean {near[0]}?" if near else "docs/TASKS.md lists the tasks"
    raise BadRowError("wrong", f"task_name {described(name, 80)} is unknown; {hint}")


def task_names() -> tuple[str, ...]:
    """Every task once: single ones, whole ones, and a reference with each control or kept part."""
    single = [name for name in PARTS if name not in SECOND_NAMES]
    composites = [f"reference_{name}" for name in single if _compose(PARTS["reference"], PARTS[name])]
    return (*single, *WHOLE, *composites)


def _compose(first: RowTask, second: RowTask) -> bool:
    """References combine with controls and keeping tasks, keeping tasks with controls."""
    return (first.kind, second.kind) in (("reference", "control"), ("reference", "keep"), ("keep", "control"))


def takes_short_source(parts: tuple[RowTask, ...]) -> bool:
    """True if a row's source may be shorter than the video."""
    return any(part.short_source for part in parts) and not any(part.kind == "control" for part in parts)


def needed(parts: tuple[RowTask, ...]) -> tuple[str, ...]:
    """Columns that a task cannot do without."""
    return tuple(column for part in parts for column in part.needs)


def build_unit(name: str, inputs: Inputs) -> vcu.VCU:
    """The unit of a row.

    Args:
        name: Canonical task name.
        inputs: The row's clips.

    Raises:
        BadRowError: The task is unknown, or the row lacks what it needs.
        ValueError: A builder refuses the clips.
    """
    parts = task_parts(name)
    controlled = any(part.kind == "control" for part in parts)
    units = []
    for part in parts:
        own = inputs
        if part.kind == "keep" and controlled:
            # The source is the control: kept pixels come from the real clip.
            if inputs.target is None:
                raise BadRowError("missing", "target_video_path is empty; kept pixels are taken from it")
            own = replace(inputs, source=None)
        units.append(part.build(own))
    return vcu.compose(*units)
