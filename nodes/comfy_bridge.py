"""The adapter between ComfyUI and vdot_core: our network as a model of ComfyUI, and the conditioning keys.

Shape letters: K contexts, T latent frames, h w latents.
"""

import logging
import math

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.sampler_helpers
import comfy.supported_models
import node_helpers
import torch

from ..vdot_core.networks import ContextScale
from ..vdot_core.text import counted
from .comfy_network import ComfyWan, ComfyWanVace, config_from_unet
from .comfy_step_range import StepScale, at_step, in_steps

_log = logging.getLogger("vdot")


def report(lines) -> dict:
    """Log a node's messages and make them its `text` UI output."""
    lines = list(lines)
    for line in lines:
        _log.info("%s", line)
    return {"text": lines}


def compute_device() -> torch.device:
    """The device on which ComfyUI runs models."""
    return comfy.model_management.get_torch_device()


def empty_latents(shape: tuple[int, ...]) -> torch.Tensor:
    """Zeros on the device of ComfyUI's latents."""
    return torch.zeros(shape, device=comfy.model_management.intermediate_device())


def noise_mask_like(samples: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A noise mask at the size of latents [B, 16, T, h, w], as ComfyUI's samplers bring it to it."""
    return comfy.sampler_helpers.prepare_mask(mask.float(), samples.shape, samples.device)


def with_values(text: list, values: dict, append: bool = False) -> list:
    """Conditioning with further values, in place of those of the same keys or appended to them."""
    return node_helpers.conditioning_set_values(text, values, append=append)


class Float32Tokens:
    """Adds to ComfyUI's estimate of memory what our network holds beyond ComfyUI's own: float32 tokens."""

    def memory_required(self, input_shape, *args, **kwargs):
        """Bytes of a pass over latents [B, C, T, h, w]."""
        needed = super().memory_required(input_shape, *args, **kwargs)
        network, dtype = self.diffusion_model.config, self.get_dtype_inference()
        num_tokens = input_shape[0] * math.prod(input_shape[2:]) / math.prod(network.patch_size)
        num_streams = 2 if network.vace_layers else 1
        return needed + num_streams * num_tokens * network.dim * max(0, 4 - dtype.itemsize)


class StepRanges:
    """Gives the network the contexts of units that act at the present step."""

    def _apply_model(self, x, t, *args, **kwargs):
        return super()._apply_model(x, t, *args, **at_step(self, t, kwargs))


class VDOTTextModel(Float32Tokens, comfy.model_base.WAN21):
    """ComfyUI's Wan 2.1 text-to-video model around our network."""

    def __init__(self, model_config, device=None):
        flow = comfy.model_base.ModelType.FLOW
        super(comfy.model_base.WAN21, self).__init__(model_config, flow, device=device, unet_model=ComfyWan)
        self.image_to_video = False


class VDOTVaceModel(StepRanges, Float32Tokens, comfy.model_base.WAN21_Vace):
    """ComfyUI's VACE-Wan 2.1 model around our network; conditioning, hooks and sampling stay ComfyUI's."""

    def __init__(self, model_config, device=None):
        flow = comfy.model_base.ModelType.FLOW
        super(comfy.model_base.WAN21, self).__init__(
            model_config, flow, device=device, unet_model=ComfyWanVace
        )
        self.image_to_video = False


class VDOTSupportedModel(comfy.supported_models.WAN21_Vace):
    """Chosen by ComfyUI's detection for files with `vdot` in their metadata's transformer config."""

    @classmethod
    def matches(cls, unet_config, state_dict=None, unet_key_prefix=""):
        return unet_config.get("image_model") == "wan2.1" and bool(unet_config.get("vdot"))

    def get_model(self, state_dict, prefix="", device=None):
        has_vace = bool(config_from_unet(self.unet_config).vace_layers)
        return (VDOTVaceModel if has_vace else VDOTTextModel)(self, device=device)


def register_network() -> None:
    """Let ComfyUI's own loaders (UNETLoader, ..) recognize files with a `vdot` key, and no others."""
    models = comfy.supported_models.models
    if not any(model.__name__ == VDOTSupportedModel.__name__ for model in models):
        models.insert(0, VDOTSupportedModel)


def vace_conditioning(contexts: torch.Tensor, scale: ContextScale, step_ranges) -> dict:
    """ComfyUI's own VACE keys for a stack of contexts.

    Args:
        contexts: [1, K, 96, T, h, w] in the network's space (32 latent channels, 64 mask channels).
        scale: by context, or by context and latent frame.
        step_ranges: K parts of the steps in which a context acts.

    Returns:
        dict of vace_frames (raw VAE space), vace_mask and vace_strength, lists of K. A strength is a
        float, as in ComfyUI, a `FrameScale`, or a `StepScale`.
    """
    latent_format = comfy.latent_formats.Wan21()
    frames, masks = [], []
    for context in contexts.unbind(1):
        inactive, reactive = context[:, :32].float().chunk(2, dim=1)
        raw = [latent_format.process_out(latents) for latents in (inactive, reactive)]
        frames.append(torch.cat(raw, dim=1))
        masks.append(context[:, 32:].float())
    strengths = [FrameScale(frames=row) if isinstance(row, tuple) else row for row in scale.frames]
    strengths = [in_steps(*pair) for pair in zip(strengths, step_ranges, strict=True)]
    return {"vace_frames": frames, "vace_mask": masks, "vace_strength": strengths}


class FrameScale(ContextScale):
    """A context's scale by latent frame; also where other code multiplies the hints by it."""

    def __rmul__(self, hints: torch.Tensor) -> torch.Tensor:
        """Scale hints [B, L, D] of the frames' tokens, as ComfyUI's own network asks for.

        Raises:
            ValueError: the tokens are not those of the frames.
        """
        num_tokens, num_frames = hints.shape[1], len(self.frames)
        if num_tokens % num_frames:
            raise ValueError(
                f"a unit's strength has {counted(num_frames, 'latent frame')}, the video {num_tokens} "
                "tokens, which is no multiple; remove VDOT Strength, or the node that adds frames"
            )
        scale = torch.tensor(self.frames).to(hints).repeat_interleave(num_tokens // num_frames)
        return hints * scale[:, None]


def check_frame_strengths(model, conditioning) -> None:
    """Refuse strengths by latent frame in context windows, which ComfyUI cuts without the strengths.

    Raises:
        ValueError: a strength changes over time.
    """
    entries = [strength for _, extra in conditioning for strength in extra.get("vace_strength", [])]
    strengths = [entry.scale if isinstance(entry, StepScale) else entry for entry in entries]
    if not any(isinstance(strength, ContextScale) for strength in strengths):
        return
    if model.model_options.get("context_handler") is not None:
        raise ValueError(
            "a strength that changes over time does not work with Context Windows; remove that node, or VDOT "
            "Strength"
        )
