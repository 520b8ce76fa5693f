"""Builders for what guides a new video: text, controls and depth. Each returns a VCU.

Shape letters: F pixel frames, H W pixels. Inputs that do not fit are snapped, and the VCU's notes say how.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..choices import NORMALIZATIONS
from ..memory import RGB
from ..scratch import converted, empty, joined
from ..signals.depth import normalize_depth, single_channel
from .canvas import (
    as_clip,
    find_bright_lines,
    find_flat,
    rounded_length,
    rounding_named,
    target_length,
    target_size,
)
from .checks import as_tensor, check_volume, described, flag, whole
from .masks import as_mask, find_lost, fit_mask
from .scaling import fit_into, fit_notes
from .span import Moment, guided_span
from .unit import GRAY, VAE_STRIDE, VCU, built, full_mask, gray_frames

LEAST_RANGE = 0.8
"""Of a frame's depth, as a part of the largest: a smaller one changes visibly where frames are stretched."""


def text(width: int, height: int, num_frames: int) -> VCU:
    """Nothing but the prompt: every frame gray, everything to be generated.

    Args:
        width, height: size in pixels, snapped down to multiples of 16.
        num_frames: length, snapped down to 4n+1.
    """
    width, height, num_frames, notes = canvas_of(width, height, num_frames)
    return built(
        gray_frames(num_frames, height, width),
        full_mask(num_frames, height, width),
        kind="generate",
        notes=notes,
    )


def control(
    frames: Tensor,
    *,
    width: int | None = None,
    height: int | None = None,
    num_frames: int | None = None,
    region: Tensor | None = None,
    strength: float | Sequence[float] = 1.0,
    start: Moment = None,
    end: Moment = None,
    name: str = "frames",
) -> VCU:
    """Let a control clip guide the video: depth, pose, optical flow, gray, scribble, or boxes already drawn.

    Args:
        frames: [F, H, W, 3] float in [0, 1], drawn as VACE's annotators draw it.
        width, height: canvas; None = the clip's own size. Snapped to multiples of 16, the clip covers it.
        num_frames: length; None = the clip's own. A clip that is shorter guides the start: its last frame is
            held to the end of its latent frame, the rest is left free.
        region: [F, H, W], [1, H, W] or [H, W], 1 where this control applies; gray elsewhere. None =
            everywhere.
        strength: scale of its context; see `VCU`.
        start, end: the span it guides, as frame numbers (integers; `end` is the first frame that is free
            again) or shares of the video (floats); None = from the first, to the last. Outside, the frames
            are gray, as in training where nothing guides them; `strength` instead would weaken everything
            else in the unit, references included. The span is rounded to latent frames, and controls whose
            spans meet can be composed.
        name: what to call the clip in messages.
    Raises:
        ValueError: a shape, dtype or range is wrong.
    """
    clip, notes = as_clip(frames, name)
    notes += find_flat(clip, name) or find_bright_lines(clip, name)
    source = clip.shape[2], clip.shape[1]
    if region is not None:
        region, more = as_mask(
            region, clip.shape[0], source[1], source[0], "region", owner=f"the clip in {name}"
        )
        notes += more
    width, height, more = target_size(source, width, height)
    length = target_length(clip.shape[0], num_frames, "control")
    with rounding_named(length.notes):
        first, last, span_notes = guided_span(start, end, length.total)
    notes += [*more, *length.notes, *span_notes]
    span = (first, last) if (first, last) != (0, length.total) else None
    changes = span or region is not None or length.used < length.total or (width, height) != source
    check_volume(length.total, width, height, RGB if changes else 0)
    clip = clip[: length.used]
    fitted = fit_notes(clip, width, height, "control")
    if changes:
        clip = _guiding(clip, width, height, length.total)
    if region is not None:
        region, more = _fitted_region(region[: length.used], width, height, length.total)
        notes += more
        for frame, guided in zip(clip, region, strict=True):
            frame.masked_fill_(guided[..., None] == 0, GRAY)
    if span:
        clip[:first], clip[last:] = GRAY, GRAY
        region = _within(region, *span, clip)
    return built(
        clip,
        full_mask(length.total, height, width, clip.device),
        kind="control",
        region=region,
        strength=strength,
        notes=notes + fitted,
    )


def depth(
    depth: Tensor,
    *,
    normalization: str = "frame",
    invert: bool = False,
    width: int | None = None,
    height: int | None = None,
    num_frames: int | None = None,
    region: Tensor | None = None,
    strength: float | Sequence[float] = 1.0,
    start: Moment = None,
    end: Moment = None,
) -> VCU:
    """Let depth guide the video, from any estimator's output.

    Args:
        depth: [F, H, W], [F, H, W, 1] or gray [F, H, W, 3], or with alpha; any finite numbers, larger =
            nearer.
        normalization: 'frame' stretches each frame to 0..1 (as VACE was trained), 'clip' the entire clip
            at once, 'stable' also undoes the flicker of estimators that look at one frame at a time (see
            `signals.normalize_depth`), 'none' takes values in [0, 1] as they are.
        invert: the input is distance (larger = farther); turn it over, so that near is bright.
        width, height, num_frames, region, strength, start, end: as in `control`.
    Raises:
        ValueError: the values are not finite, a color map was applied, or 'none' is given values outside [0,
            1].
    """
    if not isinstance(normalization, str) or normalization not in NORMALIZATIONS:
        raise ValueError(
            f"normalization is {described(normalization)}, expected one of {', '.join(NORMALIZATIONS)}"
        )
    invert = flag("invert", invert)
    values = as_tensor(depth, "depth", "[F, H, W] float")
    values = values.float() / 255 if values.dtype == torch.uint8 else values
    values = values[None] if values.ndim == 2 else values
    has_alpha = values.ndim == 4 and values.shape[-1] == 4
    values = values[..., :3] if has_alpha else values
    notes = ["depth: alpha channel ignored"] * has_alpha
    if normalization == "none":
        values = single_channel(values).float()
        if values.amin() < 0 or values.amax() > 1:
            raise ValueError(
                f"depth ranges from {values.amin():.4g} to {values.amax():.4g}; "
                "normalization 'none' needs [0, 1], use 'frame', 'clip' or 'stable'"
            )
        values = converted(values, lambda part: 1 - part) if invert else values
        frames = values[..., None].expand(*values.shape, 3)
    else:
        direction = "depth" if invert else "disparity"
        frames = normalize_depth(values, mode=normalization, values=direction, percentiles=(0, 100))
        notes += _find_uneven(values) if normalization == "frame" else []
    unit = control(
        frames,
        width=width,
        height=height,
        num_frames=num_frames,
        region=region,
        strength=strength,
        start=start,
        end=end,
        name="depth",
    )
    return unit.replace(notes=(*notes, *unit.notes)) if notes else unit


def _find_uneven(values: Tensor) -> list[str]:
    """A note where depth [F, H, W] or [F, H, W, C] has one range for the clip, which 'frame' takes away."""
    extremes = [frame.aminmax() for frame in values]
    ranges = [float(extreme.max - extreme.min) for extreme in extremes]
    share = min(ranges) / max(ranges) if max(ranges) > 0 else 1.0
    if share >= LEAST_RANGE:
        return []
    return [
        f"depth: frames have between {share:.0%} and 100% of the clip's range, and 'frame' stretches each to "
        "all of it; for depth that is steady over the clip choose clip, or none behind VDOT Normalize Depth"
    ]


def _guiding(clip: Tensor, width: int, height: int, total: int) -> Tensor:
    """A new clip: the control on its canvas, its last frame held to its latent frame's end, then gray."""
    out, _ = fit_into(clip, width, height, total)
    used = len(clip)
    whole_chunks = -(-(used - 1) // VAE_STRIDE[0]) * VAE_STRIDE[0] + 1
    out[used : min(total, whole_chunks)] = out[used - 1]
    return out


def _fitted_region(region: Tensor, width: int, height: int, total: int) -> tuple[Tensor, list[str]]:
    """A region fitted as its control, held to the video's end, and notes on what is lost."""
    source_region, region = region, fit_mask(region, width, height)
    notes = find_lost(source_region, region, "region")
    if region.amax() == 0:
        notes.append("region is empty (nothing over 0.5): the control guides nothing")
    if len(region) < total:
        region = joined([region, region[-1:].expand(total - len(region), height, width)])
    return region, notes


def _within(region: Tensor | None, first: int, last: int, clip: Tensor) -> Tensor:
    """The region without the frames before `first` and from `last` on."""
    guided = clip.new_zeros(len(clip), 1, 1)
    guided[first:last] = 1.0
    guided = guided.expand(clip.shape[:3])
    if region is None:
        return guided
    return torch.mul(region, guided, out=empty(region.shape, region.device))


def canvas_of(width: int, height: int, num_frames: int) -> tuple[int, int, int, list[str]]:
    """Size and length snapped to what the model takes, and notes."""
    size = whole("width", width), whole("height", height)
    width, height, notes = target_size(size, *size)
    length, more = rounded_length(num_frames)
    check_volume(length, width, height)
    return width, height, length, notes + more
