"""The arithmetic of Wan's and VACE's own code under bfloat16 autocast, from the weights of a network.

Linear layers, convolutions and attention round to the weights' dtype. Norms, the embedding of the timestep,
the modulation, gates, the residual sum and the head are float32. B batch, L tokens, S text tokens, D width.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vdot_core.networks import WanVace, rotary_table


class OfficialArithmetic:
    """A forward pass with one context of strength 1.

    Args:
        network: where sizes and weights come from.
        dtype: of linear layers, convolutions and attention.
        residual: of the token stream; float32 in the original.
    """

    def __init__(self, network: WanVace, dtype: torch.dtype, residual: torch.dtype = torch.float32) -> None:
        self.config, self.dtype, self.residual = network.config, dtype, residual
        self.weights = {name: value.detach().float() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def __call__(self, x: Tensor, timestep: Tensor, text: Tensor, contexts: Tensor) -> Tensor:
        """Velocity of x, as `WanVace` has its arguments."""
        config, exact = self.config, torch.float32
        tokens, grid = self._patches("patch_embedding", x)
        context, _ = self._patches("vace_patch_embedding", contexts[:, 0])
        self.rope = rotary_table(tuple(torch.arange(size) for size in grid), config.head_dim).turns
        frequencies = 10000.0 ** (-torch.arange(config.freq_dim // 2).double() / (config.freq_dim // 2))
        angles = timestep.double()[:, None] * frequencies
        time = torch.cat((angles.cos(), angles.sin()), dim=1).float()
        time = self._linear("time_embedding.2", F.silu(self._linear("time_embedding.0", time, exact)), exact)
        modulation = self._linear("time_projection.1", F.silu(time), exact).unflatten(1, (6, -1))
        text = F.gelu(self._linear("text_embedding.0", text), approximate="tanh")
        text = self._linear("text_embedding.2", text)
        context = (self._linear("vace_blocks.0.before_proj", context) + tokens).to(self.residual)
        for n in range(config.num_layers):
            tokens = self._block(f"blocks.{n}", tokens, modulation, text)
            if n in config.vace_layers:
                vace = f"vace_blocks.{config.vace_layers.index(n)}"
                context = self._block(vace, context, modulation, text)
                tokens = (tokens + self._linear(f"{vace}.after_proj", context)).to(self.residual)
        shift, scale = (self.weights["head.modulation"] + time[:, None]).chunk(2, dim=1)
        patches = self._linear("head.head", self._norm(tokens) * (1 + scale) + shift, exact)
        (t, h, w), (pt, ph, pw) = grid, config.patch_size
        layout = "b (t h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)"
        return rearrange(patches, layout, t=t, h=h, w=w, pt=pt, ph=ph, pw=pw)

    def _linear(self, name: str, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        weight, bias = (self.weights[f"{name}.{kind}"].to(dtype or self.dtype) for kind in ("weight", "bias"))
        return F.linear(x.to(weight.dtype), weight, bias)

    def _patches(self, name: str, latents: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        weight, bias = (self.weights[f"{name}.{kind}"].to(self.dtype) for kind in ("weight", "bias"))
        patches = F.conv3d(latents.to(self.dtype), weight, bias, stride=self.config.patch_size)
        return rearrange(patches, "b d t h w -> b (t h w) d").to(self.residual), tuple(patches.shape[2:])

    def _norm(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), x.shape[-1:], eps=self.config.eps)

    def _attend(self, name: str, x: Tensor, source: Tensor, rope: Tensor | None = None) -> Tensor:
        q, k = (self._linear(f"{name}.{kind}", y) for kind, y in (("q", x), ("k", source)))
        parts = []
        for kind, y in (("q", q), ("k", k)):
            exact = y.float()
            exact = exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + self.config.eps)
            exact = exact * self.weights[f"{name}.norm_{kind}.weight"]
            exact = exact.to(y.dtype).float().unflatten(-1, (self.config.num_heads, -1))
            if rope is not None:
                (even, odd), (cos, sin) = exact.unflatten(-1, (-1, 2)).unbind(-1), rope.unbind(-1)
                exact = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
            parts.append(exact.to(y.dtype).transpose(1, 2))
        value = self._linear(f"{name}.v", source).unflatten(-1, (self.config.num_heads, -1)).transpose(1, 2)
        attended = F.scaled_dot_product_attention(*parts, value)
        return self._linear(f"{name}.o", attended.transpose(1, 2).flatten(-2))

    def _block(self, name: str, x: Tensor, modulation: Tensor, text: Tensor) -> Tensor:
        rows = (self.weights[f"{name}.modulation"] + modulation).chunk(6, dim=1)
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = rows
        y = (self._norm(x) * (1 + scale) + shift).to(self.dtype)
        x = (x + self._attend(f"{name}.self_attn", y, y, self.rope) * gate).to(self.residual)
        y = self._norm(x) * self.weights[f"{name}.norm3.weight"] + self.weights[f"{name}.norm3.bias"]
        x = (x + self._attend(f"{name}.cross_attn", y, text)).to(self.residual)
        y = self._linear(f"{name}.ffn.0", self._norm(x) * (1 + ffn_scale) + ffn_shift)
        y = self._linear(f"{name}.ffn.2", F.gelu(y, approximate="tanh"))
        return (x + y * ffn_gate).to(self.residual)
