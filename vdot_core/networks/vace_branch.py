"""The blocks of one forward pass: the backbone's, and what VACE's context branch adds to their tokens."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .checkpointing import Call, Tokens
from .context_scale import Weight, add_hint
from .hooks import Hooks

MAX_BATCHED_TOKENS = 16384
"""Contexts share a pass of a VACE block up to this many tokens in all; beyond, one each saves memory."""


@dataclass(frozen=True)
class VaceBranch:
    """What the contexts add to the backbone's tokens, VACE block by VACE block.

    Args:
        blocks: the VACE blocks.
        places: backbone layer -> index of the VACE block that follows it.
        group: contexts that share a pass.
        weights: weights[VACE block][context], of `context_weights`.
        given: what every block gets besides its tokens: modulation, text, rope, hooks.
        in_place: hints may be written into the backbone's tokens.
    """

    blocks: Sequence[Callable]
    places: dict[int, int]
    group: int
    weights: list[list[Weight]]
    given: tuple[Tensor, Tensor, Any, Any]
    in_place: bool

    def add_hint(self, call: Call, tokens: Tokens, recomputed: bool) -> None:
        """Pass one stream through a layer's VACE block, and add its contexts' hints to the video's tokens.

        Args:
            call: which.
            tokens: changed in place.
            recomputed: keep only the block's input for the backward pass.
        """
        n, place = call.stream, self.places[call.layer]
        block = self.blocks[place]
        block = partial(checkpoint, block, use_reentrant=False) if recomputed else block
        hint, tokens.streams[n] = block(tokens.streams[n], tokens.video, *self.given)
        if call.ends_layer:
            tokens.video = None
        for g, one in enumerate(hint.unflatten(0, (-1, self.group)).unbind(1)):
            tokens.x = add_hint(tokens.x, one, self.weights[place][n * self.group + g], self.in_place)


@dataclass(frozen=True, eq=False)
class BlockPass:
    """Runs the backbone's and the branch's blocks in one forward pass.

    Args:
        blocks: the backbone's.
        branch: None without contexts.
        hooks: extension points.
        given: what every block gets besides its tokens and the hooks: modulation, text, rope.
        latents: [B, C, T, h, w], for the hooks.
        time: [B or 1, D] embedded timestep, for the hooks.
        taps: layers whose output is wanted too.
    """

    blocks: Sequence[Callable]
    branch: VaceBranch | None
    hooks: Hooks
    given: tuple[Tensor, Tensor, Any]
    latents: Tensor
    time: Tensor
    taps: Collection[int]

    def __call__(self, call: Call, tokens: Tokens, recomputed: bool = False) -> None:
        """Run one call; see `checkpointing.Run`."""
        if call.stream is not None:
            self.branch.add_hint(call, tokens, recomputed)
        else:
            block = self.blocks[call.layer]
            tokens.x = self.hooks.run_block(call.layer, block, tokens.x, *self.given)
            tokens.x = self.hooks.after_block(call.layer, tokens.x, self.latents, self.time)
        if call.ends_layer and call.layer in self.taps:
            tokens.features.append(tokens.x)


def contexts_per_pass(num_contexts: int, num_tokens: int, may_share: bool) -> int:
    """Return how many contexts go through a VACE block together: all of them while that is small, else one.

    Args:
        num_contexts: K.
        num_tokens: B * L of one context.
        may_share: whether the hooks bear a larger batch.
    """
    return num_contexts if may_share and num_contexts * num_tokens <= MAX_BATCHED_TOKENS else 1
