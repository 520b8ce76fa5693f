"""Depth as VACE reads it: gray, near = bright; and how much it flickers.

VACE's annotators (ali-vilab/VACE, vace/annotators/depth.py) stretch each frame's disparity to its own minimum
and maximum. Estimators give each frame up to an unknown scale and shift, and a frame's extremes jump with its
content, so that a still wall changes brightness from frame to frame; "clip" and "stable" keep it still.

Shape letters: F frames, H W pixels.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..memory import MASK, RGB
from ..progress import steps
from ..scratch import converted, empty, extremes
from ..text import counted, shown
from .frames import check_floats, check_result
from .gray import luma

SAMPLES_PER_FRAME = 16384  # enough for percentiles and scale-shift fits at any resolution
FIT_ROUNDS = 4  # concentration steps of the trimmed fit; it settles in two or three
FIT_LAYERS = 4  # depth layers; each keeps its better half, so that a flat sky alone cannot decide the scale
CUT_CORRELATION = 0.6  # consecutive frames of one shot correlate above 0.9; below this it is another shot
COLORED = 0.05  # mean spread of the channels, relative to the clip's range, above which a map is in colors
FLAT = 1e-6  # a range this small, relative to the clip's, carries no depth


def normalize_depth(
    depth: Tensor,
    *,
    mode: Literal["frame", "clip", "stable"] = "frame",
    values: Literal["disparity", "depth", "metric"] = "disparity",
    percentiles: tuple[float, float] = (1.0, 99.0),
    window: float = 6.0,
) -> Tensor:
    """Turn any estimator's depth into the gray video VACE reads: near = bright.

    Args:
        depth: [F, H, W], [F, H, W, 1] or gray [F, H, W, 3] float, any range.
        mode: "frame": each frame's minimum to maximum, as VACE's annotator; "clip": the clip's percentiles,
            for estimators that are consistent over time; "stable": each frame is fitted to its predecessor by
            the scale and shift that most pixels agree on, then the range follows percentiles smoothed over
            time (restarted at cuts).
        values: "disparity": near is large already; "depth": near is small, flipped; "metric": positive
            distances, turned into 1 / distance, which is what the annotators' estimators give up to scale and
            shift.
        percentiles: the (low, high) that become black and white, in per cent; not used by "frame".
        window: sigma in frames of the smoothing in "stable".

    Returns:
        [F, H, W, 3] float32 in [0, 1], three equal channels; a frame without any relief becomes black.

    Raises:
        ValueError: wrong shape, colors instead of gray, NaN, distances that are not positive, a bad
        parameter.
    """
    _check_parameters(mode, values, percentiles, window)
    near = single_channel(depth)
    check_result(near.shape, RGB + MASK)
    near = _near_is_large(near, values)
    if mode == "frame":
        ranges = torch.stack([near.amin((1, 2)), near.amax((1, 2))], dim=1).double()
        fits = torch.tensor([[1.0, 0.0]], dtype=torch.float64).repeat(len(near), 1)
    elif mode == "clip":
        low, high = np.percentile(_samples(near).numpy(), percentiles)
        ranges = torch.tensor([[low, high]], dtype=torch.float64).repeat(len(near), 1)
        fits = torch.tensor([[1.0, 0.0]], dtype=torch.float64).repeat(len(near), 1)
    else:
        fits, ranges = _stable_ranges(_samples(near), percentiles, window)
    return _stretch(near, fits, ranges.to(fits))


def flicker(video: Tensor, *, guide: Tensor | None = None, tolerance: float = 0.01) -> float:
    """Measure the flicker of a depth video's static pixels, relative to its contrast.

    For each pair of frames, the mean absolute change over the static pixels, divided by the clip's contrast
    (its 1st to 99th percentile), averaged over the pairs. A pixel is static where the guide's luma changes by
    at most `tolerance`; without a guide, where one scale and shift of the frame explain the change best
    (the better half of each depth layer). Multiplying the video by a number or adding one changes nothing, so
    values before and after compare.

    Args:
        video: [F, H, W], [F, H, W, 1] or gray [F, H, W, 3] float, any range.
        guide: the clip the depth was made of, [F, H, W, 3] float in [0, 1], same size.
        tolerance: see above.

    Returns:
        0 for a still video; 0.01 means that a still wall moves by 1 % of the contrast each frame.

    Raises:
        ValueError: wrong shapes, NaN, or a guide of another size.
    """
    values = single_channel(video)
    if guide is not None and tuple(guide.shape) != (*values.shape, 3):
        raise ValueError(
            f"guide has shape {list(guide.shape)}, the depth {list(video.shape)}; give both the same size"
        )
    samples = _samples(values).double()
    lights = _samples(luma(guide.float())) if guide is not None else None
    low, high = np.percentile(samples.numpy(), (1, 99))
    if high - low <= FLAT * max(abs(low), abs(high), FLAT):
        return 0.0
    changes = []
    for index in steps(range(1, len(samples))):
        before, after = samples[index - 1], samples[index]
        if lights is not None:
            static = (lights[index] - lights[index - 1]).abs() <= tolerance
        else:
            static = _fit(after, before).static
        if static.any():
            changes.append(float((after - before)[static].abs().mean()))
    return float(np.mean(changes) / (high - low)) if changes else 0.0


def cut_frames(depth: Tensor) -> list[int]:
    """Indices of frames that begin another shot, as "stable" sees them.

    Args:
        depth: as for `normalize_depth`.

    Returns:
        Frame indices above 0, ascending.
    """
    samples = _samples(single_channel(depth)).double()
    return [
        i for i in range(1, len(samples)) if _fit(samples[i], samples[i - 1]).correlation < CUT_CORRELATION
    ]


def _check_parameters(mode: str, values: str, percentiles: tuple[float, float], window: float) -> None:
    if mode not in ("frame", "clip", "stable"):
        raise ValueError(f"mode is '{shown(mode, 60)}'; choose 'frame', 'clip' or 'stable'")
    if values not in ("disparity", "depth", "metric"):
        raise ValueError(f"values is '{shown(values, 60)}'; choose 'disparity', 'depth' or 'metric'")
    low, high = percentiles
    if not 0 <= low < high <= 100:
        raise ValueError(f"percentiles are {low} and {high}; give 0 <= low < high <= 100")
    if not 0 < window < float("inf"):
        raise ValueError(f"window is {window}; give a number of frames above 0")


def single_channel(depth: Tensor) -> Tensor:
    """Check a depth clip of any accepted layout and bring it to [F, H, W].

    Args:
        depth: [F, H, W], [F, H, W, 1] or gray [F, H, W, 3] float, any finite range.

    Returns:
        [F, H, W] of the same dtype.

    Raises:
        ValueError: wrong shape or dtype, colors instead of gray, NaN or infinity.
    """
    check_floats(depth, "depth", "[F, H, W], [F, H, W, 1] or [F, H, W, 3]")
    shape = list(depth.shape)
    if depth.ndim not in (3, 4):
        raise ValueError(f"depth has shape {shape}; give [F, H, W], [F, H, W, 1] or gray [F, H, W, 3]")
    if depth.ndim == 4 and shape[-1] not in (1, 3):
        raise ValueError(
            f"depth has {counted(shape[-1], 'channel')}, expected 1, or 3 alike, without alpha; look at the "
            "node that made it"
        )
    if 0 in shape:
        raise ValueError(f"depth has shape {shape}: it is empty; give at least one frame with pixels")
    low, high = extremes(depth)
    if not (low > float("-inf") and high < float("inf")):
        raise ValueError(
            "depth has NaN or infinite values; fill them (for instance with the farthest depth) first"
        )
    if depth.ndim == 3:
        return depth
    gray = depth[..., 0]
    if shape[-1] == 3:
        # The mean: a compressed video's stray colored pixels are no heat map.
        color = [float(_spread(frame).mean()) for frame in depth]
        if max(color) > COLORED * max(high - low, FLAT):
            raise ValueError(
                "depth is in colors (a heat map), which have no order; give the estimator's gray output"
            )
        if max(color) > 0:
            gray = _mean(depth)
    return gray


def _mean(depth: Tensor) -> Tensor:
    """[F, H, W], the mean of the channels [F, H, W, 3]."""
    if depth.dtype != torch.float32:
        return depth.mean(-1)
    out = empty(depth.shape[:3], depth.device)
    for place, frame in zip(out, depth, strict=True):
        place.copy_(frame.mean(-1))
    return out


def _spread(frame: Tensor) -> Tensor:
    """[H, W]: the largest of three channels less the smallest; several times as fast as `amax` and `amin`."""
    red, green, blue = frame.unbind(-1)
    largest = torch.maximum(torch.maximum(red, green), blue)
    return largest - torch.minimum(torch.minimum(red, green), blue)


def _near_is_large(depth: Tensor, values: str) -> Tensor:
    """Disparity-like float32: nearer is larger."""
    depth = depth.float()
    if values == "disparity":
        return depth
    if values == "depth":
        return converted(depth, torch.neg)
    lowest = extremes(depth)[0]
    if lowest <= 0:
        raise ValueError(
            f"metric depth has the value {lowest:g}; distances must be above 0: set values to depth for maps "
            "that are not metric"
        )
    return converted(depth, torch.reciprocal)


def _samples(values: Tensor) -> Tensor:
    """[F, H, W] -> [F, N] on the CPU: an even grid of at most about SAMPLES_PER_FRAME pixels."""
    step = max(1, int((values.shape[1] * values.shape[2] / SAMPLES_PER_FRAME) ** 0.5))
    return values[:, ::step, ::step].flatten(1).float().cpu()


@dataclass(frozen=True)
class _Fit:
    """target is about scale * source + shift on the static half of the pixels."""

    scale: float
    shift: float
    static: Tensor  # [N] bool
    correlation: float  # over all pixels


def _fit(source: Tensor, target: Tensor) -> _Fit:
    """Least trimmed squares: fit, keep the better half of each depth layer, fit again."""
    layers = torch.tensor_split(source.argsort(), FIT_LAYERS)
    scale, shift, correlation = _line(source, target)
    static = torch.ones_like(source, dtype=torch.bool)
    for _ in range(FIT_ROUNDS):
        residual = (scale * source + shift - target).abs()
        for layer in layers:
            if len(layer):
                static[layer] = residual[layer] <= residual[layer].median()
        scale, shift, _ = _line(source[static], target[static])
    return _Fit(scale, shift, static, correlation)


def _line(source: Tensor, target: Tensor) -> tuple[float, float, float]:
    """Scale (ratio of spreads: least squares would shrink it with noise), shift and correlation."""
    centered, goal = source - source.mean(), target - target.mean()
    spread, goal_spread = float(centered.square().mean().sqrt()), float(goal.square().mean().sqrt())
    floor = FLAT * float(source.abs().max() + target.abs().max())
    if (
        min(spread, goal_spread) <= floor
    ):  # a flat frame has no scale: shift it only; two flat frames are one shot
        return 1.0, float(target.mean() - source.mean()), 1.0 if max(spread, goal_spread) <= floor else 0.0
    scale = goal_spread / spread
    correlation = float((centered * goal).mean()) / (spread * goal_spread)
    return scale, float(target.mean() - scale * source.mean()), correlation


def _stable_ranges(samples: Tensor, percentiles: tuple[float, float], window: float) -> tuple[Tensor, Tensor]:
    """(scale, shift) [F, 2] of each frame to its shot's first, and smoothed (low, high) [F, 2] after them."""
    samples = samples.double()
    fits = [(1.0, 0.0)]
    shots = [0]
    for index in steps(range(1, len(samples))):
        step = _fit(samples[index], samples[index - 1])
        cut = step.correlation < CUT_CORRELATION
        scale, shift = fits[-1]
        fits.append((1.0, 0.0) if cut else (scale * step.scale, scale * step.shift + shift))
        shots.append(shots[-1] + cut)
    fit = torch.tensor(fits, dtype=torch.float64)
    aligned = samples * fit[:, :1] + fit[:, 1:]
    ranges = torch.from_numpy(np.percentile(aligned.numpy(), percentiles, axis=1).T.copy())
    time = torch.arange(len(samples), dtype=torch.float64)
    shot = torch.tensor(shots)
    weights = torch.exp(-0.5 * ((time[:, None] - time[None]) / window) ** 2) * (shot[:, None] == shot[None])
    return fit, (weights / weights.sum(1, keepdim=True)) @ ranges


def _stretch(near: Tensor, fits: Tensor, ranges: Tensor) -> Tensor:
    """(scale * near + shift - low) / (high - low), clamped, three channels, one frame at a time."""
    out = empty((*near.shape, 3), near.device)
    for index in steps(range(len(near))):
        frame = near[index]
        scale, shift = (float(value) for value in fits[index])
        low, high = (float(value) for value in ranges[index])
        if high - low <= FLAT * max(abs(low), abs(high), 1e-30):
            out[index] = 0
            continue
        stretched = (frame.double() * scale + (shift - low)) / (high - low)
        out[index] = stretched.clamp(0, 1).float().unsqueeze(-1)
    return out
