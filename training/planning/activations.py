"""Counts the tensors that autograd keeps of a forward pass.

L video tokens, S text tokens, D width, F feed-forward width. Each entry below is one tensor that a backward
formula needs; tensors that two formulas share (the output of attention is the input of its projection) count
once. Tables of rotary angles and single numbers per token are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from vdot_core.networks import WanVaceConfig
from vdot_core.networks.passes import block_groups, contexts_per_pass

from .workload import Workload

VIDEO_LAYERS, TEXT_LAYERS = 8, 2
"""Linear layers of a block that see video tokens, and those that see text: k and v of cross-attention."""


@dataclass(frozen=True)
class BlockActivations:
    """Elements that one block keeps for its backward pass, or uses on the way.

    Attributes:
        saved: All that autograd keeps when the block is not recomputed.
        entry: The block's own input, all that is kept when it is.
        backward: Gradients alive at once in the block's backward pass, in addition to `saved`.
        forward: Peak of a pass without gradients.
    """

    saved: int
    entry: int
    backward: int
    forward: int


def block_activations(
    network: WanVaceConfig,
    work: Workload,
    *,
    trained: bool = True,
    rank: int = 0,
    fused_norms: bool = True,
) -> BlockActivations:
    """Count what one block of the backbone keeps.

    Args:
        network: sizes.
        work: what passes through.
        trained: whether the weights get gradients; frozen linear layers keep no input.
        rank: of the adapters on a block's linear layers, which get the gradients in the weights' place; 0:
            there are none.
        fused_norms: RMS norms are one kernel that keeps its input (CUDA), and not several that also keep the
            normed values (CPU).

    Returns:
        Elements, to be multiplied by the size of one.
    """
    batch, dim = work.batch, network.dim
    full, text, wide = batch * work.tokens, batch * work.text_tokens, batch * work.tokens * network.ffn_dim
    norm_inputs = 1 if network.qk_norm else 0
    # Inputs of the RMS norms of q and k, then q, k, v and the output; the input of that norm, q and output.
    self_attention, cross_attention = 2 * norm_inputs + 4, norm_inputs + 2
    # Inputs of the block's three layer norms.
    inputs = 2 + (1 if network.cross_attn_norm else 0)
    hidden, text_copies = 1, 2  # before GELU; k and v of the text
    if trained:
        # Outputs of the modulated norms (per-sample timesteps keep what they modulate too) and of norm3, and,
        # where the modulation is trained, both gated branches.
        inputs += 2 * (1 if batch == 1 or rank else 2) + 1 + (0 if rank else 2)
        hidden, text_copies = 2, 2 + norm_inputs
        unfused = 0 if fused_norms or rank else norm_inputs
        self_attention += 2 * unfused
        cross_attention += unfused
        text_copies += unfused
    saved = (inputs + self_attention + cross_attention) * full * dim
    saved += hidden * wide + text_copies * text * dim
    saved += rank * (VIDEO_LAYERS * full + TEXT_LAYERS * text)
    statistics = 2 * 2 * full * network.num_heads  # log-sum-exp of two attentions, in float32
    # At GELU three tensors of the hidden width: its input and two gradients; its output is gone by then.
    backward = max((3 - hidden) * wide + 3 * full * dim, 8 * full * dim)
    forward = max(wide + 3 * full * dim, 8 * full * dim)
    return BlockActivations(saved + statistics, full * dim, backward, forward)


@dataclass(frozen=True)
class GraphActivations:
    """Bytes of one network's graph on one GPU.

    Attributes:
        saved: Held from the forward to the backward pass.
        working: More, while the pass that needs most runs: a recomputed group of blocks, and gradients.
        inference: Peak of the same pass without gradients.
        tapped: Kept by the discriminator of the tapped blocks, a part of `saved`.
    """

    saved: int
    working: int
    inference: int
    tapped: int = 0

    @property
    def peak(self) -> int:
        """At the worst moment of the backward pass."""
        return self.saved + self.working


def graph_activations(
    network: WanVaceConfig,
    work: Workload,
    *,
    checkpoint_every: int,
    element_bytes: int,
    trained: bool = True,
    rank: int = 0,
    taps: int = 0,
    fused_norms: bool = True,
) -> GraphActivations:
    """Bytes that a forward pass keeps, and the working memory of its backward pass.

    Args:
        network: sizes.
        work: what passes through.
        checkpoint_every: blocks of a group that is recomputed as one; 0: none is.
        element_bytes: of one activation.
        trained: whether the weights get gradients.
        rank: of adapters that get them in the weights' place; 0: there are none.
        taps: tapped blocks that a discriminator reads.
        fused_norms: see `block_activations`.

    Returns:
        The bytes.
    """
    block = block_activations(network, work, trained=trained, rank=rank, fused_norms=fused_norms)
    weights = trained and not rank
    full = work.batch * work.tokens * network.dim
    total, again = _blocks(network, work, checkpoint_every, block)
    inference = block.forward + full
    if work.contexts:
        # after_proj keeps its input, which is also the next block's; hints scaled by numbers keep nothing.
        if weights and not checkpoint_every:
            total += full  # the last context tokens, which only the projection keeps
        inference += (1 + work.contexts) * full
    ends = (2 if weights else 1) * full  # the head's norm
    if weights:
        ends += work.batch * work.text_tokens * (network.text_dim + 3 * network.dim)
        channels = network.in_channels + work.contexts * network.vace_in_channels
        ends += work.batch * work.tokens * math.prod(network.patch_size) * channels  # the patches themselves
    # The discriminator works in float32: the tokens and, to train its weights, the normed ones.
    tapped = taps * full * 4 * (2 if trained else 1)
    working = block.backward + again
    return GraphActivations(
        (total + ends) * element_bytes + tapped, working * element_bytes, inference * element_bytes, tapped
    )


def _blocks(
    network: WanVaceConfig, work: Workload, checkpoint_every: int, block: BlockActivations
) -> tuple[int, int]:
    """Elements that all blocks keep, and those of the largest group while it is recomputed."""
    vace_blocks = len(network.vace_layers) if work.contexts else 0
    if not checkpoint_every:
        return (network.num_layers + vace_blocks * work.contexts) * block.saved, 0
    # A VACE block is a group for each pass, and keeps as much as a backbone block for each of its contexts.
    share = contexts_per_pass(work.contexts, work.batch * work.tokens, True)
    ends = network.vace_layers if work.contexts else ()
    groups = block_groups(network.num_layers, ends, checkpoint_every)
    largest = max(map(len, groups))
    if vace_blocks:
        largest = max(largest, share)
    return (len(groups) + vace_blocks * work.contexts) * block.entry, largest * block.saved
