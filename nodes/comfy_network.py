"""Our network as ComfyUI drives its own: the call, the wrappers, the options of the Wan models.

B batch, K contexts, C channels, T h w latent frames, rows, columns, L tokens, D width, P pairs of a head.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import comfy.ldm.common_dit
import comfy.patcher_extension
import torch
from torch import Tensor

from ..vdot_core.networks import ContextScale, WanVace, WanVaceConfig, rotary_table
from .comfy_hooks import ComfyHooks

_UNET_NAMES = {"in_dim": "in_channels", "out_dim": "out_channels", "vace_in_dim": "vace_in_channels"}


def config_from_unet(unet_config: dict[str, Any]) -> WanVaceConfig:
    """Read the sizes of a network from ComfyUI's unet_config.

    Args:
        unet_config: what ComfyUI's detection found, in its words or in ours; `vace_layers` is a count (blocks
            spread evenly, as ComfyUI assumes) or the layers themselves. What is no size is ignored.

    Returns:
        The config.

    Raises:
        ValueError: a size is missing or impossible.
    """
    known = WanVaceConfig.__dataclass_fields__
    sizes = {_UNET_NAMES.get(name, name): value for name, value in unet_config.items()}
    sizes = {name: value for name, value in sizes.items() if name in known and value is not None}
    vace_layers = sizes.get("vace_layers", ())
    if isinstance(vace_layers, int):
        num_layers = sizes.get("num_layers", 0)
        if not 0 <= vace_layers <= num_layers:
            raise ValueError(f"vace_layers is {vace_layers}; the network has {num_layers} layers to follow")
        sizes["vace_layers"] = (
            range(0, num_layers, num_layers // vace_layers)[:vace_layers] if vace_layers else ()
        )
    return WanVaceConfig.from_dict(sizes)


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
        self.model_type = "vace" if config.vace_layers else "t2v"
        self.dim, self.num_heads, self.num_layers = config.dim, config.num_heads, config.num_layers
        self.in_dim, self.out_dim, self.text_dim = config.in_channels, config.out_channels, config.text_dim
        self.ffn_dim, self.freq_dim, self.text_len = config.ffn_dim, config.freq_dim, config.text_len
        self.patch_size = config.patch_size

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
            kwargs: vace_context [B, K, 96, T + T', h, w] and vace_strength, for each context a float, or a
                sequence by VACE layer or by latent frame, or a `ContextScale` of such; others are ignored.

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
        vace_strength: Sequence | None = None,
        context_latents: Sequence[Tensor] | None = None,
        **_ignored: Any,
    ) -> Tensor:
        if context_latents is not None:
            raise ValueError(
                "context_latents (in-context references) are not known to VACE; use a VDOT Reference"
            )
        options = {} if transformer_options is None else transformer_options
        t, h, w = x.shape[2:]
        if time_dim_concat is not None:
            pad = partial(comfy.ldm.common_dit.pad_to_patch_size, patch_size=self.patch_size)
            x = torch.cat((pad(x), pad(time_dim_concat)), dim=2)
        rope = self.rope_encode(x.shape[2], h, w, device=x.device, dtype=x.dtype, transformer_options=options)
        if not self.config.vace_layers:
            vace_context = None
        scale = 1.0
        if vace_context is not None and vace_strength is not None:
            num_frames = -(-x.shape[2] // self.patch_size[0])
            scale = strengths(vace_strength, vace_context.shape[1], len(self.config.vace_layers), num_frames)
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
        """Tabulate rotary matrices in ComfyUI's form, as its Wan network's method of this name does.

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
        rope = (transformer_options or {}).get("rope_options") or {}
        positions = []
        for size, patch, steps, start, axis in zip(
            (t, h, w), self.patch_size, (steps_t, steps_h, steps_w), (t_start, 0, 0), "tyx", strict=True
        ):
            length = (size + patch // 2) // patch
            steps = length if steps is None else steps
            start = start + rope.get(f"shift_{axis}", 0.0)
            last = start + (length - 1.0) * rope.get(f"scale_{axis}", 1.0)
            positions.append(torch.linspace(start, last, steps, device=device, dtype=dtype))
        cos, sin = rotary_table(tuple(positions), self.config.head_dim).turns.unbind(-1)
        return torch.stack((cos, -sin, sin, cos), dim=-1).unflatten(-1, (2, 2))

    def activation_dtype(self, x: Tensor) -> torch.dtype:
        """ComfyUI chooses the dtype: it hands over latents in it, and its layers cast their weights."""
        return x.dtype

    def embed_patches(self, embedding: torch.nn.Module, latents: Tensor) -> Tensor:
        """Embed in float32, whatever dtype the weights were stored in."""
        return embedding(latents.float()).to(latents.dtype)


def strengths(
    values: Any, num_contexts: int, num_vace_layers: int, num_frames: int
) -> float | list | ContextScale:
    """Turn ComfyUI's `vace_strength` into the network's context_scale.

    Args:
        values: a float for all, or a list with an entry per context: a float, a sequence or tensor by VACE
            layer or by latent frame, or a `ContextScale` of such.
        num_contexts: K.
        num_vace_layers: VACE blocks of the network.
        num_frames: T, reference frames included.

    Returns:
        What the network takes.

    Raises:
        ValueError: there are fewer entries than contexts, or an entry's length fits neither or both.
    """
    if isinstance(values, (int, float, ContextScale)):
        return values
    values = list(values)[:num_contexts]
    if len(values) < num_contexts:
        raise ValueError(
            f"vace_strength has {len(values)} entries for {num_contexts} contexts; give one for each"
        )
    if all(isinstance(value, (int, float)) for value in values):
        return [float(value) for value in values]
    layers, frames = zip(*(_strength(value, num_vace_layers, num_frames) for value in values), strict=True)
    return ContextScale(layers=torch.stack(layers), frames=torch.stack(frames))


def _strength(value: Any, num_vace_layers: int, num_frames: int) -> tuple[Tensor, Tensor]:
    """One context's strengths: ([num_vace_layers], [T])."""
    if not isinstance(value, ContextScale):
        row = torch.as_tensor(value, dtype=torch.float32)
        if row.ndim and num_vace_layers == num_frames != 1:
            raise ValueError(
                f"a vace_strength of {len(row)} values may go by VACE layer or by latent frame: there are "
                f"{num_frames} of both; say which with ContextScale(layers=...) or ContextScale(frames=...)"
            )
        by_frame = row.shape == (num_frames,)
        value = ContextScale(frames=row) if by_frame else ContextScale(layers=row)
    rows = []
    for entry, size in ((value.layers, num_vace_layers), (value.frames, num_frames)):
        row = torch.as_tensor(entry, dtype=torch.float32).cpu()
        if row.shape not in ((), (size,)):
            raise ValueError(
                f"a vace_strength has shape {list(row.shape)}; give a number, [{num_vace_layers}] by VACE "
                f"layer or [{num_frames}] by latent frame"
            )
        rows.append(row.expand(size))
    return rows[0], rows[1]
