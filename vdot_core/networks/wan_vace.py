"""The Wan 2.1 video transformer with VACE's context branch: generator, scores and ComfyUI model alike.

B batch, K contexts, C channels, T h w latent frames, rows and columns, L tokens, S text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import AttentionFunction, sdpa_attention
from .checkpointing import Tokens, in_groups, run_recomputed, running_order
from .config import WanVaceConfig
from .context_scale import ContextScale, Scale, context_weights
from .hooks import Hooks
from .initialize import initialize_weights
from .layers import Block, Factory, Head, VaceBlock, sinusoidal_embedding
from .rope import grid_table
from .vace_branch import BlockPass, VaceBranch, contexts_per_pass


class WanVace(nn.Module):
    """Wan-VACE: predicts the velocity `noise - x0` of a noised video latent, given text and contexts.

    Parameter names are Wan's and VACE's own, so released checkpoints load as they are. Activations have the
    dtype of the network's weights. A layer's VACE hint counts as part of its output.

    Args:
        config: sizes.
        operations: where Linear, LayerNorm, RMSNorm and Conv3d come from.
        attention: what every attention goes through; torch's scaled_dot_product_attention unless given.
        device: of the parameters.
        dtype: of the parameters; the two patch embeddings stay float32, as in Wan.
    """

    def __init__(
        self,
        config: WanVaceConfig,
        operations: Any = nn,
        *,
        attention: AttentionFunction | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.default_hooks = Hooks(attention or sdpa_attention)
        self.checkpoint_every = 0
        make = Factory(operations, device, dtype)
        dim = config.dim
        self.patch_embedding = make.patches(config.in_channels, config)
        self.text_embedding = nn.Sequential(
            make.linear(config.text_dim, dim), nn.GELU(approximate="tanh"), make.linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(
            make.linear(config.freq_dim, dim), nn.SiLU(), make.linear(dim, dim)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), make.linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(Block(config, make) for _ in range(config.num_layers))
        self.head = Head(config, make)
        if config.vace_layers:
            self.vace_patch_embedding = make.patches(config.vace_in_channels, config)
            self.vace_blocks = nn.ModuleList(
                VaceBlock(config, make, first=n == 0) for n in range(len(config.vace_layers))
            )

    def initialize_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew to train from scratch; see `initialize.initialize_weights`."""
        initialize_weights(self, generator)

    def gradient_checkpointing(self, every_n_blocks: int = 1) -> None:
        """Trade time for memory: in training, groups of blocks keep only what enters them and run again.

        Groups of consecutive blocks, those of the VACE branch at their turn among the backbone's, are
        recomputed as one: autograd keeps what enters each group, and for a while all of the one that the
        backward pass has come to. Small groups keep more inputs, large ones hold more at once; either way
        every block runs once more. Hooks are called again with the blocks.

        Args:
            every_n_blocks: blocks of a group; 1 recomputes each for itself; 0 turns it off.

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
            x: [B, C, T, h, w] noised latents, in the network's normalised space; h, w of any size.
            timestep: [B], 0..1000; [1] where all samples share one (a little faster).
            text: [B, S, text_dim] of the text encoder; S of any length, [1, S, text_dim] where all share one.
            contexts: [B, K, vace_in_channels, T, h, w], or [1, ...] where all share them; None leaves the
                branch out, which equals a scale of 0.
            context_scale: float, [K], [K, num_vace_layers], [K, T], or a `ContextScale`, which is needed
                where num_vace_layers == T.
            taps: layer indices, rising, whose output tokens (VACE hint included) are wanted too.
            hooks: extension points; see `Hooks`.
            rope: what `hooks.rotate` is given; a `rotary_table` of positions from 0 by default.

        Returns:
            Velocity [B, C_out, T, h, w] of x's dtype; with taps, (velocity, [tokens [B, L, D] per tap]).

        Raises:
            ValueError: a shape does not fit the network or another argument.
        """
        self._check(x, timestep, text, contexts, taps)
        hooks = hooks or self.default_hooks
        dtype = self.activation_dtype(x)
        latents = pad_to_patch(x.to(dtype), self.config.patch_size)
        x0 = self.embed_patches(self.patch_embedding, latents)
        grid = tuple(x0.shape[2:])
        x0 = x0.flatten(2).transpose(1, 2).contiguous()
        hooks.begin(latents, grid)
        time = self.time_embedding(sinusoidal_embedding(timestep.reshape(-1), self.config.freq_dim).to(dtype))
        modulation = self.time_projection(time).unflatten(1, (6, -1))
        text = self.text_embedding(text.to(dtype))
        rope = grid_table(grid, self.config.head_dim, x.device) if rope is None else rope
        branch, streams = self._branch(
            contexts, context_scale, x0, grid, (modulation, text, rope, hooks), taps
        )
        run = BlockPass(self.blocks, branch, hooks, (modulation, text, rope), latents, time, frozenset(taps))
        tokens = Tokens(x0, dict(enumerate(streams)), x0 if streams else None)
        del x0, streams  # each is freed as soon as the blocks are through with it
        self._run_blocks(run, tokens)
        velocity = self._to_video(self.head(tokens.x, time), grid)
        velocity = velocity[:, :, : x.shape[2], : x.shape[3], : x.shape[4]].to(x.dtype)
        return (velocity, tokens.features) if taps else velocity

    def _run_blocks(self, run: BlockPass, tokens: Tokens) -> None:
        layers = self.config.vace_layers
        order = running_order(self.config.num_layers, layers, len(tokens.streams))
        if not self.checkpoint_every or not torch.is_grad_enabled():
            for call in order:
                run(call, tokens)
            return
        for group in in_groups(order, self.checkpoint_every):
            run_recomputed(group, tokens, run)

    def _branch(
        self,
        contexts: Tensor | None,
        scale: Scale | ContextScale,
        video: Tensor,
        grid: tuple[int, int, int],
        given: tuple[Tensor, Tensor, Any, Hooks],
        taps: Sequence[int],
    ) -> tuple[VaceBranch | None, list[Tensor]]:
        """The branch and its streams of context tokens; none without contexts."""
        if contexts is None:
            return None, []
        layers = self.config.vace_layers
        num_contexts = contexts.shape[1]
        weights = context_weights(scale, num_contexts, len(layers), grid, video.device)
        contexts = contexts.to(video.dtype).expand(video.shape[0], -1, -1, -1, -1, -1)
        group = contexts_per_pass(num_contexts, video.shape[0] * video.shape[1], given[3].batch_contexts)
        streams = [self._embed_contexts(part.flatten(0, 1), grid) for part in contexts.split(group, dim=1)]
        modulation = given[0]
        if group > 1 and modulation.shape[0] > 1:
            modulation = modulation.repeat_interleave(group, dim=0)
        branch = VaceBranch(
            blocks=self.vace_blocks,
            places={layer: n for n, layer in enumerate(layers)},
            group=group,
            weights=weights,
            given=(modulation, *given[1:]),
            in_place=not taps and not torch.is_grad_enabled(),
        )
        return branch, streams

    def _embed_contexts(self, contexts: Tensor, grid: tuple[int, int, int]) -> Tensor:
        padded = pad_to_patch(contexts, self.config.patch_size)
        embedded = self.embed_patches(self.vace_patch_embedding, padded)
        if tuple(embedded.shape[2:]) != grid:
            raise ValueError(
                f"contexts of {list(contexts.shape[2:])} latents (frames, rows, columns) make a grid of "
                f"{list(embedded.shape[2:])} tokens, the noised latents one of {list(grid)}; give both the "
                "same size, reference frames included"
            )
        return embedded.flatten(2).transpose(1, 2).contiguous()

    def activation_dtype(self, x: Tensor) -> torch.dtype:
        """Return the dtype to compute in: that of the weights."""
        return self.time_embedding[0].weight.dtype

    def embed_patches(self, embedding: nn.Module, latents: Tensor) -> Tensor:
        """Embed [B, C, T, h, w] as [B, D, T', h', w'], in the embedding's own precision."""
        return embedding(latents.to(embedding.weight.dtype)).to(latents.dtype)

    def _to_video(self, patches: Tensor, grid: tuple[int, int, int]) -> Tensor:
        (t, h, w), (pt, ph, pw) = grid, self.config.patch_size
        video = patches.view(-1, t, h, w, pt, ph, pw, self.config.out_channels).permute(
            0, 7, 1, 4, 2, 5, 3, 6
        )
        return video.reshape(-1, self.config.out_channels, t * pt, h * ph, w * pw)

    def _check(
        self, x: Tensor, timestep: Tensor, text: Tensor, contexts: Tensor | None, taps: Sequence[int]
    ) -> None:
        config = self.config
        if x.ndim != 5 or x.shape[1] != config.in_channels or 0 in x.shape:
            raise ValueError(f"latents have shape {list(x.shape)}; give [B, {config.in_channels}, T, h, w]")
        batch = x.shape[0]
        if not isinstance(timestep, Tensor):
            raise ValueError(f"timestep is {timestep!r}; give a tensor [{batch}], one per sample, or [1]")
        if timestep.ndim > 1 or timestep.numel() not in (1, batch):
            raise ValueError(
                f"timestep has shape {list(timestep.shape)}; give [{batch}], one per sample, or [1]"
            )
        if text.ndim != 3 or text.shape[0] not in (1, batch) or text.shape[2] != config.text_dim:
            raise ValueError(f"text has shape {list(text.shape)}; give [{batch}, S, {config.text_dim}]")
        if wrong := [tap for tap in taps if not 0 <= tap < config.num_layers]:
            raise ValueError(
                f"taps {wrong} are no blocks; the network has blocks 0 to {config.num_layers - 1}"
            )
        if list(taps) != sorted(set(taps)):
            raise ValueError(f"taps are {list(taps)}; give each once, rising: features come in that order")
        if contexts is None:
            return
        if not config.vace_layers:
            raise ValueError(
                "contexts given to a text-only network; leave them out, or load a VACE checkpoint"
            )
        expected = f"[{batch}, K, {config.vace_in_channels}, {', '.join(map(str, x.shape[2:]))}]"
        if contexts.ndim != 6 or contexts.shape[0] not in (1, batch) or contexts.shape[1] == 0 \
                or contexts.shape[2] != config.vace_in_channels:  # fmt: skip
            raise ValueError(f"contexts have shape {list(contexts.shape)}; give {expected}, like the latents")


def pad_to_patch(latents: Tensor, patch_size: tuple[int, int, int]) -> Tensor:
    """Pad latents [B, C, T, h, w] at their ends, wrapping around, to whole patches."""
    missing = [-size % patch for size, patch in zip(latents.shape[2:], patch_size, strict=True)]
    if not any(missing):
        return latents
    t, h, w = missing
    return F.pad(latents, (0, w, 0, h, 0, t), mode="circular")


def expected_shapes(config: WanVaceConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every parameter of a network, without allocating it."""
    network = WanVace(config, device="meta")
    return {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
