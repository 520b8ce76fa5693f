"""Normalized Attention Guidance in the cross-attention of Wan networks, ComfyUI's and ours.

B batch, L tokens, S text tokens, D width.
"""

from dataclasses import astuple, dataclass

import comfy.ldm.wan.model as wan
import comfy.patcher_extension
import torch
from torch import Tensor, nn

KEY = "vdot_nag"
CONDITIONAL = 0  # ComfyUI's number for the positive prompt's part of a batch


@dataclass(frozen=True)
class Guidance:
    """Settings of `vdot_core.networks.normalized_attention_guidance`."""

    scale: float
    tau: float
    alpha: float


def with_nag(model, negative: list, guidance: Guidance):
    """A clone of a MODEL whose backbone attends to a negative prompt, too.

    Args:
        model: of a Wan network.
        negative: ComfyUI's conditioning; its first text is used.
        guidance: the settings.

    Raises:
        ValueError: the network attends to an image, or another node has replaced its cross-attention.
    """
    text = negative[0][0]

    def embed(executor, x, timestep, context, clip_fea=None, time_dim_concat=None, *options, **kwargs):
        (options,) = options or (kwargs.pop("transformer_options", None),)
        options = {**(options or {}), KEY: executor.class_obj.text_embedding(text.to(x)).to(x.dtype)}
        return executor(x, timestep, context, clip_fea, time_dim_concat, options, **kwargs)

    clone = model.clone()
    clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, KEY, embed)
    for index, block in enumerate(clone.get_model_object("diffusion_model").blocks):
        name = f"diffusion_model.blocks.{index}.cross_attn.forward"
        _check(model, name, block.cross_attn)
        clone.add_object_patch(name, _guided(block.cross_attn, guidance))
    return clone


def _check(model, name: str, attention: nn.Module) -> None:
    if name in model.object_patches:
        raise ValueError(
            "nag_scale is set, but another node (such as WanVideoNAG) has replaced the model's "
            "cross-attention; remove that node, or set nag_scale to 0"
        )
    if hasattr(attention, "k_img"):
        raise ValueError(
            "nag_scale is set, but this model attends to an image too; use a text-to-video or VACE model, or "
            "set nag_scale to 0"
        )


def _guided(attention: nn.Module, guidance: Guidance):
    """The forward of a cross-attention, with guidance in the conditional part of the batch."""
    from ..vdot_core.networks import normalized_attention_guidance

    def attend(queries: Tensor, text: Tensor, options: dict) -> Tensor:
        k, v = attention.norm_k(attention.k(text)), attention.v(text)
        if text.shape[0] != queries.shape[0]:
            rows = queries.shape[0] // text.shape[0]
            k, v = k.repeat_interleave(rows, 0), v.repeat_interleave(rows, 0)
        return wan.optimized_attention(queries, k, v, heads=attention.num_heads, transformer_options=options)

    def forward(x: Tensor, context: Tensor, transformer_options: dict, **_) -> Tensor:
        options = transformer_options
        queries = attention.norm_q(attention.q(x))
        result = attend(queries, context, options)
        size = len(x) // len(kinds := options.get("cond_or_uncond") or [CONDITIONAL])
        parts = list(result.split(size))
        for place, kind in enumerate(kinds):
            if kind == CONDITIONAL:
                negative = attend(queries[place * size :][:size], options[KEY], options)
                parts[place] = normalized_attention_guidance(parts[place], negative, *astuple(guidance))
        return attention.o(parts[0] if len(parts) == 1 else torch.cat(parts))

    return forward
