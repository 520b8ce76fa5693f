"""Our network as ComfyUI and other nodes know Wan models: its classes, names, calls and options.

B batch, K contexts, C channels, S text tokens, T h w latent frames, rows, columns, L tokens, P pairs of a
head's channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import comfy.ldm.flux.layers
import comfy.ldm.wan.model as wan
import torch
from torch import Tensor

from ..vdot_core.networks import ContextScale, WanVace, WanVaceConfig
from ..vdot_core.networks.layers import Block, Head
from ..vdot_core.networks.rope import THETA, axes_dims
from .comfy_blocks import USE_COMFYUI, WINDOW, ComfyFactory
from .comfy_hooks import KEY, ComfyHooks, is_own, is_own_block

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


class ComfyWan(wan.WanModel, WanVace):
    """Our network where ComfyUI expects its text-to-video network: native patches and wrappers work on it.

    The call, its wrappers and the positions are ComfyUI's own methods; `forward_orig` is our forward pass.

    Args:
        config: sizes; read from `unet_config` where it is None.
        operations: ComfyUI's layers.
        device: of the parameters.
        dtype: of the parameters.
        unet_config: ComfyUI's detected configuration.
    """

    factory = ComfyFactory

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
        WanVace.__init__(self, config, operations, device=device, dtype=dtype)
        # Names that ComfyUI and custom nodes read from a Wan model.
        self.dtype = dtype
        for name, value in config_to_unet(config).items():
            setattr(self, name, value)
        self.model_type = "t2v"  # as on ComfyUI's, which tells text from image conditioning by it
        self.window_size, self.img_emb, self.ref_conv = WINDOW, None, None
        self.rope_embedder = comfy.ldm.flux.layers.EmbedND(
            dim=config.head_dim, theta=THETA, axes_dim=list(axes_dims(config.head_dim))
        )

    def forward_orig(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor,
        clip_fea: Tensor | None = None,
        freqs: Tensor | None = None,
        transformer_options: dict | None = None,
        context_latents: Sequence[Tensor] | None = None,
        **_ignored: Any,
    ) -> Tensor:
        """Predict the velocity from text alone.

        Args:
            x: [B, C, T, h, w] noised latents.
            t: [B], 0..1000.
            context: [B, S, text_dim] of the text encoder.
            clip_fea: ignored, for there is no image embedding.
            freqs: [1 or B, L, 1, P, 2, 2] rotation matrices of `rope_encode`.
            transformer_options: ComfyUI's options, patches and wrappers.
            context_latents: not supported.

        Returns:
            [B, C, T, h, w].
        """
        return self._predict(x, t, context, None, 1.0, freqs, transformer_options, context_latents)

    def _predict(
        self,
        x: Tensor,
        t: Tensor,
        text: Tensor,
        contexts: Tensor | None,
        scale: float | Sequence | ContextScale,
        freqs: Tensor,
        options: dict | None,
        context_latents: Sequence[Tensor] | None,
    ) -> Tensor:
        if context_latents is not None:
            raise ValueError(
                "context_latents (in-context references) are not supported by VACE; use a VDOT Reference"
            )
        options = {} if options is None else options
        options |= {"total_blocks": len(self.blocks), "block_type": "double"}
        hooks = ComfyHooks(options, x.dtype, self._is_own(), time_by_frame=not self.config.vace_layers)
        options[KEY] = hooks
        try:
            return WanVace.forward(self, x, t, text, contexts, scale, hooks=hooks, rope=freqs)
        finally:
            del options[KEY]

    def _is_own(self) -> bool:
        """Tell whether all blocks are ours, so that no other code sees the tokens that they are given."""
        if torch.compiler.is_compiling():
            return False
        stacks = ("blocks", "vace_blocks") if self.config.vace_layers else ("blocks",)
        blocks = {f"{name}.{n}": block for name in stacks for n, block in enumerate(getattr(self, name))}
        refuse_patched_norms(blocks | {"head": self.head})
        return all(map(is_own_block, blocks.values()))

    def activation_dtype(self, x: Tensor) -> torch.dtype:
        """ComfyUI chooses the dtype: it hands over latents in it, and its layers cast their weights."""
        return x.dtype

    def embed_patches(self, embedding: torch.nn.Module, latents: Tensor) -> Tensor:
        """Embed in float32 at any dtype of the stored weights."""
        return embedding(latents.float())


class ComfyWanVace(ComfyWan, wan.VaceWanModel):
    """Our network where ComfyUI expects its VACE network."""

    def forward_orig(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor,
        vace_context: Tensor | None = None,
        vace_strength: float | Sequence | ContextScale | None = None,
        clip_fea: Tensor | None = None,
        freqs: Tensor | None = None,
        transformer_options: dict | None = None,
        context_latents: Sequence[Tensor] | None = None,
        **_ignored: Any,
    ) -> Tensor:
        """Predict the velocity.

        Args:
            x: [B, C, T, h, w] noised latents.
            t: [B], 0..1000.
            context: [B, S, text_dim] of the text encoder.
            vace_context: [B, K, 96, T, h, w].
            vace_strength: an entry for each context, as the network's context_scale has them.
            clip_fea: ignored, for there is no image embedding.
            freqs: [1 or B, L, 1, P, 2, 2] rotation matrices of `rope_encode`.
            transformer_options: ComfyUI's options, patches and wrappers.
            context_latents: not supported.

        Returns:
            [B, C, T, h, w].
        """
        scale = 1.0 if vace_strength is None else vace_strength
        if vace_context is not None and isinstance(scale, (list, tuple)):
            scale = scale[: vace_context.shape[1]]
        return self._predict(x, t, context, vace_context, scale, freqs, transformer_options, context_latents)


def refuse_patched_norms(modules: Mapping[str, torch.nn.Module]) -> None:
    """Refuse patches of norms that are computed together with the timestep's modulation.

    Args:
        modules: name -> block or head.

    Raises:
        ValueError: names the norm.
    """
    for place, module in modules.items():
        names = {"norm", "norm1", "norm2"} & set(module._modules) if isinstance(module, (Block, Head)) else ()
        for name in names:
            if not is_own(getattr(module, name), torch.nn.LayerNorm):
                raise ValueError(
                    f"a node changed {place}.{name}, which VDOT's network computes together with the "
                    f"timestep; {USE_COMFYUI}"
                )
