"""A perfect observer: what the evaluation network would see in drawn clips if it never erred."""

from __future__ import annotations

import pytest
import torch

from training.data.backgrounds import BACKGROUNDS
from training.data.captions import DIRECTIONS
from training.data.shapes import COLOURS, OBJECT_COLOURS, SIZES, SPLITS, clip
from training.evaluation.accuracy import background_words
from training.evaluation.network import PATHS, SEEN_SHAPES
from training.evaluation.observe import Observation


def _one_hot(index: int, size: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(index), size).float()


def perfect_observation(drawn) -> Observation:
    """One clip's observation, from its annotations."""
    count, frames = len(OBJECT_COLOURS), len(drawn.frames)
    kind, colour = background_words(drawn)
    values = {
        "presence": torch.zeros(count),
        "seen": torch.zeros(frames, count),
        "shape": torch.zeros(count, len(SEEN_SHAPES)),
        "size": torch.zeros(count, len(SIZES)),
        "path": torch.zeros(count, len(PATHS)),
        "direction": torch.zeros(count, len(DIRECTIONS)),
        "positions": torch.full((frames, count, 2), 0.5),
        "background": _one_hot(list(COLOURS).index(colour), len(COLOURS)),
        "kind": _one_hot(BACKGROUNDS.index(kind), len(BACKGROUNDS)),
        "labels": torch.zeros(drawn.frames.shape[:3], dtype=torch.uint8),
    }
    for track, mask in zip(drawn.objects, drawn.object_masks, strict=True):
        slot = OBJECT_COLOURS.index(track.colour)
        values["seen"][:, slot] = (mask.sum((1, 2)) >= 12).float()
        values["presence"][slot] = values["seen"][:, slot].mean()
        values["shape"][slot] = _one_hot(SEEN_SHAPES.index(track.shape), len(SEEN_SHAPES))
        values["size"][slot] = _one_hot(tuple(SIZES).index(track.size_name), len(SIZES))
        values["path"][slot] = _one_hot(PATHS.index(track.path), len(PATHS))
        values["direction"][slot] = _one_hot(DIRECTIONS.index(track.direction), len(DIRECTIONS))
        values["positions"][:, slot] = track.centres / drawn.frames.shape[1]
        values["labels"][mask > 0] = 1 + slot
    values["features"] = drawn.frames.mean((0, 1, 2))
    return Observation(**values)


@pytest.fixture(scope="session")
def drawn_clips():
    """Forty evaluation clips, one and two objects."""
    return [clip(SPLITS["evaluation"].start + i) for i in range(40)]


@pytest.fixture(scope="session")
def perfect(drawn_clips):
    """What is really in them."""
    return [perfect_observation(drawn) for drawn in drawn_clips]
