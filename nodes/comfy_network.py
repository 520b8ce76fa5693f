"""Our network behind ComfyUI's interface: call, wrappers and options of its Wan models.

B batch, K contexts, C channels, S text tokens, T h w latent frames, rows, columns, L tokens, P pairs of a
head's channels.
"""

from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import comfy.ldm.common_dit
import comfy.ldm.flux.layers
import comfy.patcher_extension
import torch
from einops import rearrange
from torch import Tensor

from ..vdot_core.networks import ContextScale, WanVace, WanVaceConfig
from ..vdot_core.networks.rope import THETA, axes_dims
from .comfy_hooks import ComfyHooks

# Our name of a size -> ComfyUI's, where they differ.
_COMFYUI_NAMES = {"in_channels": "in_dim", "out_channels": "out_dim", "vace_in_channels": "vace_in_dim"}


def config_from_unet(unet_config: dict[str, Any]) -> WanVaceConfig:
    """Read the sizes of a network from ComfyUI's unet_config.

    Args:
        unet_config: sizes as ComfyUI detected them, under its names or ours; `vace_layers` is a count (blocks
            spread evenly, as ComfyUI assumes) or the layers themselves. Other entries are ignored.

    Returns:
        The config.

    Raises:
        ValueError: a size is missing or impossible.
    """
    sizes = {}
    for field in fields(WanVaceConfig):
        value = unet_config.get(_COMFYUI_NAMES.get(field.name), unet_config.get(field.name))
        if value is not None:
            sizes[field.name] = value
    count = sizes.get("vace_layers")
    if isinstance(count, int):
        num_layers = sizes.get("num_layers", 0)
        if not 0 <= count <= num_layers:
            raise ValueError(f"vace_layers is {count}; the network has {num_layers} layers to follow")
        sizes["vace_layers"] = range(0, num_layers, num_layers // count)[:count] if count else ()
    return WanVaceConfig.from_dict(sizes)


def config_to_unet(config: WanVaceConfig) -> dict[str, Any]:
    """Give the sizes of a network as ComfyUI's unet_config, the inverse of `config_from_unet`.

    Args:
        config: the sizes; VACE blocks that are not spread evenly are lost, for ComfyUI only counts them.

    Returns:
        The keyword arguments of ComfyUI's VaceWanModel, or of its WanModel for a text-only network.
    """
    sizes = {
        _COMFYUI_NAMES.get(field.name, field.name): getattr(config, field.name) for field in fields(config)
    }
    if config.vace_layers:
        return {**sizes, "model_type": "vace", "vace_layers": len(config.vace_layers)}
    del sizes["vace_layers"], sizes["vace_in_dim"]
    return {**sizes, "model_type": "t2v"}


class ComfyWanVace(WanVace):
    """Wan-VACE behind ComfyUI's interface for Wan models; native patches, wrappers and options work on it.

    Args:
        config: sizes; read from `unet_config` where it is None.
        operations: ComfyUI's layers.
        device: of the parameters.
        dtype: of the parameters.
        unet_config: ComfyUI's detected configuration.
    """

    def __init__(
        self,
        config: WanVaceConfig | None = None,
        *,
        operations: Any,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **unet_config: Any,
    ) -> None:
        config = config or config_from_unet(unet_config)
        super().__init__(config, operations, device=device, dtype=dtype)
        # Names that ComfyUI and custom nodes read from a Wan model.
        self.dtype = dtype
        for name, value in config_to_unet(config).items():
            setattr(self, name, value)
        self.model_type = "t2v"  # as on ComfyUI's, which tells text from image conditioning by it
        self.rope_embedder = comfy.ldm.flux.layers.EmbedND(
            dim=config.head_dim, theta=THETA, axes_dim=list(axes_dims(config.head_dim))
        )

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        clip_fea: Tensor | None = None,
        time_dim_concat: Tensor | None = None,
        transformer_options: dict | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Predict the velocity, through ComfyUI's DIFFUSION_MODEL wrappers.

        Args:
            x: [B, C, T, h, w] noised latents.
            timestep: [B], 0..1000.
            context: [B, S, text_dim] of the text encoder.
            clip_fea: ignored, as by ComfyUI's VACE network, which has no image embedding.
            time_dim_concat: [B, C, T', h, w] latents that follow in time and are cut off the result.
            transformer_options: ComfyUI's options, patches and wrappers.
            kwargs: vace_context [B, K, 96, T + T', h, w] and vace_strength, with an entry for each context
                as the network's context_scale has them; others are ignored.

        Returns:
            [B, C, T, h, w].
        """
        options = {} if transformer_options is None else transformer_options
        kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(
            self._forward, self, comfy.patcher_extension.get_all_wrappers(kind, options)
        )
        return executor.execute(x, timestep, context, clip_fea, time_dim_concat, options, **kwargs)

    def _forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        clip_fea: Tensor | None = None,
        time_dim_concat: Tensor | None = None,
        transformer_options: dict | None = None,
        vace_context: Tensor | None = None,
        vace_strength: float | Sequence | ContextScale | None = None,
        context_latents: Sequence[Tensor] | None = None,
        **_ignored: Any,
    ) -> Tensor:
        if context_latents is not None:
            raise ValueError(
                "context_latents (in-context references) are not supported by VACE; use a VDOT Reference"
            )
        options = {} if transformer_options is None else transformer_options
        t, h, w = x.shape[2:]
        if time_dim_concat is not None:
            pad = partial(comfy.ldm.common_dit.pad_to_patch_size, patch_size=self.patch_size)
            x = torch.cat((pad(x), pad(time_dim_concat)), dim=2)
        rope = self.rope_encode(x.shape[2], h, w, device=x.device, dtype=x.dtype, transformer_options=options)
        if not self.config.vace_layers:
            vace_context = None
        scale = 1.0 if vace_strength is None else vace_strength
        if vace_context is not None and isinstance(scale, (list, tuple)):
            scale = scale[: vace_context.shape[1]]
        hooks = ComfyHooks(options, len(self.blocks))
        velocity = super().forward(x, timestep, context, vace_context, scale, hooks=hooks, rope=rope)
        return velocity[:, :, :t, :h, :w]

    def rope_encode(
        self,
        t: int,
        h: int,
        w: int,
        t_start: float = 0,
        steps_t: int | None = None,
        steps_h: int | None = None,
        steps_w: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        transformer_options: dict | None = None,
    ) -> Tensor:
        """Tabulate rotary matrices with `rope_embedder`, as the method of ComfyUI's Wan network does.

        Args:
            t: latent frames.
            h: latent rows.
            w: latent columns.
            t_start: position of the first frame.
            steps_t: tokens along T, where they are not one per patch; so steps_h, steps_w.
            device: of the table.
            dtype: that positions are rounded to, as ComfyUI rounds them.
            transformer_options: its `rope_options` scale and shift the positions.

        Returns:
            [1, L, 1, P, 2, 2] float32.
        """
        options = (transformer_options or {}).get("rope_options") or {}
        positions = []
        for size, patch, steps, start, axis in zip(
            (t, h, w), self.patch_size, (steps_t, steps_h, steps_w), (t_start, 0, 0), "tyx", strict=True
        ):
            length = (size + patch // 2) // patch
            steps = length if steps is None else steps
            start = start + options.get(f"shift_{axis}", 0.0)
            last = start + (length - 1.0) * options.get(f"scale_{axis}", 1.0)
            positions.append(torch.linspace(start, last, steps, device=device, dtype=dtype))
        ids = torch.stack(torch.meshgrid(*positions, indexing="ij"))
        return self.rope_embedder(rearrange(ids, "axes t h w -> 1 (t h w) axes")).movedim(1, 2)

    def activation_dtype(self, x: Tensor) -> torch.dtype:
        """ComfyUI chooses the dtype: it hands over latents in it, and its layers cast their weights."""
        return x.dtype

    def embed_patches(self, embedding: torch.nn.Module, latents: Tensor) -> Tensor:
        """Embed in float32 at any dtype of the stored weights."""
        return embedding(latents.float())
