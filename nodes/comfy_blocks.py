"""The blocks of our network as ComfyUI and other nodes know them: its classes, names and forward signatures.

A block computes as vdot_core's does. What other nodes call, replace or read is ComfyUI's:
`self_attn(x, freqs, transformer_options)`, `cross_attn(x, context, transformer_options)`,
`block(x, e, freqs, context, ..)`.
B batch, L tokens, S text tokens, D width.
"""

from __future__ import annotations

import comfy.ldm.wan.model as wan
from torch import Tensor, nn

from ..vdot_core.networks import WanVaceConfig
from ..vdot_core.networks.layers import Block, Factory, Head, SelfAttention, VaceBlock
from .comfy_hooks import ComfyHooks

WINDOW = (-1, -1)  # ComfyUI's name for attention to all tokens
USE_COMFYUI = "set network to 'comfyui' in VDOT Load Model"


class ComfySelfAttention(SelfAttention, wan.WanSelfAttention):
    """Attention among the video's tokens."""

    window_size = WINDOW

    def forward(self, x: Tensor, freqs: Tensor, transformer_options: dict | None = None) -> Tensor:
        """Attend. x: [B, L, D]; freqs: [1 or B, L, 1, pairs, 2, 2]. Returns [B, L, D]."""
        return super().forward(x, freqs, ComfyHooks.of(transformer_options, x.dtype))


class ComfyBlock(Block, wan.WanAttentionBlock):
    """A block of the backbone."""

    window_size = WINDOW

    def __init__(self, config: WanVaceConfig, factory: ComfyFactory) -> None:
        super().__init__(config, factory)
        self.norm1, self.norm2 = factory.plain_norm(config), factory.plain_norm(config)

    def forward(
        self,
        x: Tensor,
        e: Tensor,
        freqs: Tensor,
        context: Tensor,
        context_img_len: int | None = None,
        transformer_options: dict | None = None,
    ) -> Tensor:
        """Transform the tokens.

        Args:
            x: [B, L, D].
            e: [B or 1, 6, D] or [B or 1, 1, 6, D], modulation of the timestep.
            freqs: [1 or B, L, 1, pairs, 2, 2] rotation matrices.
            context: [B, S, D] embedded text, in the dtype that layers compute in.
            context_img_len: ignored, for there is no image embedding.
            transformer_options: ComfyUI's options and patches.

        Returns:
            [B, L, D].
        """
        hooks = ComfyHooks.of(transformer_options, context.dtype)
        return super().forward(x, one_time(e, 3).to(x.dtype), context, freqs, hooks)


class ComfyVaceBlock(VaceBlock, wan.VaceWanAttentionBlock):
    """A block of the context branch."""

    window_size = WINDOW

    def __init__(self, config: WanVaceConfig, factory: ComfyFactory, block_id: int) -> None:
        super().__init__(config, factory, block_id)
        self.norm1, self.norm2 = factory.plain_norm(config), factory.plain_norm(config)

    def forward(
        self,
        c: Tensor,
        x: Tensor | None,
        e: Tensor,
        freqs: Tensor,
        context: Tensor,
        context_img_len: int | None = None,
        transformer_options: dict | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Transform a context's tokens c [B, L, D]; x: the video's [B, L, D]. Returns (hint, tokens)."""
        hooks = ComfyHooks.of(transformer_options, context.dtype)
        return super().forward(c, x, one_time(e, 3), context, freqs, hooks)


class ComfyHead(Head, wan.Head):
    """Tokens to patches of velocity."""

    def __init__(self, config: WanVaceConfig, factory: ComfyFactory) -> None:
        super().__init__(config, factory)
        self.norm = factory.plain_norm(config)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Project tokens x [B, L, D]; e: [B or 1, D] or [B or 1, 1, D] embedded timestep."""
        return super().forward(x, one_time(e, 2))


class ComfyFactory(Factory):
    """Factory of these blocks; a cross-attention is ComfyUI's own, for there ours does nothing else."""

    def self_attention(self, config: WanVaceConfig) -> nn.Module:
        """Make a block's attention among the video's tokens."""
        return ComfySelfAttention(config, self)

    def cross_attention(self, config: WanVaceConfig) -> nn.Module:
        """Make a block's attention to the text."""
        settings = {"operations": self.operations, "device": self.device, "dtype": self.dtype}
        sizes = (config.dim, config.num_heads, WINDOW, config.qk_norm, config.eps)
        return wan.WanT2VCrossAttention(*sizes, operation_settings=settings)

    def block(self, config: WanVaceConfig) -> nn.Module:
        """Make a block of the backbone."""
        return ComfyBlock(config, self)

    def vace_block(self, config: WanVaceConfig, block_id: int) -> nn.Module:
        """Make a block of the context branch."""
        return ComfyVaceBlock(config, self, block_id)

    def head(self, config: WanVaceConfig) -> nn.Module:
        """Make the last layer."""
        return ComfyHead(config, self)

    def plain_norm(self, config: WanVaceConfig) -> nn.Module:
        """Make a norm without weights, for forwards that nodes put on a block: ours modulates in one step."""
        return self.operations.LayerNorm(
            config.dim, config.eps, elementwise_affine=False, device=self.device, dtype=self.dtype
        )


def one_time(e: Tensor, ndim: int) -> Tensor:
    """Return an embedding of the timestep without an axis for frames.

    Raises:
        ValueError: there is a timestep for each frame.
    """
    if e.ndim == ndim:
        return e
    if e.shape[1] != 1:
        raise ValueError(
            f"a node gives VDOT's network {e.shape[1]} timesteps, one for each latent frame, and it takes "
            f"one; {USE_COMFYUI}"
        )
    return e[:, 0]
