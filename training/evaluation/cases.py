"""The held-out clips of a row of the results, each with its unit and prompt.

Letters: F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vdot_core import vcu

from ..data.figure import SHAPE as FIGURE
from ..data.shapes import HELD_OUT, Clip
from ..tasks import build_unit, draw_scene, task_named
from .accuracy import counted_objects
from .config import EvaluationConfig, TaskConfig
from .network import CLIP_FRAMES, FRAME_SIZE

# Of `training.data.captions`' phrasings: the one that names every size, colour, shape, motion and background.
FULL_CAPTION, FULL_FIGURE_CAPTION = 4, 5


@dataclass(frozen=True, eq=False)
class Case:
    """One question: `index` is the clip's in its split, `seed` the noise's."""

    index: int
    seed: int
    drawn: Clip
    unit: vcu.VCU
    prompt: str


def full_caption(drawn: Clip) -> str:
    """The caption that names everything that is scored."""
    figure = drawn.objects[-1].shape == FIGURE
    return drawn.captions[FULL_FIGURE_CAPTION if figure else FULL_CAPTION]


def _asks_held_out(drawn: Clip) -> bool:
    return any((drawn.objects[n].colour, drawn.objects[n].shape) in HELD_OUT for n in counted_objects(drawn))


def find_scenes(config: EvaluationConfig, row: TaskConfig) -> Iterator[tuple[int, Clip]]:
    """The row's clips with their indices, in order, without end; those that show nothing are passed over."""
    size, kind = (CLIP_FRAMES, FRAME_SIZE, FRAME_SIZE), task_named(row.task).scene
    index = config.first
    while True:
        drawn = draw_scene(index, config.split, 0.0, size, kind=kind)
        if len(counted_objects(drawn)) == len(drawn.objects) and (not row.held_out or _asks_held_out(drawn)):
            yield index, drawn
        index += 1


def row_cases(config: EvaluationConfig, row: TaskConfig) -> Iterator[Case]:
    """All cases of a row: its clips, each with each of its seeds in turn.

    Args:
        config: The evaluation.
        row: One of its tasks.

    Yields:
        Cases in a fixed order; equal configurations give equal cases.
    """
    count = row.clips or config.clips
    for _, (index, drawn) in zip(range(count), find_scenes(config, row), strict=False):
        unit = build_unit(row.task, drawn)
        prompt = full_caption(drawn) if row.prompt == "full" else ""
        for number in range(row.seeds):
            # Noise differs between clips and seeds, and is the same for every model and sampler.
            yield Case(index, 1_000_003 * (config.seed + number) + index, drawn, unit, prompt)
