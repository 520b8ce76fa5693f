"""The order in which the blocks run, and groups of them of which autograd keeps only what enters.

B batch, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from torch import Tensor
from torch.utils.checkpoint import checkpoint


class Call(NamedTuple):
    """One block's turn in a forward pass.

    Attributes:
        layer: of the backbone.
        stream: the context stream that the layer's VACE block takes; None: the backbone's block.
        ends_layer: whether the layer's output is there after it.
    """

    layer: int
    stream: int | None
    ends_layer: bool


@dataclass
class Tokens:
    """What the blocks hand on.

    Attributes:
        x: [B, L, D] the video's tokens.
        streams: number -> context tokens, each [B * group, L, D].
        video: [B, L, D] the video's tokens before any block, until the first VACE block has used them.
        features: x after every tapped layer so far.
    """

    x: Tensor
    streams: dict[int, Tensor]
    video: Tensor | None
    features: list[Tensor] = field(default_factory=list)


Run = Callable[[Call, Tokens, bool], None]
"""Runs a call and changes the tokens; True: what the block keeps is recomputed, for this block alone."""


def running_order(num_layers: int, vace_layers: Collection[int], num_streams: int) -> list[Call]:
    """Return the calls of a forward pass in turn: each layer's block, then its VACE block on every stream.

    Args:
        num_layers: of the backbone.
        vace_layers: layers that a VACE block follows.
        num_streams: context streams, each a pass of its own; 0 without contexts.
    """
    order = []
    for layer in range(num_layers):
        last = num_streams - 1 if layer in vace_layers else -1
        order.append(Call(layer, None, last < 0))
        order += [Call(layer, n, n == last) for n in range(last + 1)]
    return order


def in_groups(order: Sequence[Call], size: int) -> list[Sequence[Call]]:
    """Cut the order into groups of so many calls; the last one may be smaller."""
    return [order[first : first + size] for first in range(0, len(order), size)]


def run_recomputed(group: Sequence[Call], tokens: Tokens, run: Run) -> None:
    """Run consecutive calls; autograd keeps what enters the first, and the backward pass runs all again.

    Args:
        group: the calls.
        tokens: changed in place.
        run: what a call is.
    """
    if all(call.stream is not None for call in group):
        # Hints are only added to the video's tokens: blocks recomputed one by one keep none of these.
        for call in group:
            run(call, tokens, True)
        return
    used = sorted({call.stream for call in group if call.stream is not None})
    entering = (tokens.x, tokens.video if used else None, *(tokens.streams[n] for n in used))
    tokens.x, changed, features = checkpoint(
        partial(_run_group, group, used, run), *entering, use_reentrant=False
    )
    tokens.features += features
    for n, stream in zip(used, changed, strict=True):
        tokens.streams[n] = stream


def _run_group(
    group: Sequence[Call], used: Sequence[int], run: Run, x: Tensor, video: Tensor | None, *streams: Tensor
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Run twice, so nothing outside changes: (x, the used streams, features)."""
    # A stream keeps its number, which also says what its contexts weigh.
    held = dict(zip(used, streams, strict=True))
    tokens = Tokens(x, held, video)
    for call in group:
        run(call, tokens, False)
    return tokens.x, [held[n] for n in used], tokens.features
