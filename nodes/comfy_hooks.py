"""ComfyUI's patches, block replacements, attention and rotary kernels, on one forward pass of our network.

B batch, C channels, T h w latent frames, rows, columns.
"""

from typing import Any

import comfy.ldm.flux.math
import comfy.ldm.modules.attention
import torch
from torch import Tensor

from ..vdot_core.networks import Hooks, RotaryTable, apply_rotary


class ComfyHooks(Hooks):
    """ComfyUI's patches and options on one forward pass.

    Patches see tokens in the dtype that ComfyUI chose, as in its own network, for their layers may take no
    other; their changes are then added to the float32 tokens.

    Args:
        options: transformer_options; written to, as ComfyUI's networks do, so that patches know their place.
        num_blocks: of the backbone.
    """

    def __init__(self, options: dict, num_blocks: int) -> None:
        self.options = options
        self.patches = options.get("patches", {})
        self.replacements = options.get("patches_replace", {}).get("dit", {})
        # Patches may split the batch by cond_or_uncond, so they must see one context at a time.
        self.batch_contexts = not self.patches and "optimized_attention_override" not in options
        self.in_place = not self.patches and not self.replacements
        self.dtype: torch.dtype | None = None
        options["total_blocks"] = num_blocks
        options["block_type"] = "double"
        self._turns: tuple[Any, RotaryTable] | None = None

    def attention(self, q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> Tensor:
        """Attend with ComfyUI's choice, or its override."""
        attention = comfy.ldm.modules.attention.optimized_attention
        return attention(q, k, v, heads=num_heads, transformer_options=self.options)

    def begin(self, latents: Tensor, grid: tuple[int, int, int]) -> None:
        """Publish the token grid; note the dtype that ComfyUI chose."""
        self.dtype = latents.dtype
        self.options["grid_sizes"] = torch.Size(grid)

    def rotate(self, x: Tensor, rope: Tensor) -> Tensor:
        """Rotate with ComfyUI's kernels; on a CPU with ours, which are faster there."""
        if x.device.type != "cpu":
            return comfy.ldm.flux.math.apply_rope1(x, rope)
        if self._turns is None or self._turns[0] is not rope:
            turns = rope[..., :, 0].contiguous()  # the first column of each rotation matrix is (cos, sin)
            self._turns = (rope, RotaryTable(turns.float()))
        return apply_rotary(x, self._turns[1])

    def run_block(
        self, index: int, block: Any, x: Tensor, modulation: Tensor, text: Tensor, rope: Any
    ) -> Tensor:
        """Run a block, or what `patches_replace["dit"]` puts in its place."""
        self.options["block_index"] = index
        replacement = self.replacements.get(("double_block", index))
        if replacement is None:
            return block(x, modulation, text, rope, self)

        exact, seen_modulation = x, modulation.to(self.dtype)

        def original_block(args: dict) -> dict:
            nonlocal exact
            hooks = self
            if args["transformer_options"] is not self.options:
                hooks = ComfyHooks(args["transformer_options"], self.options["total_blocks"])
                hooks.dtype, hooks.in_place = self.dtype, False
            vec = modulation if args["vec"] is seen_modulation else args["vec"]
            exact = block(self._carry(x, args["img"]), vec, args["txt"], args["pe"], hooks)
            return {"img": exact.to(self.dtype)}

        args = {"img": x.to(self.dtype), "txt": text, "vec": seen_modulation, "pe": rope}
        args["transformer_options"] = self.options
        result = replacement(args, {"original_block": original_block})["img"]
        return self._carry(exact, result)

    def _carry(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Add a patch's change to x; `tokens` is the patch's result in the patches' dtype."""
        if x.dtype == self.dtype or x.shape != tokens.shape:
            return tokens.to(x.dtype)
        return x + (tokens.to(x.dtype) - x.to(self.dtype))

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
            args = {"img": x.to(self.dtype), "x": latents, "vec": time}
            args |= {"block_index": index, "img_offset": 0}
            x = self._carry(x, patch({**args, "transformer_options": self.options})["img"])
        return x
