"""Scores of one generated clip: pure functions of what is seen in it and of the drawn clip it should follow.

Every share is in [0, 1] with 1 right; errors are in pixels or in depth's own units; PSNR in dB.
Letters: F frames, N objects, K object colors, H W pixels.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from vdot_core import vcu

from ..clips.annotations import depth_map
from ..clips.backgrounds import BACKGROUNDS
from ..clips.captions import DIRECTIONS
from ..clips.shapes import COLORS, HELD_OUT, OBJECT_COLORS, SIZES, Clip, ShapeTrack
from ..learning import psnr
from .accuracy import background_words, counted_objects, mask_overlap
from .network import PATHS, SEEN_SHAPES
from .observe import PRESENT, Observation

# Motion is compared over one latent frame, so that a reading's inexactness is small beside it.
FLOW_STRIDE = 4
LUMA = (0.299, 0.587, 0.114)
MAX_PSNR = 60.0


def seen_shape(seen: Observation, slot: int) -> str:
    """The shape of what is seen in a color."""
    return SEEN_SHAPES[int(seen.shape[slot].argmax())]


def present_slots(seen: Observation) -> list[int]:
    """Colors of which an object is seen, the surest first."""
    order = seen.presence.argsort(descending=True).tolist()
    return [slot for slot in order if seen.presence[slot] > PRESENT]


def match_objects(seen: Observation, drawn: Clip) -> dict[int, int | None]:
    """Which of the seen objects stands for each asked one.

    An object of the right color is its own; what is left is given out so that most shapes are right.

    Args:
        seen: One clip's observation.
        drawn: What was asked for.

    Returns:
        Index of the asked object -> color index of the seen one, or None where nothing is left.
    """
    asked, slots = counted_objects(drawn), present_slots(seen)
    matched: dict[int, int | None] = {}
    for n in asked:
        own = OBJECT_COLORS.index(drawn.objects[n].color)
        matched[n] = own if own in slots else None
    left = [n for n in asked if matched[n] is None]
    free: list[int | None] = [slot for slot in slots if slot not in matched.values()]
    free += [None] * len(left)

    def shapes_right(choice: tuple[int | None, ...]) -> int:
        pairs = zip(left, choice, strict=True)
        return sum(s is not None and seen_shape(seen, s) == drawn.objects[n].shape for n, s in pairs)

    # The first of equals has the surest slots, so nothing seen stays unmatched in favor of None.
    best = max(itertools.permutations(free, len(left)), key=shapes_right) if left else ()
    return matched | dict(zip(left, best, strict=True))


def _names_motion(seen: Observation, slot: int, track: ShapeTrack) -> bool:
    if PATHS[int(seen.path[slot].argmax())] != track.path:
        return False
    return track.path != "linear" or DIRECTIONS[int(seen.direction[slot].argmax())] == track.direction


def object_scores(seen: Observation, drawn: Clip) -> list[dict[str, float]]:
    """How each object that the prompt names came out.

    Args:
        seen: One clip's observation.
        drawn: What was asked for.

    Returns:
        For each object: 'color', 'shape' (of what stands for it), 'pair' (that shape in that color),
        'size', 'motion' (path, and direction of a linear one; absent for figures), 'held_out' 1 for the
        color-shape pairs that training never shows.
    """
    records = []
    for n, slot in match_objects(seen, drawn).items():
        track = drawn.objects[n]
        here = slot is not None
        color = here and OBJECT_COLORS[slot] == track.color
        shape = here and seen_shape(seen, slot) == track.shape
        size = here and tuple(SIZES)[int(seen.size[slot].argmax())] == track.size_name
        record = {"color": color, "shape": shape, "pair": color and shape, "size": size}
        if track.path in PATHS:
            record["motion"] = here and _names_motion(seen, slot, track)
        record["held_out"] = (track.color, track.shape) in HELD_OUT
        records.append({name: float(value) for name, value in record.items()})
    return records


def scene_scores(seen: Observation, drawn: Clip) -> dict[str, float]:
    """What the whole scene is right in.

    Args:
        seen: One clip's observation.
        drawn: What was asked for.

    Returns:
        'background_color', 'background_kind' (1 right, 0 wrong); 'extra_objects', how many objects too many
        are seen, and 'extra_score', 1 for none and 0 for any, so that its mean is the share of videos without
        an object that nobody asked for: a video that shows every color loses no more than itself.
    """
    kind, color = background_words(drawn)
    extra = max(0, len(present_slots(seen)) - len(counted_objects(drawn)))
    return {
        "background_color": float(list(COLORS)[int(seen.background.argmax())] == color),
        "background_kind": float(BACKGROUNDS[int(seen.kind.argmax())] == kind),
        "extra_objects": float(extra),
        "extra_score": float(extra == 0),
    }


def _observed_masks(seen: Observation, drawn: Clip) -> Tensor:
    """[N, F, H, W] float: pixels of what stands for each drawn object; zeros where nothing does."""
    masks = torch.zeros_like(drawn.object_masks)
    for n, slot in match_objects(seen, drawn).items():
        if slot is not None:
            masks[n] = (seen.labels == 1 + slot).float()
    return masks


def object_iou(seen: Observation, drawn: Clip) -> float:
    """Overlap of all object pixels with those drawn, whatever their color."""
    return mask_overlap(seen.labels > 0, drawn.masks > 0.5)


def box_iou(seen: Observation, drawn: Clip) -> float:
    """Mean overlap of each object's box with its drawn box, over the frames where it was drawn."""
    overlaps = []
    for observed, mask in zip(_observed_masks(seen, drawn), drawn.object_masks, strict=True):
        for one, other in zip(observed > 0, mask > 0, strict=True):
            if other.sum() >= 12:
                overlaps.append(mask_overlap(_filled_box(one), _filled_box(other)))
    return sum(overlaps) / len(overlaps) if overlaps else 1.0


def _filled_box(mask: Tensor) -> Tensor:
    """[H, W] bool: the mask's bounding box; a few lone pixels far out do not widen it."""
    box = torch.zeros_like(mask)
    if mask.any():
        spans = [_span(mask.sum(axis)) for axis in (1, 0)]
        box[slice(*spans[0]), slice(*spans[1])] = True
    return box


def _span(counts: Tensor) -> tuple[int, int]:
    """First and one past the last line of a profile, without the outer 1 % of its mass at either end."""
    mass = counts.cumsum(0).float() / counts.sum()
    inside = ((mass > 0.01) & (mass - counts / counts.sum() < 0.99)).nonzero().flatten()
    return int(inside[0]), int(inside[-1]) + 1


def depth_error(seen: Observation, drawn: Clip) -> float:
    """Mean absolute difference between the depth drawn and that of the seen objects at their nearness."""
    nearness = [track.nearness for track in drawn.objects]
    return (depth_map(nearness, _observed_masks(seen, drawn)) - drawn.depth).abs().mean().item()


def flow_error_px(seen: Observation, drawn: Clip) -> float:
    """Mean distance between seen and drawn motion of the objects' centers, in pixels a frame.

    Something that is asked for and not seen counts as standing still.
    """
    side, errors = drawn.frames.shape[1], []
    for n, slot in match_objects(seen, drawn).items():
        asked = drawn.objects[n].centers
        asked = asked[FLOW_STRIDE:] - asked[:-FLOW_STRIDE]
        there = (
            side * seen.positions[:, slot] if slot is not None else torch.zeros_like(drawn.objects[n].centers)
        )
        errors.append((there[FLOW_STRIDE:] - there[:-FLOW_STRIDE] - asked).norm(dim=-1).mean() / FLOW_STRIDE)
    return float(sum(errors) / len(errors)) if errors else 0.0


def bounded_psnr(one: Tensor, other: Tensor) -> float:
    """PSNR in dB of values in [0, 1], at most `MAX_PSNR`, so that equal clips do not rule a mean."""
    return min(psnr((one - other).square().mean()).item(), MAX_PSNR)


def kept_psnr(video: Tensor, unit: vcu.VCU) -> float | None:
    """PSNR over what the unit asks to keep.

    Args:
        video: [F, H, W, 3] float in [0, 1].
        unit: The task's unit.

    Returns:
        dB, or None where nothing is to be kept.
    """
    kept = unit.masks <= 0.5
    return bounded_psnr(video[kept], unit.frames[kept]) if bool(kept.any()) else None


def gray_psnr(video: Tensor, drawn: Clip) -> float:
    """PSNR in dB between the luma of a video and that of the drawn clip."""
    return bounded_psnr(video @ torch.tensor(LUMA), drawn.frames @ torch.tensor(LUMA))


def smoothness_db(video: Tensor) -> float:
    """How well each frame is the mean of its neighbors, as PSNR: high is smooth, low flickers.

    Args:
        video: [F, H, W, 3] float in [0, 1], at least 3 frames.
    """
    return bounded_psnr(video[1:-1], (video[:-2] + video[2:]) / 2)


def control_scores(told: tuple[str, ...], seen: Observation, drawn: Clip) -> dict[str, float]:
    """The scores of what a unit says of the video.

    Args:
        told: As `tiny.tasks.Task.tells`: 'depth', 'masks', 'boxes', 'flow', ..; others are ignored.
        seen: One clip's observation.
        drawn: What should be seen.
    """
    scores = {}
    if {"depth", "masks", "lines", "gray", "pose"} & set(told):
        scores["object_iou"] = object_iou(seen, drawn)
    if {"boxes", "masks", "depth"} & set(told):
        scores["box_iou"] = box_iou(seen, drawn)
    if "depth" in told:
        scores["depth_error"] = depth_error(seen, drawn)
    if {"flow", "depth"} & set(told):
        scores["flow_error_px"] = flow_error_px(seen, drawn)
    return scores
