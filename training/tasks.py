"""Turning a drawn clip into one task for the model: the units are made by the builders that the nodes use.

Letters: F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vdot_core import vcu
from vdot_core.signals.gray import luma

from .data.shapes import SPLITS, clip
from .data.textures import texture_clip

TEXTURE_CAPTIONS = ("a texture", "an abstract texture", "a natural picture", "a photo", "")


@dataclass(frozen=True)
class Scene:
    """What a task is made from: a clip, its annotations and its captions.

    Attributes:
        frames: [F, H, W, 3] float in [0, 1].
        subject: [F, H, W] float, 1 on the subject.
        depth, lines: [F, H, W] float in [0, 1]; None where unknown.
        references: Images of the subject on white.
        captions: True captions, any of which may be used.
    """

    frames: Tensor
    subject: Tensor
    depth: Tensor | None
    lines: Tensor | None
    references: tuple[Tensor, ...]
    captions: tuple[str, ...]


def draw_scene(index: int, split: str, texture_share: float, size: tuple[int, int, int]) -> Scene:
    """The index-th scene of a split.

    Args:
        index: From 0.
        split: 'train', 'validation' or 'evaluation'.
        texture_share: Chance of a natural-looking texture instead of drawn shapes.
        size: (frames, height, width).
    """
    num_frames, height, width = size
    seed = SPLITS[split][index]
    shape = {"height": height, "width": width, "num_frames": num_frames}
    if np.random.default_rng([seed, 11]).random() < texture_share:
        frames = texture_clip(seed, **shape)
        return Scene(frames, torch.zeros(num_frames, height, width), None, None, (), TEXTURE_CAPTIONS)
    drawn = clip(seed, **shape)
    return Scene(drawn.frames, drawn.masks, drawn.depth, drawn.lines, drawn.references, drawn.captions)


def _grey_rgb(maps: Tensor) -> Tensor:
    return maps[..., None].expand(*maps.shape, 3)


def _rectangle(rng, frames: Tensor, smallest: float, largest: float) -> Tensor:
    """[F, H, W] a rectangle that stays or drifts."""
    num_frames, height, width = frames.shape[:3]
    size = rng.uniform(smallest, largest, 2) * (height, width)
    start = rng.uniform(0, 1, 2) * (height - size[0], width - size[1])
    step = rng.normal(0, 0.8, 2) * (rng.random() < 0.4)
    mask = torch.zeros(num_frames, height, width)
    for f in range(num_frames):
        top, left = np.clip(start + f * step, 0, (height - size[0], width - size[1])).astype(int)
        mask[f, top : top + int(size[0]), left : left + int(size[1])] = 1
    return mask


def _inpaint(rng, scene: Scene) -> vcu.VCU:
    """The subject's outline, hull or box, or a rectangle of any size up to nearly everything."""
    if scene.subject.amax() > 0 and rng.random() < 0.55:
        shape = str(rng.choice(["original", "hull", "box"], p=[0.25, 0.25, 0.5]))
        return vcu.inpaint(
            scene.frames, scene.subject, mask_shape=shape, expand=float(rng.choice([0.0, 0.3, 0.6]))
        )
    return vcu.inpaint(scene.frames, _rectangle(rng, scene.frames, 0.25, 0.95))


def _outpaint(rng, scene: Scene) -> vcu.VCU:
    """The clip's middle, with margins to be made; the canvas is the clip's own size."""
    _, height, width = scene.frames.shape[:3]
    sides = {}
    always = rng.integers(2)
    for axis, (before, after) in enumerate((("top", "bottom"), ("left", "right"))):
        largest = (height, width)[axis] - 16
        margins = [m for m in (0, 16, 32) if m <= largest and (m or axis != always)]
        margin = int(rng.choice(margins))
        sides[before] = int(rng.integers(0, margin + 1))
        sides[after] = margin - sides[before]
    kept = scene.frames[:, sides["top"] : height - sides["bottom"], sides["left"] : width - sides["right"]]
    return vcu.outpaint(kept, **sides)


def _extend(rng, scene: Scene) -> vcu.VCU:
    """First, last or both ends given: single frames, or a stretch of 5 or 9."""
    num_frames = scene.frames.shape[0]
    length = min(int(rng.choice([1, 1, 5, 9])), max(1, num_frames // 2))
    ends = int(rng.choice(3, p=[0.6, 0.15, 0.25]))
    first = scene.frames[:length] if ends != 1 else None
    last = scene.frames[-length:] if ends != 0 else None
    return vcu.extend(first, last, num_frames=num_frames)


def _gray(rng, scene: Scene) -> vcu.VCU:
    return vcu.control(_grey_rgb(luma(scene.frames)))


def _size(scene: Scene) -> dict[str, int]:
    num_frames, height, width = scene.frames.shape[:3]
    return {"width": width, "height": height, "num_frames": num_frames}


def _subject_references(rng, scene: Scene) -> vcu.VCU:
    return vcu.reference(list(scene.references[-1:]), **_size(scene))


TASKS: dict[str, Callable] = {
    "text": lambda rng, scene: vcu.text(**_size(scene)),
    "depth": lambda rng, scene: vcu.depth(_grey_rgb(scene.depth)),
    # Dark on white, as the scribble signal is drawn.
    "lines": lambda rng, scene: vcu.control(_grey_rgb(1 - scene.lines)),
    "gray": _gray,
    "inpaint": _inpaint,
    "outpaint": _outpaint,
    "extend": _extend,
    "reference": _subject_references,
    "reference_depth": lambda rng, scene: vcu.compose(
        _subject_references(rng, scene), vcu.depth(_grey_rgb(scene.depth))
    ),
}
NEEDS_SHAPES = frozenset({"depth", "lines", "reference", "reference_depth"})


def build_unit(task: str, scene: Scene, rng: np.random.Generator) -> vcu.VCU:
    """Make the unit of a task.

    Args:
        task: One of `TASKS`.
        scene: What it is made from.
        rng: Draws regions, margins and lengths.

    Returns:
        The unit, of the scene's size and length.

    Raises:
        ValueError: The task is unknown, or needs annotations the scene lacks.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; the tasks are {tuple(TASKS)}")
    if task in NEEDS_SHAPES and scene.depth is None:
        raise ValueError(f"the task {task!r} needs a drawn scene; this one is a texture")
    unit = TASKS[task](rng, scene)
    if unit.frames.shape != scene.frames.shape:
        raise ValueError(f"{task} made {list(unit.frames.shape)} of a scene {list(scene.frames.shape)}")
    return unit
