"""Keeps the colors of a long video: each chunk is brought to the frames that it shares with the one before.

The overlap exists twice, as the finished chunk shows it and as the next chunk generated it again. Both show
the same moment, so that what differs in color, contrast or sharpness is the error of the model and the VAE,
not a change of the scene. The same error is taken out of the frames behind the overlap. Every chunk is
measured against the corrected one before it: errors do not add up. In latents this takes out the model's
error, in pixels also that of the VAE, through which the overlap goes once more with every chunk. What is left
after the correction says how well the model repeated the overlap: where parts of the picture disagree, it is
no measurement, and little is corrected.

Shape letters: C channels, T latent frames, h w latents, F pixel frames, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...memory import chunk_length

MAX_SHIFT = 0.1
"""Most that a mean color is moved per chunk, of a range of 1: an ignored overlap is no measurement."""
MAX_GAIN = 1.25
"""Most that a contrast is changed per chunk, either way."""
MIN_PIXELS, MIN_LATENTS = 64, 16
"""Fewer generated pixels or latents in the overlap say nothing about its colors."""
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
TRUSTED, TRUSTED_RATIO, POWER = 3 / 255, 2.2, 4
"""Disagreement of the picture's parts at which half of a correction is applied: of colors, after it; of
latents, against the shift. A model that does not repeat the overlap has no error of color to be measured."""
NUM_PARTS = 8
"""Parts of a picture along each side."""
NUM_COPIES = 16
"""About as many copies of a frame are needed at one time."""
_EPSILON = 1e-4


def matched(latents: Tensor, overlap: Tensor, generated: Tensor) -> Tensor:
    """A chunk's latents with the means of the overlap that it was given, by channel.

    Args:
        latents: [1, C, T, h, w] of the chunk.
        overlap: [1, C, T', h, w], the encoded overlap: what the first T' frames should be.
        generated: [T, h, w] bool, the latents that may change.
    """
    count = overlap.shape[2]
    inside = generated[:count].to(latents.device)
    if int(inside.sum()) < MIN_LATENTS:
        return latents
    difference = (overlap.to(latents) - latents[:, :, :count])[0].float()
    shift = difference[:, inside].mean(1)
    spread = _by_part(difference, inside).std(1, correction=0)
    shift *= _trust(spread.norm() / shift.norm().clamp(min=_EPSILON), TRUSTED_RATIO)
    moved = (latents.float() + shift.view(-1, 1, 1, 1)).to(latents.dtype)
    return torch.where(generated.to(latents.device), moved, latents)


@dataclass(frozen=True, eq=False)
class Correction:
    """What brings generated colors back to the known ones, per color channel, [3] each.

    Args:
        own, known: mean of the overlap as generated, and as it should be.
        contrast, detail: factors of the smooth part's distance from the mean, and of the fine detail.
    """

    own: Tensor
    known: Tensor
    contrast: Tensor
    detail: Tensor


def measure(own: Tensor, known: Tensor, generated: Tensor) -> Correction | None:
    """Compare the overlap as generated with the overlap as it should be.

    Args:
        own, known: [F, H, W, 3] float in [0, 1]. The first frame only counts where there is no other: alone
            in its latent, it is decoded without a past.
        generated: [F, H, W] bool, the pixels to compare.
    Returns:
        None where too few pixels are generated to tell.
    """
    if len(own) > 1:
        own, known, generated = own[1:], known[1:], generated[1:]
    if int(generated.sum()) < MIN_PIXELS:
        return None
    (mean, *spread), (target, *wanted) = _statistics(own, generated), _statistics(known, generated)
    shift = (target - mean).clamp(-MAX_SHIFT, MAX_SHIFT)
    gains = [(b / a).clamp(1 / MAX_GAIN, MAX_GAIN) for a, b in zip(spread, wanted, strict=True)]
    correction = Correction(mean, mean + shift, *gains)
    rest = (known - corrected(own, correction, generated)).movedim(-1, 0)
    trust = _trust(_by_part(rest, generated).std(1, correction=0).mean(), TRUSTED)
    return Correction(mean, mean + trust * shift, *(1 + trust * (gain - 1) for gain in gains))


def corrected(frames: Tensor, correction: Correction, generated: Tensor) -> Tensor:
    """Frames [F, H, W, 3] with the correction, limited to [0, 1]; only generated pixels [F, H, W] change."""
    out = torch.empty_like(frames)
    for place, part, mask in zip(*(_parts(clip) for clip in (out, frames, generated)), strict=True):
        smooth = _smooth(part)
        base = (smooth - correction.own) * correction.contrast + correction.known
        moved = (base + (part - smooth) * correction.detail).clamp(0, 1)
        place.copy_(torch.where(mask[..., None], moved, part))
    return out


def fade(before: Tensor, after: Tensor, dim: int) -> Tensor:
    """The second of two equal stretches fades in over the first, evenly along a dimension."""
    count = before.shape[dim]
    weight = torch.arange(1, count + 1, device=after.device, dtype=torch.float32) / (count + 1)
    shape = [1] * after.ndim
    shape[dim] = count
    return torch.lerp(before.to(after), after, weight.view(shape).to(after.dtype))


def _by_part(difference: Tensor, mask: Tensor) -> Tensor:
    """Means [C, P] of [C, F, H, W] in the parts of the picture, where a mask [F, H, W] is."""
    weight, total = mask.float().sum(0)[None], (difference * mask).sum(1)
    weight, total = (F.adaptive_avg_pool2d(values, NUM_PARTS) for values in (weight, total))
    return (total / weight.clamp(min=_EPSILON))[:, weight[0] > 0]


def _trust(disagreement: Tensor, limit: float) -> float:
    """Part of a correction to apply, 0 to 1: half where the parts of the picture disagree by the limit."""
    return float(1 / (1 + (disagreement / limit) ** POWER))


def _statistics(clip: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean color, and standard deviations of the smooth part and of the detail, in a mask; [3] each."""
    pivot = clip.mean((0, 1, 2))  # near the mean, so that squares lose no digits
    total = clip.new_zeros(4, 3)
    for part, inside in zip(_parts(clip), _parts(mask), strict=True):
        smooth = _smooth(part)
        values = smooth[inside] - pivot, (part - smooth)[inside]
        total += torch.stack([value.pow(power).sum(0) for power in (1, 2) for value in values])
    smooth, detail, *squares = total / mask.sum()
    spreads = (
        (square - mean**2).clamp(min=0).sqrt().clamp(min=_EPSILON)
        for square, mean in zip(squares, (smooth, detail), strict=True)
    )
    return smooth + detail + pivot, *spreads


def _parts(clip: Tensor) -> tuple[Tensor, ...]:
    """A clip's or mask's frames, as many at a time as temporary copies should take."""
    pixels = NUM_COPIES * clip.shape[1] * clip.shape[2]
    return clip.split(chunk_length(pixels, len(clip)))


def _smooth(clip: Tensor) -> Tensor:
    """Frames [F, H, W, 3] without their finest detail: the binomial filter of five pixels."""
    image = F.pad(clip.movedim(-1, 1), (2, 2, 2, 2), mode="replicate")
    return _filtered(_filtered(image, 3), 2).movedim(1, -1)


def _filtered(image: Tensor, dim: int) -> Tensor:
    """The filter along a dimension: a convolution by channel is ten times slower where channels lie apart."""
    size = image.shape[dim] - len(BINOMIAL) + 1
    out = BINOMIAL[0] * image.narrow(dim, 0, size)
    for place, weight in enumerate(BINOMIAL[1:], 1):
        out.add_(image.narrow(dim, place, size), alpha=weight)
    return out
