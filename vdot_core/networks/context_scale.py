"""Strength of each context's hints, by VACE layer and by latent frame.

B batch, K contexts, T latent frames, L tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor

from ..text import described

Scale = float | Sequence | Tensor
Weight = float | Tensor


@dataclass(frozen=True)
class ContextScale:
    """Strength of several contexts, or, as an entry of a list with one for each, of a single context.

    The scales by layer and by frame multiply.

    Args:
        layers: float, [K] or [K, num_vace_layers]; of a single context: float or [num_vace_layers].
        frames: float, [K] or [K, T]; of a single context: float or [T]. T counts reference frames.
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
        scale: float, [K], [K, num_vace_layers], [K, T] (T = grid[0]) or a `ContextScale`; or a list of K
            entries of different kinds: a float, a row by VACE layer or by frame, a `ContextScale` of one, or
            a tensor [1 or B, 1 or L, 1 or D] of weights by token.
        num_contexts: K.
        num_vace_layers: VACE blocks of the network.
        grid: tokens along (T, h, w).
        device: of the tokens.

    Returns:
        weights[layer][context]: a float, a scalar tensor, or a float32 tensor to multiply [B, L, D] with.

    Raises:
        ValueError: the shape is none of these, or a row fits both layers and frames.
    """
    entries = [_rows(entry, num_vace_layers, grid[0]) for entry in _by_context(scale, num_contexts)]
    layers = [_to_device(row, device) for row, _ in entries]
    tokens = [_by_token(_to_device(row, device), grid) for _, row in entries]
    return [
        [_product(_of_layer(layers[k], layer), tokens[k]) for k in range(num_contexts)]
        for layer in range(num_vace_layers)
    ]


def _by_context(scale: Scale | ContextScale, num_contexts: int) -> list:
    """One entry per context: a number, a row or a `ContextScale` of these."""
    if isinstance(scale, ContextScale):
        layers, frames = (_by_context(values, num_contexts) for values in (scale.layers, scale.frames))
        return [ContextScale(*pair) for pair in zip(layers, frames, strict=True)]
    if isinstance(scale, (int, float)) or (isinstance(scale, Tensor) and scale.ndim == 0):
        return [scale] * num_contexts
    if isinstance(scale, str) or not hasattr(scale, "__len__"):
        raise ValueError(f"context_scale is {described(scale)}; give a number, or an entry for each context")
    if len(scale) != num_contexts:
        shape = list(getattr(scale, "shape", [len(scale)]))
        raise ValueError(
            f"context_scale has shape {shape}, {len(scale)} entries for {num_contexts} contexts; give one "
            "for each"
        )
    return list(scale)


def _rows(entry: Scale | ContextScale, num_layers: int, num_frames: int) -> tuple[Weight, Weight]:
    """Classify a context's entry: (a number or [num_layers], a number or [num_frames])."""
    if not isinstance(entry, ContextScale):
        row = _row(entry)
        if isinstance(row, Tensor) and row.ndim == 3:
            return 1.0, row
        length = None if isinstance(row, float) or row.ndim != 1 else len(row)
        if length == num_layers == num_frames != 1:
            raise ValueError(
                f"context_scale has a row of [{length}] for a context, and there are as many VACE layers as "
                "latent frames; say which is meant with ContextScale(layers=...) or ContextScale(frames=...)"
            )
        entry = ContextScale(frames=row) if length == num_frames else ContextScale(layers=row)
    rows = _row(entry.layers), _row(entry.frames)
    for row, size in zip(rows, (num_layers, num_frames), strict=True):
        if isinstance(row, Tensor) and row.shape not in ((), (size,)):
            raise ValueError(
                f"the context_scale of a context has shape {list(row.shape)}; give a number, [{num_layers}] "
                f"by VACE layer or [{num_frames}] by latent frame"
            )
    return rows


def _row(values: Scale) -> Weight:
    if isinstance(values, (int, float)):
        return float(values)
    try:
        return torch.as_tensor(values, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"the context_scale of a context is {described(values)}; give a number or a row of numbers"
        ) from error


def _to_device(row: Weight, device: torch.device) -> Weight:
    return row.to(device) if isinstance(row, Tensor) else row


def _of_layer(row: Weight, layer: int) -> Weight:
    return row[layer] if isinstance(row, Tensor) and row.ndim else row


def _by_token(row: Weight, grid: tuple[int, int, int]) -> Weight:
    if not isinstance(row, Tensor) or row.ndim == 0:
        return row
    if row.ndim == 1:
        return repeat(row, "t -> (t hw) 1", hw=grid[1] * grid[2])
    if row.shape[1] not in (1, math.prod(grid)):
        raise ValueError(
            f"the context_scale of a context has shape {list(row.shape)}, there are {math.prod(grid)} "
            "tokens; give [1, L, 1], a weight for each"
        )
    return row


def _product(layer: Weight, tokens: Weight) -> Weight:
    if isinstance(tokens, float) and tokens == 1.0:
        return layer
    return tokens if isinstance(layer, float) and layer == 1.0 else layer * tokens


def add_hints(x: Tensor, hints: Tensor, weights: Sequence[Weight], in_place: bool) -> Tensor:
    """Add the weighted hints of contexts that went through a VACE block together.

    Args:
        x: [B, L, D] the video's tokens.
        hints: [B * K, L, D].
        weights: K of `context_weights`.
        in_place: write into x, and spoil the hints.

    Returns:
        [B, L, D] of x's dtype.
    """
    for hint, weight in zip(rearrange(hints, "(b k) l d -> k b l d", k=len(weights)), weights, strict=True):
        if isinstance(weight, float):
            x = x.add_(hint, alpha=weight) if in_place else torch.add(x, hint, alpha=weight)
        else:
            hint = hint.to(x.dtype)
            x = x.add_(hint.mul_(weight)) if in_place else x + (hint * weight).to(x.dtype)
    return x
