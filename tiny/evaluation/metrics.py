"""Scores of one generated clip: pure functions of its observation and of the target clip.

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

# Motion is compared over one latent frame, so that the reading's error is small relative to it.
FLOW_STRIDE = 4
LUMA = (0.299, 0.587, 0.114)
MAX_PSNR = 60.0


def seen_shape(observation: Observation, slot: int) -> str:
    """The shape seen in a color."""
    return SEEN_SHAPES[int(observation.shape[slot].argmax())]


def present_slots(observation: Observation) -> list[int]:
    """Colors of the seen objects, the most confident first."""
    order = observation.presence.argsort(descending=True).tolist()
    return [slot for slot in order if observation.presence[slot] > PRESENT]


def match_objects(observation: Observation, scene: Clip) -> dict[int, int | None]:
    """Match each requested object with a seen one.

    Objects match by color; the remaining ones are assigned so that most shapes are right.

    Args:
        observation: One clip's observation.
        scene: The clip that was asked for.

    Returns:
        Index of the requested object -> color index of the seen one, or None if unmatched.
    """
    targets, slots = counted_objects(scene), present_slots(observation)
    matched: dict[int, int | None] = {}
    for n in targets:
        own = OBJECT_COLORS.index(scene.objects[n].color)
        matched[n] = own if own in slots else None
    unmatched = [n for n in targets if matched[n] is None]
    free: list[int | None] = [slot for slot in slots if slot not in matched.values()]
    free += [None] * len(unmatched)

    def shapes_right(choice: tuple[int | None, ...]) -> int:
        pairs = zip(unmatched, choice, strict=True)
        return sum(s is not None and seen_shape(observation, s) == scene.objects[n].shape for n, s in pairs)

    # The first of equals has the surest slots, so nothing seen stays unmatched in favor of None.
    best = max(itertools.permutations(free, len(unmatched)), key=shapes_right) if unmatched else ()
    return matched | dict(zip(unmatched, best, strict=True))


def _names_motion(observation: Observation, slot: int, track: ShapeTrack) -> bool:
    if PATHS[int(observation.path[slot].argmax())] != track.path:
        return False
    return track.path != "linear" or DIRECTIONS[int(observation.direction[slot].argmax())] == track.direction


def object_scores(observation: Observation, scene: Clip) -> list[dict[str, float]]:
    """Scores of each object that the prompt names.

    Args:
        observation: One clip's observation.
        scene: The clip that was asked for.

    Returns:
        For each object: 'color', 'shape' (of its match), 'pair' (that shape in that color),
        'size', 'motion' (path, and direction of a linear one; absent for figures), 'held_out' 1 for the
        color-shape pairs that training never shows.
    """
    records = []
    for n, slot in match_objects(observation, scene).items():
        track = scene.objects[n]
        here = slot is not None
        color = here and OBJECT_COLORS[slot] == track.color
        shape = here and seen_shape(observation, slot) == track.shape
        size = here and tuple(SIZES)[int(observation.size[slot].argmax())] == track.size_name
        record = {"color": color, "shape": shape, "pair": color and shape, "size": size}
        if track.path in PATHS:
            record["motion"] = here and _names_motion(observation, slot, track)
        record["held_out"] = (track.color, track.shape) in HELD_OUT
        records.append({name: float(value) for name, value in record.items()})
    return records


def scene_scores(observation: Observation, scene: Clip) -> dict[str, float]:
    """Scores of background and number of objects.

    Args:
        observation: One clip's observation.
        scene: The clip that was asked for.

    Returns:
        'background_color', 'background_kind' (1 right, 0 wrong); 'extra_objects', the number of
        unrequested objects, and 'extra_score', 1 for none and 0 for any: its mean is the share of videos
        without unrequested objects.
    """
    kind, color = background_words(scene)
    extra = max(0, len(present_slots(observation)) - len(counted_objects(scene)))
    return {
        "background_color": float(list(COLORS)[int(observation.background.argmax())] == color),
        "background_kind": float(BACKGROUNDS[int(observation.kind.argmax())] == kind),
        "extra_objects": float(extra),
        "extra_score": float(extra == 0),
    }


def _observed_masks(observation: Observation, scene: Clip) -> Tensor:
    """[N, F, H, W] float: pixels of each drawn object's match; zeros without one."""
    masks = torch.zeros_like(scene.object_masks)
    for n, slot in match_objects(observation, scene).items():
        if slot is not None:
            masks[n] = (observation.labels == 1 + slot).float()
    return masks


def object_iou(observation: Observation, scene: Clip) -> float:
    """Overlap of all object pixels with the drawn ones, in any color."""
    return mask_overlap(observation.labels > 0, scene.masks > 0.5)


def box_iou(observation: Observation, scene: Clip) -> float:
    """Mean overlap of each object's box with its drawn box, over the frames where it was drawn."""
    overlaps = []
    for observed, mask in zip(_observed_masks(observation, scene), scene.object_masks, strict=True):
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


def depth_error(observation: Observation, scene: Clip) -> float:
    """Mean absolute difference between the depth drawn and that of the seen objects at their nearness."""
    nearness = [track.nearness for track in scene.objects]
    return (depth_map(nearness, _observed_masks(observation, scene)) - scene.depth).abs().mean().item()


def flow_error_px(observation: Observation, scene: Clip) -> float:
    """Mean distance between seen and drawn motion of the objects' centers, in pixels a frame.

    A requested object that is not seen counts as standing still.
    """
    side, errors = scene.frames.shape[1], []
    for n, slot in match_objects(observation, scene).items():
        target = scene.objects[n].centers
        target = target[FLOW_STRIDE:] - target[:-FLOW_STRIDE]
        there = (
            side * observation.positions[:, slot]
            if slot is not None
            else torch.zeros_like(scene.objects[n].centers)
        )
        errors.append((there[FLOW_STRIDE:] - there[:-FLOW_STRIDE] - target).norm(dim=-1).mean() / FLOW_STRIDE)
    return float(sum(errors) / len(errors)) if errors else 0.0


def bounded_psnr(one: Tensor, other: Tensor) -> float:
    """PSNR in dB of values in [0, 1], at most `MAX_PSNR`, so that equal clips do not rule a mean."""
    return min(psnr((one - other).square().mean()).item(), MAX_PSNR)


def kept_psnr(video: Tensor, unit: vcu.VCU) -> float | None:
    """PSNR over the unit's kept pixels.

    Args:
        video: [F, H, W, 3] float in [0, 1].
        unit: The task's unit.

    Returns:
        dB, or None if nothing is kept.
    """
    keep = unit.masks <= 0.5
    return bounded_psnr(video[keep], unit.frames[keep]) if bool(keep.any()) else None


def gray_psnr(video: Tensor, scene: Clip) -> float:
    """PSNR in dB between the luma of a video and that of the drawn clip."""
    return bounded_psnr(video @ torch.tensor(LUMA), scene.frames @ torch.tensor(LUMA))


def smoothness_db(video: Tensor) -> float:
    """Temporal smoothness: PSNR between each frame and its neighbors' mean; low values flicker.

    Args:
        video: [F, H, W, 3] float in [0, 1], at least 3 frames.
    """
    return bounded_psnr(video[1:-1], (video[:-2] + video[2:]) / 2)


def control_scores(signals: tuple[str, ...], observation: Observation, scene: Clip) -> dict[str, float]:
    """Scores of a unit's signals.

    Args:
        signals: As `tiny.tasks.Task.tells`: 'depth', 'masks', 'boxes', 'flow', ..; others are ignored.
        observation: One clip's observation.
        scene: The expected clip.
    """
    scores = {}
    if {"depth", "masks", "lines", "gray", "pose"} & set(signals):
        scores["object_iou"] = object_iou(observation, scene)
    if {"boxes", "masks", "depth"} & set(signals):
        scores["box_iou"] = box_iou(observation, scene)
    if "depth" in signals:
        scores["depth_error"] = depth_error(observation, scene)
    if {"flow", "depth"} & set(signals):
        scores["flow_error_px"] = flow_error_px(observation, scene)
    return scores
