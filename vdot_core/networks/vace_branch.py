"""VACE's context branch during one forward pass: what the contexts add to the backbone's tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .context_scale import Weight, add_hint

MAX_BATCHED_TOKENS = 16384
"""Contexts share a pass of a VACE block up to this many tokens in all; beyond, one each saves memory."""


@dataclass
class VaceBranch:
    """The context tokens, from VACE block to VACE block.

    Args:
        blocks: the VACE blocks.
        places: backbone layer -> index of the VACE block that follows it.
        streams: context tokens, each [B * group, L, D]; `group` contexts per stream.
        group: contexts that share a pass.
        weights: weights[VACE block][context], of `context_weights`.
        video: [B, L, D], the video's tokens before any block, until the first VACE block has used them.
        given: what every block gets besides its tokens: modulation, text, rope, hooks.
        in_place: hints may be written into the backbone's tokens.
    """

    blocks: Sequence[Callable]
    places: dict[int, int]
    streams: list[Tensor]
    group: int
    weights: list[list[Weight]]
    video: Tensor | None
    given: tuple[Tensor, Tensor, Any, Any]
    in_place: bool

    def add_hints(self, index: int, x: Tensor) -> Tensor:
        """Add the contexts' hints after a backbone block.

        Args:
            index: the backbone block's.
            x: [B, L, D] its tokens.

        Returns:
            [B, L, D]; x itself after a layer without a VACE block.
        """
        place = self.places.get(index)
        if place is None:
            return x
        for n, stream in enumerate(self.streams):
            hint, self.streams[n] = self.blocks[place](stream, self.video, *self.given)
            for g, one in enumerate(hint.unflatten(0, (-1, self.group)).unbind(1)):
                x = add_hint(x, one, self.weights[place][n * self.group + g], self.in_place)
        self.video = None
        return x


def contexts_per_pass(num_contexts: int, num_tokens: int, may_share: bool) -> int:
    """Return how many contexts go through a VACE block together: all of them while that is small, else one.

    Args:
        num_contexts: K.
        num_tokens: B * L of one context.
        may_share: whether the hooks bear a larger batch.
    """
    return num_contexts if may_share and num_contexts * num_tokens <= MAX_BATCHED_TOKENS else 1
