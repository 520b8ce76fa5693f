"""The discriminator: a small head on features of a score network's blocks, without a separate backbone.

B batch, L tokens, D width of the score network, W width of the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from .config import WanVaceConfig

TIME_GAIN = 10.0
"""The time embedding is scaled by this before it joins register outputs of unit size."""

_RELEASED_TAPS = {40: (23, 31, 39), 30: (13, 21, 29)}
_TAP_DEPTHS = (0.6, 0.8, 1.0)
_SMALL_DIM = 512


def default_taps(num_layers: int) -> tuple[int, ...]:
    """Return the blocks (0-based) whose outputs the discriminator looks at.

    Args:
        num_layers: blocks of the backbone.

    Returns:
        (23, 31, 39) of 40 and (13, 21, 29) of 30, as released; of other depths the blocks at 0.6, 0.8 and 1
        of the way, `round(f * num_layers) - 1`.

    Raises:
        ValueError: the network is too shallow for three different blocks.
    """
    if num_layers in _RELEASED_TAPS:
        return _RELEASED_TAPS[num_layers]
    taps = tuple(round(depth * num_layers) - 1 for depth in _TAP_DEPTHS)
    if num_layers < 1 or len(set(taps)) < len(taps) or taps[0] < 0:
        raise ValueError(
            f"num_layers is {num_layers}; three different ones to tap need at least 4: name the taps"
        )
    return taps


def reference_token_mask(
    latent_shape: Sequence[int],
    num_reference_latents: int,
    patch_size: tuple[int, int, int] = (1, 2, 2),
    device: torch.device | str | None = None,
) -> Tensor:
    """Mark the tokens that belong to the video and not to the reference frames before it.

    Args:
        latent_shape: (.., T, h, w) of the latents, references included; h, w of any size.
        num_reference_latents: leading latent frames that hold references.
        patch_size: latents per token along (T, h, w).
        device: where the mask is needed.

    Returns:
        [L] bool, True for tokens that count; for `Discriminator(.., token_mask=)`.

    Raises:
        ValueError: the references are as many as the frames, or are not a multiple of the patch size.
    """
    frames, *rows_columns = latent_shape[-3:]
    if not 0 <= num_reference_latents < frames or num_reference_latents % patch_size[0]:
        raise ValueError(
            f"num_reference_latents is {num_reference_latents} of {frames} latent frames; leave at least one "
            f"frame, and give a multiple of {patch_size[0]}"
        )
    grid = [-(-size // patch) for size, patch in zip((frames, *rows_columns), patch_size, strict=True)]
    of_frame = torch.arange(grid[0], device=device) >= num_reference_latents // patch_size[0]
    return repeat(of_frame, "t -> (t hw)", hw=grid[1] * grid[2])


class RegisterAttention(nn.Module):
    """One learnable register token that attends to the tokens of one block.

    Args:
        dim: width D of the tokens.
        width: width W of the register.
        num_heads: attention heads.
        operations: where Linear and LayerNorm come from.
        device: of the parameters.
        dtype: of the parameters.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        num_heads: int,
        operations: Any = nn,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.register = nn.Parameter(torch.zeros(1, 1, width, device=device, dtype=dtype))
        # Residual streams of deep blocks have a few channels a thousand times the others.
        self.norm = operations.LayerNorm(dim, eps=1e-6, device=device, dtype=dtype)
        self.q = operations.Linear(width, width, device=device, dtype=dtype)
        self.k = operations.Linear(dim, width, device=device, dtype=dtype)
        self.v = operations.Linear(dim, width, device=device, dtype=dtype)
        self.o = operations.Linear(width, width, device=device, dtype=dtype)

    def forward(self, features: Tensor, mask: Tensor | None) -> Tensor:
        """Attend. features: [B, L, D]; mask: [B or 1, L] bool. Returns [B, W]."""
        features = self.norm(features)
        query = self.q(self.register.to(features).expand(features.shape[0], -1, -1))
        q, k, v = (
            rearrange(x, "b l (n d) -> b n l d", n=self.num_heads)
            for x in (query, self.k(features), self.v(features))
        )
        mask = rearrange(mask, "b l -> b 1 1 l") if mask is not None else None
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.o(rearrange(attended, "b n l d -> b l (n d)")).squeeze(1)


class Discriminator(nn.Module):
    """Features of a few blocks to one logit per sample: how real the noised latents look.

    One register token per tapped block attends to that block's tokens; what the registers saw and the
    enlarged time embedding go through LayerNorm, Linear, SiLU and Linear. Tokens carry their position in
    their features, so the head itself does not depend on their order.

    Args:
        dim: width D of the score network.
        num_taps: tapped blocks.
        width: width W of a register and of the hidden layer.
        num_heads: heads of each cross-attention.
        time_dim: width of the time embedding; D unless given.
        operations: where Linear and LayerNorm come from.
        device: of the parameters.
        dtype: of the parameters; activations have it too.

    Raises:
        ValueError: a size is not positive, or the heads do not divide the width.
    """

    def __init__(
        self,
        dim: int,
        num_taps: int = 3,
        width: int = 512,
        num_heads: int = 8,
        time_dim: int | None = None,
        operations: Any = nn,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.time_dim = dim, time_dim if time_dim is not None else dim
        sizes = {"dim": dim, "num_taps": num_taps, "width": width, "num_heads": num_heads}
        for name, value in {**sizes, "time_dim": self.time_dim}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; give a positive integer")
        if width % num_heads:
            raise ValueError(f"width is {width}; {num_heads} heads do not divide it")
        self.registers = nn.ModuleList(
            RegisterAttention(dim, width, num_heads, operations, device=device, dtype=dtype)
            for _ in range(num_taps)
        )
        joined = num_taps * width + self.time_dim
        self.head = nn.Sequential(
            operations.LayerNorm(joined, eps=1e-6, device=device, dtype=dtype),
            operations.Linear(joined, width, device=device, dtype=dtype),
            nn.SiLU(),
            operations.Linear(width, 1, device=device, dtype=dtype),
        )
        if not self.registers[0].register.is_meta:
            self.initialize_weights()

    @classmethod
    def for_network(cls, config: WanVaceConfig, num_taps: int = 3, **kwargs: Any) -> Discriminator:
        """Build the head that suits a network: 512 wide, 8 heads as released, or 64 and 4 for tiny ones.

        Args:
            config: of the score network.
            num_taps: tapped blocks.
            kwargs: further arguments of `Discriminator`; width and num_heads may be among them.

        Returns:
            The head.
        """
        sizes = {"width": 512, "num_heads": 8} if config.dim >= _SMALL_DIM else {"width": 64, "num_heads": 4}
        return cls(config.dim, num_taps, **{**sizes, **kwargs})

    @torch.no_grad()
    def initialize_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw every parameter at random, in the order of `named_parameters`.

        Linear layers are Xavier-uniform with zero biases, registers normal(1), norms the identity.

        Args:
            generator: makes the draw reproducible on any device, for numbers are drawn where it lives.

        Raises:
            ValueError: the parameters are on the meta device.
        """
        for name, parameter in self.named_parameters():
            if parameter.is_meta:
                raise ValueError(
                    f"{name} is on the meta device; call discriminator.to_empty(device=..) first"
                )
            device = generator.device if generator is not None else parameter.device
            values = torch.zeros(parameter.shape, device=device)
            if name.endswith("register"):
                values.normal_(generator=generator)
            elif parameter.ndim == 2:
                bound = (6.0 / sum(parameter.shape)) ** 0.5
                values.uniform_(-bound, bound, generator=generator)
            elif name.endswith("weight"):
                values.fill_(1.0)
            parameter.copy_(values)

    def forward(
        self, features: Sequence[Tensor], time_embedding: Tensor, token_mask: Tensor | None = None
    ) -> Tensor:
        """Judge noised latents by a score network's features of them.

        Args:
            features: per tap [B, L, D], as `WanVace(.., taps=)` returns them.
            time_embedding: [B or 1, time_dim], the score network's embedding of the timestep.
            token_mask: [L] or [B, L] bool, True for tokens that count; all do unless given. See
                `reference_token_mask`.

        Returns:
            [B] logits, higher is more real; dtype of the weights.

        Raises:
            ValueError: the number of taps, a shape or the mask does not fit.
        """
        mask = self._check(features, time_embedding, token_mask)
        dtype = self.head[1].weight.dtype
        outputs = [
            register(tokens.to(dtype), mask)
            for register, tokens in zip(self.registers, features, strict=True)
        ]
        time = (TIME_GAIN * time_embedding.to(dtype)).expand(features[0].shape[0], -1)
        return self.head(torch.cat([*outputs, time], dim=-1)).squeeze(-1)

    def _check(self, features: Sequence[Tensor], time: Tensor, mask: Tensor | None) -> Tensor | None:
        if len(features) != len(self.registers):
            raise ValueError(
                f"features of {len(features)} blocks; this head has {len(self.registers)} registers"
            )
        batch, tokens = features[0].shape[:2]
        for index, one in enumerate(features):
            if one.shape != (batch, tokens, self.dim) or one.ndim != 3:
                raise ValueError(
                    f"features {index} have shape {list(one.shape)}; give [{batch}, {tokens}, {self.dim}], "
                    "the same for every tap"
                )
        if time.ndim != 2 or time.shape[0] not in (1, batch) or time.shape[1] != self.time_dim:
            raise ValueError(f"time embedding has shape {list(time.shape)}; give [{batch}, {self.time_dim}]")
        if mask is None:
            return None
        mask = mask[None] if mask.ndim == 1 else mask
        if mask.dtype != torch.bool or mask.ndim != 2 or mask.shape[0] not in (1, batch) or \
                mask.shape[1] != tokens:  # fmt: skip
            raise ValueError(
                f"token mask has shape {list(mask.shape)} and dtype {mask.dtype}; give bool [{tokens}] or "
                f"[{batch}, {tokens}]"
            )
        if not mask.is_meta and not bool(mask.any(dim=1).all()):
            raise ValueError("token mask leaves a sample without a token; at least one frame is no reference")
        return mask
