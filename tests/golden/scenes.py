"""Synthetic clips and the units made of them: integers divided once, so that all machines draw the same.

Shape letters: F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .subjects import vcu

F, H, W = 5, 32, 48


def clip(num_frames: int = F, height: int = H, width: int = W, seed: int = 0) -> Tensor:
    """[F, H, W, 3] in [0, 1]: a ramp that drifts, and a square that moves over it."""
    f, y, x, c = (torch.arange(n) for n in (num_frames, height, width, 3))
    f, y, x = f[:, None, None, None], y[:, None, None], x[:, None]
    values = (x * (3 + seed) + y * 5 + f * 7 + c * 40 + 31 * seed) % 256
    left, top = 4 + 3 * f, 6 + f + seed
    square = (x >= left) & (x < left + 12) & (y >= top) & (y < top + 10)
    return torch.where(square, 255 - 60 * c, values).float() / 255


def mask(num_frames: int = F, height: int = H, width: int = W) -> Tensor:
    """[F, H, W] of 0 and 1: a box that moves right."""
    f, y, x = torch.arange(num_frames)[:, None, None], torch.arange(height)[:, None], torch.arange(width)
    return ((x >= 8 + 2 * f) & (x < 26 + 2 * f) & (y >= 7) & (y < 23)).float()


def image(seed: int = 5) -> Tensor:
    """[H, W, 3] in [0, 1], of another shape than the clip."""
    return clip(1, 40, 24, seed)[0]


def _reference(height: int = H, width: int = W, num_frames: int = F, seed: int = 5) -> vcu.VCU:
    return vcu.reference([image(seed)], width=width, height=height, num_frames=num_frames)


def _layout(**more) -> vcu.VCU:
    boxes = [{0: (4, 4, 20, 20), -1: (24, 10, 44, 28)}, {0: (30, 2, 40, 12)}]
    colors = [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0)]
    return vcu.layout(boxes, width=W, height=H, num_frames=F, colors=colors, **more)


def _in_region() -> vcu.VCU:
    """A control inside a region, of a clip that continues."""
    control = vcu.control(clip(seed=2), region=mask())
    return vcu.compose(vcu.extend(clip()[:2], num_frames=F), control, _reference())


def _several() -> Sequence[vcu.VCU]:
    """Contexts with a strength each, one of them a curve; two references, one shared."""
    curve = vcu.strength_curve({0: 1.0, -1: 0.25}, F)
    first = vcu.compose(vcu.depth(clip()[..., 0], strength=0.75), _reference())
    second = vcu.compose(_layout(strength=curve), _reference(), _reference(seed=7))
    return first, second, vcu.inpaint(clip(), mask(), strength=0.5)


UNITS: dict[str, Callable[[], vcu.VCU | Sequence[vcu.VCU]]] = {
    "inpaint and reference": lambda: vcu.compose(vcu.inpaint(clip(), mask()), _reference()),
    "inpaint, resized, mask grown": lambda: vcu.inpaint(
        clip(7, 50, 70), mask(7, 50, 70), width=W, height=H, num_frames=F, mask_shape="hull", grow_px=2
    ),
    "depth": lambda: vcu.depth(clip()[..., 1] * 3 - 1, invert=True),
    "layout": _layout,
    "outpaint": lambda: vcu.outpaint(clip(F, 32, 32), left=16, feather_px=2),
    "extend": lambda: vcu.extend(clip()[:2], clip(seed=1)[-1:], num_frames=F),
    "keyframes": lambda: vcu.keyframes([image(1), image(2)], [1, -1], num_frames=F, width=W, height=H),
    "compose of two and a reference": _in_region,
    "three contexts of different strength": _several,
    "text": lambda: vcu.text(W, H, F),
}


def sampler_unit() -> vcu.VCU:
    """For latents of T = 3, h = w = 8, the reference's frame included."""
    reference = _reference(64, 64)
    return vcu.compose(vcu.inpaint(clip(F, 64, 64), mask(F, 64, 64)), reference)
