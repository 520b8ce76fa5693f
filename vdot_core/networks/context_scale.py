"""How strongly each context is felt: by context, by VACE layer, by latent frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Scale = float | Sequence | Tensor
Weight = float | Tensor


@dataclass(frozen=True)
class ContextScale:
    """Scales by VACE layer and by latent frame, multiplied; says which is which where shapes alone could not.

    Args:
        layers: float, [K], or [K, num_vace_layers].
        frames: float, [K], or [K, T]; T latent frames, reference frames included.
    """

    layers: Scale = 1.0
    frames: Scale = 1.0


def context_weights(
    scale: Scale | ContextScale,
    num_contexts: int,
    num_vace_layers: int,
    grid: tuple[int, int, int],
    device: torch.device,
) -> list[list[Weight]]:
    """Resolve a scale to one weight per VACE layer and context.

    Args:
        scale: float, [K], [K, num_vace_layers], [K, T] (T = grid[0]), or a `ContextScale`.
        num_contexts: K.
        num_vace_layers: VACE blocks of the network.
        grid: tokens along (T, h, w).
        device: of the tokens.

    Returns:
        weights[layer][context]: a float, a scalar tensor, or a float32 tensor [L, 1] over the tokens.

    Raises:
        ValueError: the shape fits none of these, or fits both of the last two.
    """
    if not isinstance(scale, ContextScale):
        scale = _classified(scale, num_contexts, num_vace_layers, grid[0])
    layers = _rows(scale.layers, num_contexts, num_vace_layers, "num_vace_layers", device)
    frames = _rows(scale.frames, num_contexts, grid[0], "latent frames", device)
    tokens = [_per_token(row, grid) for row in frames]
    return [
        [_product(_entry(layers[k], layer), tokens[k]) for k in range(num_contexts)]
        for layer in range(num_vace_layers)
    ]


def _classified(scale: Scale, num_contexts: int, num_layers: int, num_frames: int) -> ContextScale:
    if isinstance(scale, (int, float)):
        return ContextScale(layers=float(scale))
    shape = tuple(_table(scale).shape)
    fits_layers, fits_frames = shape == (num_contexts, num_layers), shape == (num_contexts, num_frames)
    if fits_layers and fits_frames:
        raise ValueError(
            f"context_scale has shape {list(shape)}, and there are as many VACE layers as latent frames "
            f"({num_layers}); say which is meant with ContextScale(layers=...) or ContextScale(frames=...)"
        )
    if fits_frames:
        return ContextScale(frames=scale)
    if fits_layers or shape in ((), (num_contexts,)):
        return ContextScale(layers=scale)
    raise ValueError(
        f"context_scale has shape {list(shape)}; give a number, [{num_contexts}] by context, "
        f"[{num_contexts}, {num_layers}] by VACE layer or [{num_contexts}, {num_frames}] by latent frame"
    )


def _rows(values: Scale, num_contexts: int, size: int, what: str, device: torch.device) -> list[Weight]:
    """One entry per context: a float, a scalar tensor or a tensor [size]."""
    if isinstance(values, (int, float)):
        return [float(values)] * num_contexts
    if not isinstance(values, Tensor):
        values = list(values)
        if len(values) == num_contexts and all(isinstance(value, (int, float)) for value in values):
            return [float(value) for value in values]
    table = _table(values).to(device=device, dtype=torch.float32)
    if table.ndim == 0:
        return [table] * num_contexts
    if table.shape not in ((num_contexts,), (num_contexts, size)):
        raise ValueError(
            f"a context scale by {what} has shape {list(table.shape)}; give a number, [{num_contexts}] or "
            f"[{num_contexts}, {size}]"
        )
    return list(table.unbind(0))


def _table(values: Sequence | Tensor) -> Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"context_scale is {values!r}; give a number, or rows of equal length, one for each context"
        ) from error


def _entry(row: Weight, layer: int) -> Weight:
    return row[layer] if isinstance(row, Tensor) and row.ndim else row


def _per_token(row: Weight, grid: tuple[int, int, int]) -> Weight:
    if not isinstance(row, Tensor) or row.ndim == 0:
        return row
    return row.repeat_interleave(grid[1] * grid[2])[:, None]


def _product(layer: Weight, tokens: Weight) -> Weight:
    if isinstance(tokens, float) and tokens == 1.0:
        return layer
    return tokens if isinstance(layer, float) and layer == 1.0 else layer * tokens


def add_hint(x: Tensor, hint: Tensor, weight: Weight, in_place: bool) -> Tensor:
    """Add a weighted hint to the tokens.

    Args:
        x: [B, L, D] tokens.
        hint: [B, L, D].
        weight: one of `context_weights`.
        in_place: write into x, and spoil hint.

    Returns:
        [B, L, D] of x's dtype.
    """
    if isinstance(weight, float):
        return x.add_(hint, alpha=weight) if in_place else torch.add(x, hint, alpha=weight)
    return x.add_(hint.mul_(weight)) if in_place else x + (hint * weight).to(x.dtype)
