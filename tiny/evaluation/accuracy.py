"""Accuracy of the evaluation network on clips with known truth.

Letters: B clips, F frames, N objects, H W pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from ..clips.backgrounds import BACKGROUNDS
from ..clips.captions import DIRECTIONS
from ..clips.shapes import COLORS, OBJECT_COLORS, SIZES, Clip
from .network import PATHS, SEEN_SHAPES
from .observe import PRESENT, Observation

# An object with fewer visible pixels counts as not seen.
VISIBLE_PIXELS = 12


def visible_frames(clip: Clip) -> Tensor:
    """[N, F] bool, where each object shows at least `VISIBLE_PIXELS`."""
    return clip.object_masks.sum((2, 3)) >= VISIBLE_PIXELS


def counted_objects(clip: Clip) -> list[int]:
    """Indices of the objects that are seen in at least half of the frames; only these are asked for."""
    return [i for i, visible in enumerate(visible_frames(clip)) if visible.float().mean() >= 0.5]


def background_words(clip: Clip) -> tuple[str, str]:
    """The background's kind and color."""
    kind, color = clip.background.split()[:2]
    return kind, color


def mask_overlap(one: Tensor, other: Tensor) -> float:
    """Intersection over union of two bool tensors, over all their elements; two empty ones agree."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0


def reading_accuracy(observation: Observation, clips: Sequence[Clip]) -> dict[str, float]:
    """Compare observations of true clips with the truth.

    Args:
        observation: Of the clips' own frames, or of a reconstruction of them.
        clips: The truth.

    Returns:
        Shares of right answers ('colors': the clip's set of object colors; 'path', 'direction' of
        linear paths, .. by object), 'overlap' of object pixels and 'position_px', a mean distance.
    """
    right: dict[str, list[float]] = defaultdict(list)
    for i, clip in enumerate(clips):
        reading = observation[i]
        counted = counted_objects(clip)
        named = {clip.objects[n].color for n in counted}
        colors = {OBJECT_COLORS[k] for k in (reading.presence > PRESENT).nonzero().flatten().tolist()}
        right["colors"].append(colors == named)
        kind, color = background_words(clip)
        right["background_kind"].append(BACKGROUNDS[int(reading.kind.argmax())] == kind)
        right["background_color"].append(list(COLORS)[int(reading.background.argmax())] == color)
        right["overlap"].append(mask_overlap(reading.labels > 0, clip.masks > 0.5))
        for n in counted:
            track, slot = clip.objects[n], OBJECT_COLORS.index(clip.objects[n].color)
            right["shape"].append(SEEN_SHAPES[int(reading.shape[slot].argmax())] == track.shape)
            right["size"].append(tuple(SIZES)[int(reading.size[slot].argmax())] == track.size_name)
            if track.path in PATHS:
                right["path"].append(PATHS[int(reading.path[slot].argmax())] == track.path)
            if track.path == "linear":
                right["direction"].append(
                    DIRECTIONS[int(reading.direction[slot].argmax())] == track.direction
                )
            side = clip.frames.shape[1]
            error = (side * reading.positions[:, slot] - track.centers).norm(dim=-1)[visible_frames(clip)[n]]
            right["position_px"].append(error.mean().item())
    return {name: sum(values) / len(values) for name, values in right.items() if values}


def stack_frames(clips: Sequence[Clip]) -> Tensor:
    """[B, F, H, W, 3] of clips of one size."""
    return torch.stack([clip.frames for clip in clips])
