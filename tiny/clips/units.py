"""Builds units from a drawn clip, one function per task, by the builders that the nodes call.

Each takes the clip and a generator. Without one (None) it makes the task's plain example; with one it draws
what a task leaves open: the mask's shape, margins, moments, the look of a reference. The target video is
always the clip itself.

Letters: F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from vdot_core import signals, vcu
from vdot_core.signals.pose import usual_pen

from .figure import keypoints, walk_along
from .objects import pick
from .regions import random_region
from .shapes import Clip, FigureTrack

Rng = np.random.Generator | None
Build = Callable[[Clip, Rng], vcu.VCU]
MASK_ODDS = np.cumsum([0.3, 0.25, 0.45])  # of vcu.MASK_SHAPES: original, hull, box
EXPANSIONS = (0.0, vcu.EXPAND_RATIO, 0.6)
FACE_EXPANSIONS = (0.0, 0.15, 0.3)  # by how much of it a detector's box is larger than the head
PLACE_RATIO = 0.1
END_LENGTHS = (1, 1, 1, 5, 9)


def canvas_of(clip: Clip) -> dict[str, int]:
    """The clip's size and length, as builders take them."""
    num_frames, height, width = clip.frames.shape[:3]
    return {"width": width, "height": height, "num_frames": num_frames}


def _gray_rgb(maps: Tensor) -> Tensor:
    return maps[..., None].expand(*maps.shape, 3)


def _choose(rng: Rng, items: Sequence, cumulative: np.ndarray | None = None):
    """The first item for the plain example, any of them by the generator."""
    return items[0] if rng is None else pick(rng, items, cumulative)


def skeleton(clip: Clip) -> list[dict]:
    """OpenPose key points: the figure's own, or of someone who walks along with the nearest object."""
    if clip.objects and isinstance(clip.objects[-1], FigureTrack):
        return clip.keypoints
    height, width = clip.frames.shape[1:3]
    return keypoints(walk_along(clip.objects[-1].centers, height, width), height, width)


def box_tracks(clip: Clip) -> list[dict[int, list[int]]]:
    """Each seen object's box (left, top, right, bottom) by frame, for `vcu.layout` and `vcu.move`."""
    tracks = [
        {frame: box for frame, box in enumerate(boxes) if box[2] > box[0]} for boxes in clip.boxes.tolist()
    ]
    return [track for track in tracks if track]


def _seen(clip: Clip) -> list[int]:
    return [number for number, masks in enumerate(clip.object_masks) if masks.any()]


def _subject(clip: Clip) -> int:
    """The nearest visible object."""
    visible = _seen(clip)
    if not visible:
        raise ValueError(f"no object of clip {clip.seed} is ever inside the frame")
    return visible[-1]


def text(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """The caption alone."""
    return vcu.text(**canvas_of(clip))


def depth(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """Exact depth, near = bright."""
    return vcu.depth(clip.depth)


def pose(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """The skeleton on black, in a small picture by a pen as thick as usual at 256 pixels, or a thinner."""
    pen = usual_pen(*clip.frames.shape[1:3])
    pen = _choose(rng, (pen, pen, pen / 2, 1.0))
    return vcu.control(signals.draw_pose(skeleton(clip), pen=pen))


def flow(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """Exact motion on the color wheel, the first map twice."""
    maps = signals.flow_to_frames(clip.flow)
    return vcu.control(torch.cat([maps[:1], maps]))


def gray(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """Luma, without VACE's exchange of red and blue."""
    return vcu.control(signals.to_gray(clip.frames, weights="bt601"))


def lines(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """Outlines, dark on white: exact ones, or those that the line signal finds in the pixels."""
    if rng is not None and rng.random() < 0.35:
        return vcu.control(signals.draw_lines(clip.frames))
    return vcu.control(_gray_rgb(1 - clip.lines))


def layout_boxes(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """Boxes in the objects' colors."""
    colors = [clip.objects[n].rgb for n in _seen(clip)]
    return vcu.layout(box_tracks(clip), colors=_choose(rng, (colors, None)), **canvas_of(clip))


def layout_contours(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """Contours of the objects' masks in their colors."""
    visible = _seen(clip)
    colors = _choose(rng, ([clip.objects[n].rgb for n in visible], None))
    return vcu.layout_masks([clip.object_masks[n] for n in visible], colors=colors)


def layout(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """Boxes or contours, colored or black."""
    return _choose(rng, (layout_boxes, layout_contours))(clip, rng)


def inpaint(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """The objects' outline; or one object's outline, hull or box, still or moving; or any region."""
    if rng is None and clip.objects:
        return vcu.inpaint(clip.frames, clip.masks)
    rng = rng or np.random.default_rng(0)
    if not clip.objects or rng.random() < 0.4:
        region = random_region(rng, tuple(clip.frames.shape[:3]))
        return vcu.inpaint(clip.frames, region)
    mask = clip.masks if rng.random() < 0.4 else clip.object_masks[pick(rng, _seen(clip))]
    return vcu.inpaint(
        clip.frames,
        mask,
        mask_shape=pick(rng, vcu.MASK_SHAPES, MASK_ODDS),
        expand=pick(rng, EXPANSIONS),
        grow_px=int(rng.integers(0, 4)),
        still=bool(rng.random() < 0.25),
    )


def outpaint(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """The clip's middle, or a part of it toward any side; the canvas is the clip's own size."""
    height, width = clip.frames.shape[1:3]
    sides = dict.fromkeys(("left", "right", "top", "bottom"), 8)
    if rng is not None:
        always = rng.integers(2)
        for axis, (before, after) in enumerate((("top", "bottom"), ("left", "right"))):
            largest = (height, width)[axis] // 2
            margin = int(rng.integers(4, largest + 1)) if axis == always or rng.random() < 0.5 else 0
            # A crop's sides and the margins together are a multiple of 16 in any case: the clip's own size.
            share = pick(rng, (0.0, 1.0, 0.5, float(rng.random())))
            sides[before] = round(margin * share)
            sides[after] = margin - sides[before]
    center = clip.frames[:, sides["top"] : height - sides["bottom"], sides["left"] : width - sides["right"]]
    return vcu.outpaint(center, **sides)


def ends(first: int, last: int) -> Build:
    """The task of keeping a number of frames of the start and of the end."""

    def build(clip: Clip, rng: Rng = None) -> vcu.VCU:
        start = clip.frames[:first] if first else None
        end = clip.frames[len(clip.frames) - last :] if last else None
        return vcu.extend(start, end, num_frames=len(clip.frames))

    return build


def extend(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """First, last or both ends given: single frames, or a stretch of 5 or 9."""
    if rng is None:
        return ends(1, 0)(clip)
    longest = max(1, (len(clip.frames) - 1) // 2)
    first, last = (min(pick(rng, END_LENGTHS), longest) for _ in range(2))
    which = pick(rng, ("first", "last", "both"), np.cumsum([0.55, 0.15, 0.3]))
    return ends(first if which != "last" else 0, last if which != "first" else 0)(clip)


def keyframes(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """The first and the last frame and a short clip between; or a few frames anywhere."""
    total = len(clip.frames)
    if rng is None:
        at = (total - 3) // 2
        images = [clip.frames[0], clip.frames[at : at + 3], clip.frames[-1]]
        return vcu.keyframes(images, [0, at, -1], num_frames=total)
    count = int(rng.integers(2, min(4, total - 1) + 1))
    indices = sorted(rng.permutation(total)[:count].tolist())
    return vcu.keyframes([clip.frames[i] for i in indices], indices, num_frames=total)


def _best_frame(masks: Tensor, rng: Rng) -> int:
    """The frame of [F, H, W] that shows most, or any that shows nearly as much."""
    areas = masks.flatten(1).sum(1)
    if rng is None:
        return int(areas.argmax())
    return pick(rng, (areas >= 0.8 * areas.max()).nonzero().flatten().tolist())


def _cut_out(clip: Clip, number: int, rng: Rng, margin: float) -> vcu.VCU:
    """One object cut out of a frame that shows most of it."""
    masks = clip.object_masks[number]
    frame = _best_frame(masks, rng)
    return vcu.reference(clip.frames[frame], masks=masks[frame], margin=margin, **canvas_of(clip))


def _portrait(clip: Clip, number: int, rng: Rng) -> vcu.VCU:
    """One object on white: as the clip shows it, or upright."""
    margin = 0.0 if rng is None else float(pick(rng, (0.0, 0.1, 0.25)))
    if rng is not None and rng.random() < 0.5:
        picture = clip.references[number]
        inked = (picture.amin(-1) < 0.999).float()
        return vcu.reference(picture, masks=inked, margin=margin, **canvas_of(clip))
    return _cut_out(clip, number, rng, margin)


def reference(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """The nearest object, cut out of the frame that shows most of it, or upright."""
    return _portrait(clip, _subject(clip), rng)


def references(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """Every object: upright on white; or each as the clip shows it, in any order."""
    if rng is None or len(_seen(clip)) < len(clip.objects):
        return vcu.reference(list(clip.references), **canvas_of(clip))
    order = rng.permutation(len(clip.objects)).tolist()
    return vcu.compose(*(_portrait(clip, number, rng) for number in order))


def face(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """The figure's head: its box with its content, as a detector's, of a frame that shows all of it."""
    if not clip.objects or not isinstance(clip.objects[-1], FigureTrack):
        raise ValueError(f"clip {clip.seed} shows no stick figure, so no face; draw it with `figure_clip`")
    height, width = clip.frames.shape[1:3]
    grow = 1 + _choose(rng, FACE_EXPANSIONS)
    boxes = [
        {
            "x": (left + right - grow * (right - left)) / 2,
            "y": (top + bottom - grow * (bottom - top)) / 2,
            "width": grow * (right - left),
            "height": grow * (bottom - top),
        }
        for left, top, right, bottom in clip.objects[-1].head_boxes.tolist()
    ]
    masks = vcu.box_masks([[box] for box in boxes], width=width, height=height, num_frames=len(boxes))
    frame = _best_frame(masks, rng)
    return vcu.reference(clip.frames[frame], masks=masks[frame], **canvas_of(clip))


def place(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """The region of a character to replace: a box, so that the outline reveals nothing."""
    expand = _choose(rng, (PLACE_RATIO, 0.0, vcu.EXPAND_RATIO))
    return vcu.inpaint(clip.frames, clip.object_masks[_subject(clip)], mask_shape="box", expand=expand)


def swap_region(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """The nearest object's enlarged box, so that its outline reveals nothing."""
    expand = _choose(rng, (vcu.EXPAND_RATIO, 0.1, 0.6))
    return vcu.inpaint(clip.frames, clip.object_masks[_subject(clip)], mask_shape="box", expand=expand)


def garment(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """The region of clothes to replace, not of the wearer: the outline, rounded and a little wider."""
    grow = _choose(rng, (2, 1, 3))
    return vcu.inpaint(clip.frames, clip.object_masks[_subject(clip)], grow_px=grow, blur_px=1.0)


def removal(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """The enlarged hull of the nearest object; the target video is `clip.without(-1)`."""
    mask = clip.object_masks[_subject(clip)]
    return vcu.inpaint(clip.frames, mask, mask_shape="hull", expand=vcu.EXPAND_RATIO)


def expand(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """The first frame's middle, to be widened and continued, with every object as a reference."""
    wide = outpaint(clip, rng).replace(notes=())
    frames, masks = text(clip).frames.clone(), torch.ones(clip.frames.shape[:3])
    frames[0], masks[0] = wide.frames[0], wide.masks[0]
    return vcu.compose(vcu.VCU(frames, masks, kind="extension"), references(clip, rng))


def move(clip: Clip, rng: Rng = None) -> vcu.VCU:
    """The first frame, and the boxes of the nearest object."""
    return vcu.move(clip.frames[0], box_tracks(clip)[-1], num_frames=len(clip.frames))


def both(first: Build, second: Build) -> Build:
    """The composition of two tasks."""
    return lambda clip, rng=None: vcu.compose(first(clip, rng), second(clip, rng))
