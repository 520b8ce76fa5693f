"""ComfyUI's patches, block replacements, attention and rotary kernels, on one forward pass of our network.

B batch, C channels, L tokens, D width, T h w latent frames, rows, columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.ldm.wan.model as wan
import torch
from torch import Tensor, nn

from ..vdot_core.networks import Hooks, RotaryTable, apply_rotary
from ..vdot_core.networks.layers import Block, CrossAttention, Head, SelfAttention

KEY = "vdot_hooks"  # in transformer_options, during a pass


class ComfyHooks(Hooks):
    """ComfyUI's patches and options on one forward pass.

    Every part of the network is called as ComfyUI's own network calls it, so that what other nodes put in
    its place works. Patches and such parts see tokens in the dtype that ComfyUI chose, for their layers may
    take no other; their changes are then added to the float32 tokens.

    Args:
        options: transformer_options; written to, as ComfyUI's networks do, so that patches know their place.
        dtype: that layers compute in.
        own: all parts of the network are ours: blocks may overwrite their input, and contexts share a pass.
        time_by_frame: what patches see of the timestep has an axis for frames, as in ComfyUI's text-to-video
            network.
    """

    def __init__(
        self, options: dict, dtype: torch.dtype, own: bool = False, time_by_frame: bool = False
    ) -> None:
        self.options, self.dtype, self.own, self.time_by_frame = options, dtype, own, time_by_frame
        self.patches = options.get("patches", {})
        self.replacements = options.get("patches_replace", {}).get("dit", {})
        self.in_place = own and not self.patches and not self.replacements
        # What reads the batch axis must see one context at a time, as in ComfyUI's network.
        self.batch_contexts = own and not self.patches and "optimized_attention_override" not in options
        self._turns: tuple[Tensor, RotaryTable | None] | None = None
        self._video: Tensor | None = None

    @classmethod
    def of(cls, options: dict | None, dtype: torch.dtype) -> ComfyHooks:
        """Return the hooks of the pass that `options` belong to, or new ones for a call from outside."""
        options = {} if options is None else options
        hooks = options.get(KEY)
        return hooks if hooks is not None and hooks.options is options else cls(options, dtype)

    def begin(self, latents: Tensor, grid: tuple[int, int, int]) -> None:
        """Publish the token grid."""
        self.options["grid_sizes"] = torch.Size(grid)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> Tensor:
        """Attend with the function of ComfyUI's Wan network, or its override."""
        return wan.optimized_attention(q, k, v, heads=num_heads, transformer_options=self.options)

    def rotate(self, x: Tensor, rope: Tensor) -> Tensor:
        """Rotate with ComfyUI's kernels; on a CPU with ours, which are faster there."""
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return wan.apply_rope1(x, rope)
        if self._turns is None or self._turns[0] is not rope:
            self._turns = (rope, rotary_turns(rope))
        table = self._turns[1]
        return wan.apply_rope1(x, rope) if table is None else apply_rotary(x, table)

    def run_block(
        self, index: int, block: nn.Module, x: Tensor, modulation: Tensor, text: Tensor, rope: Any
    ) -> Tensor:
        """Run a block, or what `patches_replace["dit"]` puts in its place."""
        self.options["block_index"] = index
        replacement = self.replacements.get(("double_block", index))
        if replacement is None:
            return self._call_block(block, x, modulation, text, rope)

        exact, seen_modulation = x, self._seen(modulation)

        def original_block(args: dict) -> dict:
            nonlocal exact
            vec = modulation if args["vec"] is seen_modulation else args["vec"]
            tokens, options = self._carry(x, args["img"]), args["transformer_options"]
            exact = self._call_block(block, tokens, vec, args["txt"], args["pe"], options)
            return {"img": exact.to(self.dtype)}

        args = {"img": x.to(self.dtype), "txt": text, "vec": seen_modulation, "pe": rope}
        args["transformer_options"] = self.options
        result = replacement(args, {"original_block": original_block})["img"]
        return self._carry(exact, result)

    def _call_block(
        self,
        block: nn.Module,
        x: Tensor,
        modulation: Tensor,
        text: Tensor,
        rope: Any,
        options: dict | None = None,
    ) -> Tensor:
        keywords = {"freqs": rope, "context": text, "context_img_len": None}
        keywords["transformer_options"] = self.options if options is None else options
        if self.own or is_own(block, Block):
            return block(x, e=modulation, **keywords)
        return self._carry(x, block(x.to(self.dtype), e=self._seen(modulation), **keywords))

    def run_vace_block(
        self, block: nn.Module, c: Tensor, x: Tensor | None, modulation: Tensor, text: Tensor, rope: Any
    ) -> tuple[Tensor, Tensor]:
        """Run a VACE block."""
        keywords = {"freqs": rope, "context": text, "context_img_len": None}
        keywords["transformer_options"] = self.options
        if x is not None and not self.in_place:
            self._video = x
        if self.own or is_own(block, Block):
            return block(c, x=x, e=modulation, **keywords)
        hint, tokens = block(c.to(self.dtype), x=self._video, e=modulation.to(self.dtype), **keywords)
        return hint.to(self.dtype), tokens.to(modulation.dtype)

    def run_self_attention(self, attention: nn.Module, x: Tensor, rope: Any) -> Tensor:
        """Run a block's self-attention."""
        return attention(x, rope, transformer_options=self.options)

    def run_cross_attention(self, attention: nn.Module, x: Tensor, text: Tensor) -> Tensor:
        """Run a block's cross-attention."""
        if self.batch_contexts and len(x) != len(text):  # contexts that share a pass
            return CrossAttention.forward(attention, x, text, self)
        return attention(x, text, context_img_len=None, transformer_options=self.options)

    def feed_forward_layers(self, ffn: nn.Module) -> Sequence[Callable[[Tensor], Tensor]]:
        """Return a block's feed-forward layer by layer, or as one where it is not ours."""
        return super().feed_forward_layers(ffn) if self.own or is_own_feed_forward(ffn) else (ffn,)

    def run_head(self, head: nn.Module, x: Tensor, time: Tensor) -> Tensor:
        """Run the head."""
        if is_own(head, Head):
            return head(x, time)
        return head(x.to(self.dtype), self._seen(time))

    def after_self_attention(self, x: Tensor, q: Tensor, k: Tensor) -> Tensor:
        """Apply `attn1_patch`."""
        for patch in self.patches.get("attn1_patch", ()):
            x = patch({"x": x, "q": q, "k": k, "transformer_options": self.options})
        return x

    def after_cross_attention(self, x: Tensor) -> Tensor:
        """Apply `attn2_patch`."""
        for patch in self.patches.get("attn2_patch", ()):
            x = self._carry(x, patch({"x": x.to(self.dtype), "transformer_options": self.options}))
        return x

    def after_block(self, index: int, x: Tensor, latents: Tensor, time: Tensor) -> Tensor:
        """Apply `double_block` patches."""
        for patch in self.patches.get("double_block", ()):
            args = {"img": x.to(self.dtype), "x": latents, "vec": self._seen(time)}
            args |= {"block_index": index, "img_offset": 0}
            x = self._carry(x, patch({**args, "transformer_options": self.options})["img"])
        return x

    def _seen(self, time: Tensor) -> Tensor:
        """Return the timestep's embedding or modulation as ComfyUI's network would show it."""
        return time.to(self.dtype).unsqueeze(1) if self.time_by_frame else time.to(self.dtype)

    def _carry(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Add a patch's change to x; `tokens` is the patch's result in the patches' dtype."""
        if x.dtype == self.dtype or x.shape != tokens.shape:
            return tokens.to(x.dtype)
        return x + (tokens.to(x.dtype) - x.to(self.dtype))


def is_own(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Tell whether a part of the network is still `kind`, with its own forward and without listeners."""
    module = getattr(module, "_orig_mod", module)  # inside torch.compile's wrapper
    # ComfyUI puts a patched forward back as an attribute of the module.
    forward = module.__dict__.get("forward")
    replaced = forward is not None and getattr(forward, "__func__", None) is not type(module).forward
    return isinstance(module, kind) and not (replaced or module._forward_hooks or module._forward_pre_hooks)


def is_own_block(block: nn.Module) -> bool:
    """Tell whether a block and its parts are ours."""
    return (
        is_own(block, Block)
        and is_own(block.self_attn, SelfAttention)
        and is_own(block.cross_attn, wan.WanT2VCrossAttention)
        and is_own_feed_forward(block.ffn)
    )


def is_own_feed_forward(ffn: nn.Module) -> bool:
    """Tell whether a block's feed-forward is linear, GELU, linear, and may be run layer by layer."""
    plain = type(ffn) is nn.Sequential and len(ffn) == 3 and is_own(ffn, nn.Sequential)
    return plain and is_own(ffn[1], nn.GELU)


def rotary_turns(rope: Tensor) -> RotaryTable | None:
    """Read (cos, sin) off ComfyUI's matrices [.., 2, 2]; None where a node made them no rotations."""
    (a, b), (c, d) = (row.unbind(-1) for row in rope.unbind(-2))
    if not torch.equal(a, d) or not torch.equal(b, -c):
        return None
    return RotaryTable(torch.stack((a, c), dim=-1).float())
