"""Division of a forward pass: blocks recomputed together, contexts that share a pass of a VACE block."""

from __future__ import annotations

from collections.abc import Collection

MAX_BATCHED_TOKENS = 16384
"""Contexts share a pass of a VACE block up to this many tokens in all; beyond, one each saves memory."""


def block_groups(num_layers: int, ends: Collection[int], size: int) -> list[range]:
    """Cut a backbone into groups of consecutive layers.

    Args:
        num_layers: of the backbone.
        ends: layers that end a group.
        size: layers of a group at most.
    """
    groups, first = [], 0
    for layer in range(num_layers):
        if layer in ends or layer + 1 - first == size or layer + 1 == num_layers:
            groups.append(range(first, layer + 1))
            first = layer + 1
    return groups


def contexts_per_pass(num_contexts: int, num_tokens: int, may_share: bool) -> int:
    """Return how many contexts go through a VACE block together: all of them while that is small, else one.

    Args:
        num_contexts: K.
        num_tokens: B * L of one context.
        may_share: the hooks support a larger batch.
    """
    return num_contexts if may_share and num_contexts * num_tokens <= MAX_BATCHED_TOKENS else 1
