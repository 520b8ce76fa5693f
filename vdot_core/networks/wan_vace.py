"""The Wan 2.1 video transformer with VACE's context branch: used as generator, score and ComfyUI model.

B batch, K contexts, C channels, T h w latent frames, rows and columns, L tokens, S text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import AttentionFunction, sdpa_attention
from .checks import check_inputs
from .config import WanVaceConfig
from .context_scale import ContextScale, Scale, Weight, add_hints, context_weights
from .hooks import Hooks
from .initialize import initialize_weights
from .layers import Factory, sinusoidal_embedding, writes_in_place
from .passes import block_groups, contexts_per_pass
from .rope import grid_table


class WanVace(nn.Module):
    """Wan-VACE: predicts the velocity `noise - x0` of a noised video latent, given text and contexts.

    Parameter names are Wan's and VACE's own, so released checkpoints load as they are. Layers compute in the
    dtype of the network's weights; tokens between them and the modulation are float32 also for bf16 and fp16
    weights, as in Wan's own code. A layer's VACE hint counts as part of its output.

    Args:
        config: sizes.
        operations: where Linear, LayerNorm, RMSNorm and Conv3d come from.
        attention: what every attention goes through; torch's scaled_dot_product_attention by default.
        self_attention: what attention among the video's tokens goes through; `attention` by default.
        device: of the parameters.
        dtype: of the parameters; the two patch embeddings stay float32, as in Wan.

    Attributes:
        residual_dtype: least precision of the tokens between layers; set it to bfloat16 to keep them as the
            weights are, for training in half the memory of stored activations.
    """

    factory: type[Factory] = Factory
    """Maker of the layers and blocks; a host's subclass of the network may have its own."""

    def __init__(
        self,
        config: WanVaceConfig,
        operations: Any = nn,
        *,
        attention: AttentionFunction | None = None,
        self_attention: AttentionFunction | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.default_hooks = Hooks(attention or sdpa_attention, self_attention)
        self.checkpoint_every, self.adapted = 0, None
        self.residual_dtype = torch.float32
        make = self.factory(operations, device, dtype)
        dim = config.dim
        self.patch_embedding = make.patches(config.in_channels, config)
        self.text_embedding = nn.Sequential(
            make.linear(config.text_dim, dim), nn.GELU(approximate="tanh"), make.linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(
            make.linear(config.freq_dim, dim), nn.SiLU(), make.linear(dim, dim)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), make.linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(make.block(config) for _ in range(config.num_layers))
        self.head = make.head(config)
        self.vace_layers_mapping = {layer: n for n, layer in enumerate(config.vace_layers)}
        if config.vace_layers:
            self.vace_patch_embedding = make.patches(config.vace_in_channels, config)
            self.vace_blocks = nn.ModuleList(
                make.vace_block(config, n) for n in range(len(config.vace_layers))
            )

    def initialize_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw random weights to train from scratch; see `initialize.initialize_weights`."""
        initialize_weights(self, generator)

    def gradient_checkpointing(self, every_n_blocks: int = 1) -> None:
        """Trade time for memory in training: keep blocks' inputs only, and run them again for gradients.

        Up to every_n_blocks consecutive backbone blocks are recomputed as one group, which ends where a hint
        is added or features are tapped; each VACE block is a group. Hooks are called again with the blocks.

        Args:
            every_n_blocks: backbone blocks of a group; 1 recomputes each by itself; 0 turns it off.

        Raises:
            ValueError: every_n_blocks is negative.
        """
        if every_n_blocks < 0:
            raise ValueError(f"every_n_blocks is {every_n_blocks}; give 0 (off), 1 (each block) or more")
        self.checkpoint_every = every_n_blocks

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        text: Tensor,
        contexts: Tensor | None = None,
        context_scale: Scale | ContextScale = 1.0,
        *,
        taps: Sequence[int] = (),
        hooks: Hooks | None = None,
        rope: Any = None,
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Predict the velocity of noised latents.

        Args:
            x: [B, C, T, h, w] noised latents, in the network's normalized space; h, w of any size.
            timestep: [B], 0..1000; [1] where all samples share one (a little faster).
            text: [B or 1, S, text_dim] of the text encoder; S of any length.
            contexts: [B or 1, K, vace_in_channels, T, h, w]; None leaves them out, as a scale of 0 does.
            context_scale: float, [K], [K, num_vace_layers], [K, T] or `ContextScale`; see `context_weights`.
            taps: layer indices, rising, whose output tokens (VACE hint included) are returned too.
            hooks: extension points; see `Hooks`.
            rope: argument of `hooks.rotate`; a `rotary_table` of positions from 0 by default.

        Returns:
            Velocity [B, C_out, T, h, w] of x's dtype; with taps, (velocity, [tokens [B, L, D] per tap]).

        Raises:
            ValueError: a shape does not fit the network or another argument.
        """
        check_inputs(self.config, x, timestep, text, contexts, taps)
        hooks = hooks or self.default_hooks
        padded = pad_to_patch(x, self.config.patch_size)
        latents = padded.to(self.activation_dtype(x))
        tokens, grid = self.patchify(self.patch_embedding, padded, self._stream_dtype(latents.dtype))
        hooks.begin(latents, grid)
        time, modulation, text = self._embed_conditions(timestep, text, latents.dtype)
        rope = grid_table(grid, self.config.head_dim, x.device) if rope is None else rope
        streams, weights, vace_modulation = self._embed_contexts(
            contexts, context_scale, latents.dtype, tokens, grid, modulation, hooks
        )

        overwritten, features, in_place = writes_in_place(hooks), [], not taps and not torch.is_grad_enabled()
        video = tokens.to(latents.dtype, copy=overwritten) if streams else None
        for layers in self._groups(taps, streams):
            tokens = self._run(self._run_blocks, layers, tokens, modulation, text, rope, latents, time, hooks)
            place = self.vace_layers_mapping.get(layers[-1])
            if place is not None:
                for n in range(len(streams)):
                    block = self.vace_blocks[place]
                    hints, streams[n] = self._run(
                        hooks.run_vace_block, block, streams[n], video, vace_modulation, text, rope
                    )
                    tokens = add_hints(tokens, hints, weights[place][n], in_place)
                    del hints  # or they live until the next VACE block
            video = None if place == 0 else video  # only the first VACE block reads it
            if layers[-1] in taps:
                features.append(tokens.clone() if overwritten else tokens)

        velocity = self.unpatchify(hooks.run_head(self.head, tokens, time), grid)
        velocity = velocity[:, :, : x.shape[2], : x.shape[3], : x.shape[4]].to(x.dtype)
        return (velocity, features) if taps else velocity

    def _groups(self, taps: Collection[int], streams: Sequence[Tensor]) -> list[range]:
        """Cut the backbone into groups to recompute as one; without checkpointing, into single layers."""
        size = self.checkpoint_every if torch.is_grad_enabled() else 0
        num_layers, place_of = len(self.blocks), self.vace_layers_mapping.get
        hinted = [layer for layer in range(num_layers) if place_of(layer) is not None]
        return block_groups(num_layers, {*taps, *hinted} if streams else taps, size or 1)

    def _run(self, function: Callable, *inputs: Any) -> Any:
        """Call a block, or a group; with gradient checkpointing autograd keeps only the inputs."""
        if self.checkpoint_every and torch.is_grad_enabled():
            contexts = {} if self.adapted is None else {"context_fn": self._contexts}
            return checkpoint(function, *inputs, use_reentrant=False, **contexts)
        return function(*inputs)

    def _contexts(self) -> tuple[Any, Any]:
        """Contexts of a group's pass and of its rerun, which needs the same adapters."""
        return nullcontext(), self.adapted.activated(*self.adapted.names)

    def _run_blocks(
        self,
        layers: range,
        tokens: Tensor,
        modulation: Tensor,
        text: Tensor,
        rope: Any,
        latents: Tensor,
        time: Tensor,
        hooks: Hooks,
    ) -> Tensor:
        """Run consecutive backbone blocks."""
        for layer in layers:
            tokens = hooks.run_block(layer, self.blocks[layer], tokens, modulation, text, rope)
            tokens = hooks.after_block(layer, tokens, latents, time)
        return tokens

    def _embed_conditions(
        self, timestep: Tensor, text: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Embed the timestep [B or 1, D], its modulation of blocks [B or 1, 6, D], and the text [B, S, D]."""
        time = self.time_embedding(sinusoidal_embedding(timestep.reshape(-1), self.config.freq_dim).to(dtype))
        modulation = rearrange(self.time_projection(time), "b (rows d) -> b rows d", rows=6)
        # Autocast would embed the text in another dtype than blocks are to compute in.
        return time, modulation.to(self._stream_dtype(dtype)), self.text_embedding(text.to(dtype)).to(dtype)

    def _embed_contexts(
        self,
        contexts: Tensor | None,
        scale: Scale | ContextScale,
        dtype: torch.dtype,
        video: Tensor,
        grid: tuple[int, int, int],
        modulation: Tensor,
        hooks: Hooks,
    ) -> tuple[list[Tensor], list[list[list[Weight]]], Tensor]:
        """Embed the inputs of VACE blocks, k contexts to a pass.

        Returns:
            (streams, each [B * k, L, D]; weights[VACE block][stream][k]; modulation [B * k or 1, 6, D]).
        """
        if contexts is None:
            return [], [], modulation
        num_contexts, (batch, num_tokens, _) = contexts.shape[1], video.shape
        weights = context_weights(scale, num_contexts, len(self.vace_blocks), grid, video.device)
        share = contexts_per_pass(num_contexts, batch * num_tokens, hooks.batch_contexts)
        contexts = contexts.expand(batch, -1, -1, -1, -1, -1)
        streams = []
        for part in contexts.split(share, dim=1):
            padded = pad_to_patch(rearrange(part, "b k c t h w -> (b k) c t h w"), self.config.patch_size)
            tokens, context_grid = self.patchify(self.vace_patch_embedding, padded, dtype)
            if context_grid != grid:
                raise ValueError(
                    f"contexts of {list(contexts.shape[3:])} latents (frames, rows, columns) make a grid of "
                    f"{list(context_grid)} tokens, the noised latents one of {list(grid)}; give both the "
                    "same size, reference frames included"
                )
            streams.append(tokens)
        if share > 1 and modulation.shape[0] > 1:
            modulation = repeat(modulation, "b rows d -> (b k) rows d", k=share)
        by_stream = [[row[n : n + share] for n in range(0, num_contexts, share)] for row in weights]
        return streams, by_stream, modulation

    def _stream_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return the dtype of tokens and modulation around layers that compute in `dtype`."""
        return torch.promote_types(dtype, self.residual_dtype)

    def patchify(
        self, embedding: nn.Module, latents: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, tuple[int, int, int]]:
        """Embed latents [B, C, T, h, w], padded to the patch size, as (tokens [B, L, D], their grid)."""
        patches = self.embed_patches(embedding, latents).to(dtype)
        return rearrange(patches, "b d t h w -> b (t h w) d").contiguous(), tuple(patches.shape[2:])

    def unpatchify(self, patches: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Lay out the head's patches [B, L, patch * C_out] as a video [B, C_out, T, h, w]."""
        (t, h, w), (pt, ph, pw) = grid, self.config.patch_size
        return rearrange(
            patches, "b (t h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)", t=t, h=h, w=w, pt=pt, ph=ph, pw=pw
        )

    def activation_dtype(self, x: Tensor) -> torch.dtype:
        """Return the dtype to compute in: that of the weights."""
        return self.time_embedding[0].weight.dtype

    def embed_patches(self, embedding: nn.Module, latents: Tensor) -> Tensor:
        """Embed [B, C, T, h, w] as [B, D, T', h', w'], in the embedding's own precision."""
        return embedding(latents.to(embedding.weight.dtype))


def pad_to_patch(latents: Tensor, patch_size: tuple[int, int, int]) -> Tensor:
    """Pad latents [B, C, T, h, w] at their ends, wrapping around, to a multiple of the patch size."""
    missing = [-size % patch for size, patch in zip(latents.shape[2:], patch_size, strict=True)]
    if not any(missing):
        return latents
    t, h, w = missing
    return F.pad(latents, (0, w, 0, h, 0, t), mode="circular")


def expected_shapes(config: WanVaceConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every parameter of a network, without allocating it."""
    network = WanVace(config, device="meta")
    return {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
