"""Blocks of the Wan-VACE transformer, under Wan's own parameter names.

B batch, K contexts, L tokens, S text tokens, D width. Every layer with weights comes from `operations`
(torch.nn, or a host's offloading and quantized layers); raw parameters are cast where they are used.

Precision: the token streams x and c, the modulation and the gates are float32 for weights of any dtype, as in
Wan's own code (see `WanVace.residual_dtype`); layers get and give the dtype of `text`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from .config import WanVaceConfig
from .hooks import Hooks
from .pointwise import modulated_norm, rounded


@dataclass(frozen=True)
class Factory:
    """Factory of layers with a device and dtype; a host may derive one that makes its own kinds of blocks.

    Such blocks may derive from the host's modules too: a constructor here calls nn.Module's, not the next
    one's in line.
    """

    operations: Any = nn
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None

    def linear(self, dim_in: int, dim_out: int) -> nn.Module:
        """Make a linear layer with bias."""
        return self.operations.Linear(dim_in, dim_out, device=self.device, dtype=self.dtype)

    def rms_norm(self, dim: int, config: WanVaceConfig) -> nn.Module:
        """Make the norm of queries or keys, or the identity where the config has none."""
        if not config.qk_norm:
            return nn.Identity()
        return self.operations.RMSNorm(
            dim, eps=config.eps, elementwise_affine=True, device=self.device, dtype=self.dtype
        )

    def layer_norm(self, dim: int, eps: float) -> nn.Module:
        """Make a layer norm with weight and bias."""
        return self.operations.LayerNorm(
            dim, eps, elementwise_affine=True, device=self.device, dtype=self.dtype
        )

    def patches(self, channels: int, config: WanVaceConfig) -> nn.Module:
        """Make a patch embedding. Wan keeps these two layers in float32 at any network dtype."""
        size = config.patch_size
        return self.operations.Conv3d(
            channels, config.dim, kernel_size=size, stride=size, device=self.device, dtype=torch.float32
        )

    def self_attention(self, config: WanVaceConfig) -> nn.Module:
        """Make a block's attention among the video's tokens."""
        return SelfAttention(config, self)

    def cross_attention(self, config: WanVaceConfig) -> nn.Module:
        """Make a block's attention to the text."""
        return CrossAttention(config, self)

    def block(self, config: WanVaceConfig) -> nn.Module:
        """Make a block of the backbone."""
        return Block(config, self)

    def vace_block(self, config: WanVaceConfig, block_id: int) -> nn.Module:
        """Make a block of the context branch."""
        return VaceBlock(config, self, block_id)

    def head(self, config: WanVaceConfig) -> nn.Module:
        """Make the last layer."""
        return Head(config, self)

    def table(self, rows: int, dim: int) -> nn.Parameter:
        """Make a modulation table [1, rows, D]; zeros, for not every dtype can draw random numbers."""
        return nn.Parameter(torch.zeros(1, rows, dim, device=self.device, dtype=self.dtype))


def sinusoidal_embedding(timestep: Tensor, dim: int) -> Tensor:
    """Embed timesteps as cosines, then sines, of geometrically falling frequencies.

    Args:
        timestep: [B], 0..1000.
        dim: even width.

    Returns:
        [B, dim] float32, from float64 angles where the device has them: float32 is off by 6e-5 at 1000.
    """
    exact = torch.float32 if timestep.device.type == "mps" else torch.float64
    exponent = torch.arange(dim // 2, dtype=exact, device=timestep.device) / (dim // 2)
    angle = timestep.to(exact)[:, None] * 10000.0**-exponent
    return torch.cat((angle.cos(), angle.sin()), dim=-1).float()


def writes_in_place(hooks: Hooks) -> bool:
    """Tell whether blocks may overwrite the tokens that they are given."""
    return hooks.in_place and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


class Attention(nn.Module):
    """Projections of queries, keys, values and output, and the norms of queries and keys."""

    def __init__(self, config: WanVaceConfig, factory: Factory) -> None:
        nn.Module.__init__(self)
        self.dim, self.num_heads, self.head_dim = config.dim, config.num_heads, config.head_dim
        self.qk_norm, self.eps = config.qk_norm, config.eps
        self.q = factory.linear(config.dim, config.dim)
        self.k = factory.linear(config.dim, config.dim)
        self.v = factory.linear(config.dim, config.dim)
        self.o = factory.linear(config.dim, config.dim)
        self.norm_q = factory.rms_norm(config.dim, config)
        self.norm_k = factory.rms_norm(config.dim, config)


class SelfAttention(Attention):
    """Attention among the video's tokens, with rotary positions."""

    def _rotated(self, project: nn.Module, norm: nn.Module, x: Tensor, rope: Any, hooks: Hooks) -> Tensor:
        # Its own frame, so that the float32 intermediates of q are gone before k's are made.
        return hooks.rotate(rearrange(norm(project(x)), "b l (n d) -> b l n d", n=self.num_heads), rope)

    def forward(self, x: Tensor, rope: Any, hooks: Hooks) -> Tensor:
        """Attend. x: [B, L, D]; rope: for `hooks.rotate`. Returns [B, L, D]."""
        q = self._rotated(self.q, self.norm_q, x, rope, hooks)
        k = self._rotated(self.k, self.norm_k, x, rope, hooks)
        v = self.v(x)
        heads = "b l n d -> b l (n d)"
        y = hooks.self_attention(rearrange(q, heads), rearrange(k, heads), v, self.num_heads)
        del v
        y = hooks.after_self_attention(y, q, k)
        del q, k
        return self.o(y)


class CrossAttention(Attention):
    """Attention of the video's tokens to the text's."""

    def forward(self, x: Tensor, text: Tensor, hooks: Hooks) -> Tensor:
        """Attend. x: [B, L, D]; text: [B', S, D], a row per B / B' rows of x. Returns [B, L, D]."""
        k, v = self.norm_k(self.k(text)), self.v(text)
        if text.shape[0] != x.shape[0]:
            rows = x.shape[0] // text.shape[0]
            k, v = repeat(k, "b s d -> (b k) s d", k=rows), repeat(v, "b s d -> (b k) s d", k=rows)
        return self.o(hooks.attention(self.norm_q(self.q(x)), k, v, self.num_heads))


class Block(nn.Module):
    """Self-attention, cross-attention and feed-forward; the first and last modulated by the timestep."""

    def __init__(self, config: WanVaceConfig, factory: Factory) -> None:
        nn.Module.__init__(self)
        self.dim, self.ffn_dim, self.num_heads = config.dim, config.ffn_dim, config.num_heads
        self.qk_norm, self.cross_attn_norm, self.eps = config.qk_norm, config.cross_attn_norm, config.eps
        self.self_attn = factory.self_attention(config)
        self.norm3 = factory.layer_norm(config.dim, config.eps) if config.cross_attn_norm else nn.Identity()
        self.cross_attn = factory.cross_attention(config)
        self.ffn = nn.Sequential(
            factory.linear(config.dim, config.ffn_dim),
            nn.GELU(approximate="tanh"),
            factory.linear(config.ffn_dim, config.dim),
        )
        self.modulation = factory.table(6, config.dim)

    def forward(self, x: Tensor, modulation: Tensor, text: Tensor, rope: Any, hooks: Hooks) -> Tensor:
        """Transform the tokens.

        Args:
            x: [B, L, D], in the dtype of the token stream.
            modulation: [B or 1, 6, D] of the timestep.
            text: [B or a divisor of it, S, D], in the dtype that layers compute in.
            rope: for `hooks.rotate`.
            hooks: extension points.

        Returns:
            [B, L, D] of x's dtype; x itself, overwritten, where `writes_in_place(hooks)`.
        """
        in_place, dtype = writes_in_place(hooks), text.dtype
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (self.modulation.to(x) + modulation).chunk(
            6, dim=1
        )
        y = rounded(lambda x: modulated_norm(x, shift, scale, self.eps), x, dtype)
        y = hooks.run_self_attention(self.self_attn, y, rope)
        x = x.addcmul_(y, gate) if in_place else torch.addcmul(x, y, gate)
        del y
        y = hooks.run_cross_attention(self.cross_attn, self._norm_queries(x, dtype), text)
        x = x + y if torch.is_grad_enabled() else x.add_(y)  # this x is the block's own
        x = hooks.after_cross_attention(x)
        y = rounded(lambda x: modulated_norm(x, ffn_shift, ffn_scale, self.eps), x, dtype)
        for layer in hooks.feed_forward_layers(self.ffn):
            y = layer(y)
        return x.addcmul_(y, ffn_gate) if in_place else torch.addcmul(x, y, ffn_gate)

    def _norm_queries(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Normalize the tokens [B, L, D] that attend to the text, in `dtype`."""
        if x.dtype != dtype and self.cross_attn_norm:
            # The layer takes what its weights are in. Normed tokens, which its norm leaves as they are, stay
            # in float16's range; raw ones may not.
            x = rounded(lambda x: F.layer_norm(x, x.shape[-1:], eps=self.eps), x, dtype)
        return self.norm3(x.to(dtype))


class VaceBlock(Block):
    """A block of the context branch, which also gives a hint for the backbone."""

    def __init__(self, config: WanVaceConfig, factory: Factory, block_id: int) -> None:
        super().__init__(config, factory)
        self.block_id = block_id
        if block_id == 0:
            self.before_proj = factory.linear(config.dim, config.dim)
        self.after_proj = factory.linear(config.dim, config.dim)

    def forward(
        self, c: Tensor, x: Tensor | None, modulation: Tensor, text: Tensor, rope: Any, hooks: Hooks
    ) -> tuple[Tensor, Tensor]:
        """Transform the context's tokens.

        Args:
            c: [B * K, L, D] context tokens, K of them for each video; of the first VACE block in `text`'s
                dtype, of later ones in that of the token stream.
            x: [B, L, D] the video's tokens before any block; only the first VACE block needs them.
            modulation: [B * K or 1, 6, D].
            text: [B, S, D].
            rope: for `hooks.rotate`.
            hooks: extension points.

        Returns:
            (hint [B * K, L, D] of `text`'s dtype, context tokens [B * K, L, D] of the token stream's).
        """
        if self.block_id == 0:
            c = self.before_proj(c)
            c = c.to(modulation.dtype) + repeat(x, "b l d -> (b k) l d", k=c.shape[0] // x.shape[0])
        c = super().forward(c, modulation, text, rope, hooks)
        return self.after_proj(c.to(text.dtype)), c


class Head(nn.Module):
    """Tokens to patches of velocity."""

    def __init__(self, config: WanVaceConfig, factory: Factory) -> None:
        nn.Module.__init__(self)
        self.dim, self.out_dim = config.dim, config.out_channels
        self.patch_size, self.eps = config.patch_size, config.eps
        self.head = factory.linear(config.dim, math.prod(config.patch_size) * config.out_channels)
        self.modulation = factory.table(2, config.dim)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Project tokens to patches.

        Args:
            x: [B, L, D].
            time: [B or 1, D] embedded timestep, in the dtype that the layer computes in.

        Returns:
            [B, L, patch * C_out].
        """
        shift, scale = (self.modulation.to(x) + time.unsqueeze(1)).chunk(2, dim=1)
        x = rounded(lambda x: modulated_norm(x, shift, scale, self.eps), x, time.dtype)
        return self.head(x)
