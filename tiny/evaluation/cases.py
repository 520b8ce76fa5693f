"""The held-out clips of a row of the results, each with its unit and prompt.

Letters: F frames, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from vdot_core import vcu

from ..clips.captions import DIRECTIONS, phrasings
from ..clips.figure import SHAPE as FIGURE
from ..clips.shapes import HELD_OUT, Clip
from ..tasks import build_unit, draw_scene, task_named
from .accuracy import counted_objects
from .config import EvaluationConfig, TaskConfig
from .network import CLIP_FRAMES, FRAME_SIZE

# Of `tiny.clips.captions`' phrasings: the one that names every size, color, shape, motion and background.
FULL_CAPTION, FULL_FIGURE_CAPTION = 4, 5
REMOVAL = "removal"  # the one task whose target video is not the drawn clip


@dataclass(frozen=True, eq=False)
class Case:
    """One test case.

    Attributes:
        index: The clip's in its split; seed: the noise's.
        scene: The expected video.
        unit, prompt: The model's inputs.
    """

    index: int
    seed: int
    scene: Clip
    unit: vcu.VCU
    prompt: str


def full_caption(scene: Clip) -> str:
    """The caption that names everything that is scored."""
    figure = scene.objects[-1].shape == FIGURE
    return scene.captions[FULL_FIGURE_CAPTION if figure else FULL_CAPTION]


def without_nearest(scene: Clip) -> Clip:
    """A clip of two shapes as it would be without the nearer one: frames, annotations and captions."""
    objects, (across, down) = scene.objects[:-1], scene.pan
    heading = round(math.atan2(down, across) / (math.pi / 4)) % 8
    captions = phrasings(objects, scene.background, DIRECTIONS[heading] if across or down else None)
    frames = scene.without(-1)
    return replace(scene, frames=frames, objects=objects, captions=captions, caption=captions[FULL_CAPTION])


def _asks_held_out(scene: Clip) -> bool:
    return any((scene.objects[n].color, scene.objects[n].shape) in HELD_OUT for n in counted_objects(scene))


def _draw(index: int, split: str, kind: str) -> Clip:
    return draw_scene(index, split, 0.0, (CLIP_FRAMES, FRAME_SIZE, FRAME_SIZE), kind=kind)


@cache
def scene_indices(split: str, kind: str, first: int, count: int, held_out: bool) -> tuple[int, ...]:
    """The clips that a row takes, searched for once in a process: few show a held-out pair.

    Args:
        split: Split of the seeds.
        kind: Of scene, as in `tiny.tasks.draw_scene`.
        first: Index at which the search starts.
        count: Number of clips; clips with a hardly visible object are skipped.
        held_out: Take only clips with a held-out pair.
    """
    indices, index = [], first
    while len(indices) < count:
        scene = _draw(index, split, kind)
        complete = len(counted_objects(scene)) == len(scene.objects)
        if complete and (not held_out or _asks_held_out(scene)):
            indices.append(index)
        index += 1
    return tuple(indices)


def row_cases(config: EvaluationConfig, row: TaskConfig) -> Iterator[Case]:
    """All cases of a row: its clips, each with each of its seeds in turn.

    Args:
        config: The evaluation.
        row: One of its tasks.

    Yields:
        Cases in a fixed order; equal configurations give equal cases.
    """
    removal = row.task == REMOVAL
    # An object must remain to prompt for when the nearest one is removed.
    kind = "pair" if removal else task_named(row.task).scene
    for index in scene_indices(config.split, kind, config.first, row.clips or config.clips, row.held_out):
        scene = _draw(index, config.split, kind)
        unit = build_unit(row.task, scene)
        target = without_nearest(scene) if removal else scene
        prompt = full_caption(target) if row.prompt == "full" else ""
        for number in range(row.seeds):
            # Noise differs between clips and seeds, and is the same for every model and sampler.
            yield Case(index, 1_000_003 * (config.seed + number) + index, target, unit, prompt)
