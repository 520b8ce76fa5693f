"""Extension points of the network's forward pass, for hosts such as ComfyUI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from .attention import AttentionFunction, sdpa_attention
from .pointwise import gelu
from .rope import apply_rotary

BlockCall = Callable[[Tensor, Tensor, Tensor, Any, "Hooks"], Tensor]


class Hooks:
    """Extension points of one forward pass; the defaults change nothing.

    Pass an instance as `net(..., hooks=...)`. VACE blocks call the same attention hooks as backbone blocks,
    right after the `run_block` and `after_block` of the layer they belong to. Tokens between blocks, x of
    `run_block`, `after_cross_attention` and `after_block`, are float32 also where the weights are bf16 or
    fp16; attention and text are in the weights' dtype. Where gradients are off, blocks and hints overwrite
    the tokens they are given: clone what you keep, or set `in_place` to False.

    Args:
        attention: what every attention goes through (`vdot_core.networks.attention.AttentionFunction`).
        self_attention: what attention among the video's tokens goes through instead, for example one that
            exchanges tokens between the GPUs that share a clip.
    """

    batch_contexts = True
    """Several contexts may share a pass of a VACE block; set False where hooks read the batch axis."""

    in_place = True
    """Blocks may overwrite their input where gradients are off; set False where hooks keep it."""

    _self_attention: AttentionFunction | None = None

    def __init__(
        self,
        attention: AttentionFunction = sdpa_attention,
        self_attention: AttentionFunction | None = None,
    ) -> None:
        self._attention, self._self_attention = attention, self_attention

    def attention(self, q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> Tensor:
        """Attend from q [B, L, D] to k and v [B, S, D]; every attention of the network ends here."""
        return self._attention(q, k, v, num_heads)

    def self_attention(self, q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> Tensor:
        """Attend among tokens [B, L, D] of one clip; `attention` unless a function was given."""
        if self._self_attention is None:
            return self.attention(q, k, v, num_heads)
        return self._self_attention(q, k, v, num_heads)

    def begin(self, latents: Tensor, grid: tuple[int, int, int]) -> None:
        """Called once, before the first block.

        Args:
            latents: [B, C, T, h, w], padded to the patch size.
            grid: tokens along (T, h, w).
        """

    def rotate(self, x: Tensor, rope: Any) -> Tensor:
        """Apply rotary positions to queries or keys.

        Args:
            x: [B, L, num_heads, head_dim].
            rope: what was given to the network, or its own `RotaryTable`.

        Returns:
            Like x.
        """
        return apply_rotary(x, rope)

    def run_block(
        self, index: int, block: BlockCall, x: Tensor, modulation: Tensor, text: Tensor, rope: Any
    ) -> Tensor:
        """Run one backbone block, or something in its stead.

        Args:
            index: the block's place in the backbone.
            block: call it as `block(x, modulation, text, rope, hooks)`.
            x: [B, L, D] tokens.
            modulation: [B or 1, 6, D] of the timestep, before the block's own is added.
            text: [B, S, D] embedded text.
            rope: as in `rotate`.

        Returns:
            [B, L, D] tokens.
        """
        return block(x, modulation, text, rope, self)

    def run_vace_block(
        self, block: nn.Module, c: Tensor, x: Tensor | None, modulation: Tensor, text: Tensor, rope: Any
    ) -> tuple[Tensor, Tensor]:
        """Run one VACE block; arguments and results are those of `VaceBlock.forward`."""
        return block(c, x, modulation, text, rope, self)

    def run_self_attention(self, attention: nn.Module, x: Tensor, rope: Any) -> Tensor:
        """Run a block's attention among tokens [B, L, D], its projections included."""
        return attention(x, rope, self)

    def run_cross_attention(self, attention: nn.Module, x: Tensor, text: Tensor) -> Tensor:
        """Run a block's attention from tokens [B, L, D] to the text [B', S, D], its projections included."""
        return attention(x, text, self)

    def feed_forward_layers(self, ffn: nn.Sequential) -> Sequence[Callable[[Tensor], Tensor]]:
        """Return a block's feed-forward in layers, of which each frees the result of the one before."""
        return ffn[0], gelu, ffn[2]

    def run_head(self, head: nn.Module, x: Tensor, time: Tensor) -> Tensor:
        """Run the head on tokens [B, L, D] and the embedded timestep [B or 1, D]."""
        return head(x, time)

    def after_self_attention(self, x: Tensor, q: Tensor, k: Tensor) -> Tensor:
        """Change what self-attention gives, before its output projection.

        Args:
            x: [B, L, D].
            q: [B, L, num_heads, head_dim] rotated queries.
            k: [B, L, num_heads, head_dim] rotated keys.

        Returns:
            [B, L, D].
        """
        return x

    def after_cross_attention(self, x: Tensor) -> Tensor:
        """Change the tokens [B, L, D] after the cross-attention's residual sum; return them."""
        return x

    def after_block(self, index: int, x: Tensor, latents: Tensor, time: Tensor) -> Tensor:
        """Change the tokens after a backbone block, before its VACE hint is added.

        Args:
            index: the block's place in the backbone.
            x: [B, L, D] tokens.
            latents: [B, C, T, h, w], as in `begin`.
            time: [B or 1, D] embedded timestep.

        Returns:
            [B, L, D] tokens.
        """
        return x
