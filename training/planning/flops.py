"""Floating-point operations of the network, in closed form: a multiplication and an addition count as two.

L video tokens, S text tokens, D width, F feed-forward width. What is not a matrix product (norms, rotary
positions, activations) is left out, as torch's own FlopCounterMode does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from vdot_core.networks import WanVaceConfig

from .workload import Workload


@dataclass(frozen=True)
class PassFlops:
    """Operations of one forward pass.

    Attributes:
        linear: Of products with weights, whose backward pass has one for inputs and one for weights.
        attention: Of products among activations; their backward pass costs twice the forward one, and
            flash attention adds half of that by recomputing its scores.
        still: The part of `linear` that sees text and contexts alone: frozen, it has no backward pass.
    """

    linear: float
    attention: float
    still: float

    @property
    def forward(self) -> float:
        """Of the forward pass."""
        return self.linear + self.attention

    def backward(self, weights: bool = True) -> float:
        """Of the backward pass.

        Args:
            weights: whether the weights are trained; else only activations get a gradient.

        Returns:
            The operations, flash attention's recomputation included.
        """
        linear = 2 * self.linear if weights else self.linear - self.still
        return linear + 2.5 * self.attention


def block_flops(network: WanVaceConfig, work: Workload) -> PassFlops:
    """Operations of one block over B samples."""
    tokens, text, dim = work.batch * work.tokens, work.batch * work.text_tokens, network.dim
    to_text = 2 * dim * dim * 2 * text
    projections = 2 * dim * dim * (4 * tokens + 2 * tokens) + to_text
    feed_forward = 4 * tokens * dim * network.ffn_dim
    attention = 4 * tokens * dim * (work.tokens + work.text_tokens)
    return PassFlops(projections + feed_forward, attention, to_text)


def pass_flops(network: WanVaceConfig, work: Workload) -> PassFlops:
    """Operations of one forward pass of a network.

    Args:
        network: sizes.
        work: what passes through.

    Returns:
        The operations, by kind.
    """
    dim, batch = network.dim, work.batch
    tokens, patch = batch * work.tokens, math.prod(network.patch_size)
    block = block_flops(network, work)
    linear = network.num_layers * block.linear
    attention = network.num_layers * block.attention
    linear += 2 * tokens * patch * dim * (network.in_channels + network.out_channels)
    embedding = 2 * batch * work.text_tokens * dim * (network.text_dim + dim)
    linear += embedding
    num_blocks = network.num_layers + work.contexts * len(network.vace_layers)
    linear += 2 * batch * dim * (network.freq_dim + dim + 6 * dim)
    still = embedding + num_blocks * block.still
    if work.contexts:
        layers, passes = len(network.vace_layers), work.contexts
        linear += passes * layers * (block.linear + 2 * tokens * dim * dim)
        attention += passes * layers * block.attention
        entry = passes * 2 * tokens * dim * (patch * network.vace_in_channels + dim)
        linear, still = linear + entry, still + entry
    return PassFlops(linear, attention, still)
