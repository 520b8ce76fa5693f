"""Refuses models, latents and conditioning that cannot be sampled, before anything heavy runs.

Shape letters: B batch, K contexts, T latent frames, h w latents.
"""

import comfy.latent_formats
import comfy.model_base
import comfy.model_sampling
import torch
from comfy.quant_ops import QuantizedTensor

from ..vdot_core.text import counted, described, shown
from .comfy_bridge import check_frame_strengths

MAX_BATCH_INDEX = 4096  # ComfyUI draws the noise of every index up to the largest
ROUNDING = 0.01  # of masks that were blurred or resized
FROM_ENCODE = "take the latent straight from VDOT Encode"
UNREAD = {
    "concat_latent_image": "a start picture",
    "clip_vision_output": "a picture of CLIP Vision",
    "reference_latents": "reference latents",
}
"""Keys of ComfyUI's other Wan nodes, which no VACE network reads."""
TEXT_LEN = 512


def check_model(model) -> None:
    """Refuse models that are not Wan 2.1 with flow sampling in 1000 steps.

    Raises:
        ValueError: says what the model is instead.
    """
    base = model.model
    wan = isinstance(base, comfy.model_base.WAN21)
    if not wan or base.latent_format.latent_channels != comfy.latent_formats.Wan21.latent_channels:
        raise ValueError(
            f"the model is a {type(base).__name__}; VDOT Sampler needs a Wan 2.1 or VACE model: "
            "load one with VDOT Load Model or Load Diffusion Model"
        )
    sampling = model.get_model_object("model_sampling")
    multiplier = getattr(sampling, "multiplier", None)
    if not isinstance(sampling, comfy.model_sampling.CONST) or multiplier != 1000:
        raise ValueError(
            f"the model's sampling was changed to {type(sampling).__mro__[1].__name__} with multiplier "
            f"{multiplier}; VDOT needs flow matching with 1000: remove that node or use ModelSamplingSD3"
        )


def check_latent(model, latent: dict, reference_key: str) -> None:
    """Check what other nodes may have written into a latent.

    Args:
        model: a ModelPatcher.
        latent: samples [B, 16, T, h, w], and ComfyUI's or our own further keys.
        reference_key: of the number of references.

    Raises:
        ValueError: the samples are another model's, or a key holds something else than it should.
    """
    samples, mask = latent["samples"], latent.get("noise_mask")
    if samples.ndim != 5:
        raise ValueError(
            f"the latent has shape {tuple(samples.shape)}, a video latent has 5 dimensions; "
            "connect the latent output of VDOT Encode"
        )
    channels = model.model.latent_format.latent_channels
    # ComfyUI gives an empty latent the channels of the model.
    if samples.is_complex() or (samples.shape[1] != channels and samples.any()):
        raise ValueError(
            f"the latent holds {samples.shape[1]} channels of {shown(samples.dtype)}, the model reads "
            f"{channels} of float numbers; {FROM_ENCODE}"
        )
    require_numbers(samples, "the latent", FROM_ENCODE)
    if mask is not None and mask.is_complex():
        raise ValueError("the latent's noise mask holds complex numbers, expected 0 to 1; give another mask")
    if mask is not None and not (mask.min() >= -ROUNDING and mask.max() <= 1 + ROUNDING):
        raise ValueError(
            f"the latent's noise mask holds values from {float(mask.min()):g} to {float(mask.max()):g}, "
            "expected 0 to 1; connect a MASK to Set Latent Noise Mask"
        )
    count, index = latent.get(reference_key, 0), latent.get("batch_index")
    if not isinstance(count, int) or count < 0:
        raise ValueError(f"the latent's number of references is {described(count)}; {FROM_ENCODE}")
    if index is not None and not (_whole_numbers(index) and len(index) == len(samples)):
        raise ValueError(f"the latent's batch_index is {described(index)}; {FROM_ENCODE}")


def _whole_numbers(values) -> bool:
    whole = isinstance(values, (list, tuple)) and all(isinstance(value, int) for value in values)
    return whole and all(0 <= value <= MAX_BATCH_INDEX for value in values)


def require_numbers(values: torch.Tensor, what: str, cure: str) -> None:
    """Refuse NaN and infinity, of which a VAE makes black frames without a word.

    Args:
        values: of any shape.
        what: the subject of the sentence, such as "the positive text".
        cure: what to do.

    Raises:
        ValueError: there is such a value.
    """
    if values.is_floating_point() and not torch.isfinite(values).all():
        raise ValueError(f"{what} holds NaN or infinite numbers; {cure}")


def broken_weight(network: torch.nn.Module) -> str:
    """Name of the first weight that holds NaN or infinite numbers; empty where there is none.

    It reads every weight, for when the result is wrong already: a file that is mapped is not read when it is
    loaded.
    """
    from ..vdot_core.checkpoints.tensor_files import all_finite

    for name, weight in network.named_parameters():
        values = weight.dequantize() if isinstance(weight.data, QuantizedTensor) else weight
        if values.is_floating_point() and not values.is_meta and not all_finite(values.detach()):
            return name
    return ""


def check_conditioning(model, conditioning, latent_shape, name: str) -> list[str]:
    """Check that a conditioning fits the model and the latent.

    Returns:
        Messages about settings that are allowed but probably not intended.

    Raises:
        ValueError: there is no text or one of another model's encoder, the VACE context has another size than
            the latent, or its strengths cannot be used.
    """
    lines = []
    if not conditioning:
        raise ValueError(f"{name} is empty; connect CLIP Text Encode to VDOT Encode")
    width = model.model.diffusion_model.text_dim
    for tokens, _ in conditioning:
        if tokens.shape[-1] != width:
            raise ValueError(
                f"the {name} text is {tokens.shape[-1]} numbers wide, this model reads {width}; use the clip "
                "of VDOT Load Demo for the demo, and Load CLIP with umt5_xxl (type wan) for Wan models"
            )
        require_numbers(
            tokens, f"the {name} text", "load an undamaged text encoder, or look at the node behind it"
        )
    contexts = vace_contexts(conditioning, name)
    check_frame_strengths(model, conditioning)
    has_vace = isinstance(model.model, comfy.model_base.WAN21_Vace)
    if has_vace:
        lines += _find_unread(conditioning, name)
    lines += _find_long(conditioning, getattr(model.model.diffusion_model, "text_len", TEXT_LEN), name)
    lines += _find_uncovered(conditioning, latent_shape, name)
    for frames in contexts:
        require_numbers(frames, f"the {name} conditioning's VACE context", "look at the VAE that encoded it")
        if frames.shape[-3:] != torch.Size(latent_shape[-3:]):
            raise ValueError(
                f"the {name} conditioning is for {size_of(frames.shape)}, the latent is "
                f"{size_of(latent_shape)}; take both from the same VDOT Encode node"
            )
    if contexts and not has_vace:
        lines.append(f"{name}: this model has no VACE branch, so frames, masks and references have no effect")
    if has_vace and not contexts:
        lines.append(f"{name}: no VACE context; put VDOT Encode between the text and the sampler")
    return lines


def _find_unread(conditioning: list, name: str) -> list[str]:
    """Notes on what other nodes put into a conditioning and VACE does not read; refuses what does not fit it.

    Raises:
        ValueError: a part of the picture, or further frames, where VACE's context is for all of it.
    """
    keys = {key for _, extra in conditioning for key, value in extra.items() if value is not None}
    if "area" in keys or any(extra.get("set_area_to_bounds") for _, extra in conditioning):
        raise ValueError(
            f"{name} is for an area of the picture, and VACE's frames are for all of it; use Conditioning "
            "(Set Mask) with set_cond_area default, or give a task node's control a region"
        )
    if "time_dim_concat" in keys:
        raise ValueError(
            f"{name} has further frames of another Wan node (as for Phantom), which VACE does not take; "
            "remove that node, and give the pictures to VDOT Reference"
        )
    return [
        f"{name} has {what} of another Wan node, which VACE does not read: it has no effect; give pictures "
        "to VDOT Extend or VDOT Reference"
        for key, what in UNREAD.items()
        if key in keys
    ]


def _find_long(conditioning: list, most: int, name: str) -> list[str]:
    """A note on a text of more tokens than the model was trained with; padding is zeros."""
    lengths = [int(tokens.any(-1).sum(1).max()) for tokens, _ in conditioning]
    if max(lengths) <= most:
        return []
    return [
        f"{name} has {max(lengths)} tokens, the model was trained with at most {most}: it may follow the "
        "text less; write a shorter one"
    ]


def _find_uncovered(conditioning: list, latent_shape, name: str) -> list[str]:
    """A note where the masks of all texts leave a part of the picture without any."""
    masks = [extra.get("mask") for _, extra in conditioning if not extra.get("default")]
    if len(masks) < len(conditioning) or any(mask is None for mask in masks):
        return []
    scaled = [
        torch.nn.functional.interpolate(
            mask.reshape(-1, 1, *mask.shape[-2:]).float().cpu(), latent_shape[-2:]
        )
        for mask in masks
    ]
    bare = float((sum(mask.amax((0, 1)) for mask in scaled) == 0).float().mean())
    if not bare:
        return []
    return [
        f"{name}: {bare:.0%} of the picture has no text, as the masks of Conditioning (Set Mask) leave it "
        "out: nothing is generated there; combine it with a text for the rest"
    ]


def vace_contexts(conditioning: list, name: str) -> list[torch.Tensor]:
    """Frames [B, 32, T, h, w] of all VACE contexts of a conditioning.

    Raises:
        ValueError: there is not one mask of the same size for each.
    """
    return [frames for _, extra in conditioning for frames in _contexts_of(extra, name)]


def _contexts_of(extra: dict, name: str) -> list[torch.Tensor]:
    frames = extra.get("vace_frames", [])
    masks = extra.get("vace_mask", frames)
    fits = isinstance(frames, list) and isinstance(masks, list) and len(frames) == len(masks)
    fits = fits and all(isinstance(part, torch.Tensor) and part.ndim == 5 for part in [*frames, *masks])
    if not fits or any(a.shape[2:] != b.shape[2:] for a, b in zip(frames, masks, strict=True)):
        raise ValueError(
            f"the VACE frames and masks of {name} do not fit each other; take it from VDOT Encode, or from "
            "WanVaceToVideo without a node that changes it"
        )
    return frames


def size_of(shape) -> str:
    """Size in pixels and number of latent frames of latents [.., T, h, w], in words."""
    frames, height, width = shape[-3:]
    return f"{width * 8}x{height * 8} with {counted(frames, 'latent frame')}"
