"""The scribble control: a soft line drawing of a clip, from thinned gradients.

Sobel gradients are thinned to their ridges (Canny without its hysteresis, whose connected components make
entire lines flicker), compared with one threshold for the clip, and drawn with a pen of some width.

Shape letters: f frames of a chunk, H W pixels.
"""

import math

import torch
from torch import Tensor

from .frames import check_frames, map_chunks, spread
from .gray import luma

CHUNK = 2
FLAT_SQUARED = 1e-6  # added to a gradient's square, so that a flat pixel is no crest
# Of each direction of a gradient: the step (y, x) ahead, and whether a pixel as strong as the one ahead is a
# crest, so that a step between two pixels has one (OpenCV's rule).
DIRECTIONS = (((0, 1), True), ((1, 1), False), ((1, 0), True), ((1, -1), False))
STATISTICS_FRAMES = 16
REFERENCE_QUANTILE = 0.95  # of the ridges' strength: the clip's "strong line", threshold 1
FLAT_RIDGE = (
    0.02  # gradients below half an 8-bit step a pixel are coding noise; they never become the strong line
)


def draw_lines(
    frames: Tensor,
    *,
    threshold: float = 0.25,
    thickness: float = 1.5,
    softness: float = 0.5,
    blur: float = 1.4,
    dark_on_white: bool = True,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw the contours of a clip.

    Args:
        frames: [F, H, W, 3] float in [0, 1].
        threshold: in (0, 1]: how strong an edge must be to be drawn, relative to the clip's strong edges (the
            95th percentile over frames spread across the clip). One threshold for the clip, so that
            lines do not flicker with each frame's content.
        thickness: width of the pen in pixels, at least 1.
        softness: in [0, 1]: 0 draws every line at full strength, 1 lets weak edges fade in from nothing.
        blur: sigma in pixels of the smoothing before gradients; larger gives fewer, simpler lines.
        dark_on_white: dark lines on white, as VACE's scribble annotator gives its network's drawing
            (vace/annotators/scribble.py); False draws bright lines on black.
        device: where to compute; the clip's own when None.

    Returns:
        [F, H, W, 3] float32 in [0, 1], three equal channels, on the clip's device.

    Raises:
        ValueError: not a clip in [0, 1], or a parameter out of its range.
    """
    check_frames(frames)
    _check_parameters(threshold, thickness, softness, blur)
    level = threshold * _strong_ridge(frames, blur, device)
    low, high = level * (1 - softness), level * (1 + softness)

    def draw(chunk: Tensor) -> Tensor:
        ridges = _ridges(chunk, blur)
        strength = ((ridges - low) / max(high - low, 1e-6)).clamp(0, 1)
        ink = _pen(strength * strength * (3 - 2 * strength), thickness)
        return 1 - ink if dark_on_white else ink

    return map_chunks(draw, frames, size=CHUNK, device=device)


def _check_parameters(threshold: float, thickness: float, softness: float, blur: float) -> None:
    if not 0 < threshold <= 1:
        raise ValueError(
            f"threshold is {threshold}; give a number above 0 and up to 1 (0.25 draws most contours)"
        )
    if not 1 <= thickness <= 32:
        raise ValueError(f"thickness is {thickness}; give a width from 1 to 32 pixels")
    if not 0 <= softness <= 1:
        raise ValueError(f"softness is {softness}; give a number from 0 (hard) to 1 (soft)")
    if not 0 < blur <= 16:
        raise ValueError(f"blur is {blur}; give a sigma above 0 and up to 16 pixels")


def _ridges(chunk: Tensor, blur: float) -> Tensor:
    """[f, H, W, 3] -> [f, H, W]: gradient strength on the crest of each edge, 0 elsewhere."""
    from kornia.filters import gaussian_blur2d

    kernel = 2 * math.ceil(3 * blur) + 1
    largest = min(chunk.shape[1:3])  # reflect padding reaches no further than the image
    kernel = min(kernel, largest - (largest + 1) % 2)
    soft = gaussian_blur2d(luma(chunk).unsqueeze(1), kernel, (blur, blur))
    across, down = _sobel(soft[:, 0])
    strength = (across * across + down * down + FLAT_SQUARED).sqrt()
    flat = strength.new_tensor(FLAT_SQUARED).sqrt()
    return strength * (_is_crest(strength, across, down, float(flat)) & (strength > flat))


def _sobel(image: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients along x and y of [f, H, W], borders repeated; added in a convolution's order, but faster."""
    height, width = image.shape[1:]
    padded = torch.nn.functional.pad(image[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    rows = [[padded[:, y : y + height, x : x + width] for x in range(3)] for y in range(3)]
    (a, b, c), (d, _, f), (g, h, i) = rows
    across = (c - a).sub_(d, alpha=2).add_(f, alpha=2).sub_(g).add_(i)
    down = (-a).sub_(b, alpha=2).sub_(c).add_(g).add_(h, alpha=2).add_(i)
    return across, down


def _is_crest(strength: Tensor, across: Tensor, down: Tensor, outside: float) -> Tensor:
    """Pixels whose gradient is stronger than its neighbors' along its direction, all [f, H, W]."""
    height, width = strength.shape[1:]
    padded = torch.nn.functional.pad(strength, (1, 1, 1, 1), value=outside)
    # Eighths of a turn; opposite ones are one direction.
    eighths = torch.nan_to_num(torch.atan2(down, across)).mul_(4 / math.pi).round_()
    direction = eighths.to(torch.int8).bitwise_and_(3)
    crest = torch.zeros_like(strength, dtype=torch.bool)
    for number, ((dy, dx), holds_ties) in enumerate(DIRECTIONS):
        ahead, behind = (
            padded[:, 1 + dy * sign : 1 + dy * sign + height, 1 + dx * sign : 1 + dx * sign + width]
            for sign in (1, -1)
        )
        beats = strength >= ahead if holds_ties else strength > ahead
        crest |= beats.logical_and_(strength > behind).logical_and_(direction == number)
    return crest


def _strong_ridge(frames: Tensor, blur: float, device: torch.device | str | None) -> float:
    """The strength that counts as a strong line in this clip."""
    samples = []
    for index in spread(len(frames), STATISTICS_FRAMES):
        frame = frames[index : index + 1].to(device=device or frames.device, dtype=torch.float32).clamp(0, 1)
        ridges = _ridges(frame, blur)
        strengths = ridges[ridges > FLAT_RIDGE]
        samples.append(strengths[:: max(1, len(strengths) // 65536)].cpu())
    pool = torch.cat(samples)
    return max(float(pool.quantile(REFERENCE_QUANTILE)), FLAT_RIDGE) if len(pool) else 1.0


def _pen(strength: Tensor, thickness: float) -> Tensor:
    """Draw one-pixel lines [f, H, W] with a round, antialiased pen of `thickness` pixels."""
    from kornia.filters import gaussian_blur2d

    sigma = thickness / 2.355  # full width at half maximum
    kernel = 2 * math.ceil(3 * sigma) + 1
    largest = min(strength.shape[1:])
    kernel = min(kernel, largest - (largest + 1) % 2)
    soft = gaussian_blur2d(strength.unsqueeze(1), kernel, (sigma, sigma), border_type="replicate")[:, 0]
    # A straight one-pixel line keeps the kernel's center weight after the blur: divide, so its crest is 1.
    steps = torch.arange(kernel, device=strength.device) - kernel // 2
    weights = torch.exp(-0.5 * (steps / sigma) ** 2)
    return (soft * (weights.sum() / weights.max())).clamp(0, 1)
