"""The adapter between ComfyUI and vdot_core: model files, the MODEL patcher and the conditioning keys.

Shape letters: K contexts, T latent frames, h w latents.
"""

import json
import logging
import math
import re
from pathlib import Path

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.sd
import comfy.supported_models
import comfy.utils
import folder_paths
import torch

from ..vdot_core.dtypes import DTYPES
from ..vdot_core.networks import ContextScale
from ..vdot_core.text import listed, shown
from .comfy_network import ComfyWanVace, config_from_unet, config_to_unet
from .comfy_step_range import StepScale, at_step, in_steps

MODEL_FOLDER = "diffusion_models"
WEIGHT_DTYPES = ("default", "bf16", "fp16", "fp32", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2")
NETWORKS = ("vdot", "comfyui")
ONLY_OUR_NETWORK = (
    "a unit's strength changes over time, which ComfyUI's own VACE network cannot do; load the model with "
    "VDOT Load Model and network 'vdot', or remove VDOT Strength"
)

_SHARD = re.compile(r"^(?P<folder>.+)[/\\][^/\\]*-\d{5}-of-\d{5}\.safetensors$")
_DIFFUSERS = re.compile(r"^(?P<folder>.+)[/\\]diffusion_pytorch_model\.safetensors$")
FAST = "_fast"  # fp8 of the weights and of the matrix products
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


def list_checkpoints() -> list[str]:
    """Names to offer: single files as ComfyUI lists them; folders (shards, diffusers layout) as `name/`."""
    files, folders = [], set()
    for name in folder_paths.get_filename_list(MODEL_FOLDER):
        match = _SHARD.match(name) or _DIFFUSERS.match(name)
        if match:
            folders.add(match["folder"].replace("\\", "/") + "/")
        else:
            files.append(name)
    return sorted(folders) + files


def checkpoint_path(name: str) -> Path:
    """The file or folder of a name from `list_checkpoints`.

    Raises:
        ValueError: nothing of that name is in ComfyUI's model folders.
    """
    path = None
    # A name that is not offered, such as ../x/, may leave the model folders: it is not even looked for.
    is_offered = name in list_checkpoints()
    if is_offered and name.endswith("/"):
        roots = [Path(root, name) for root in folder_paths.get_folder_paths(MODEL_FOLDER)]
        path = next((path for path in roots if path.is_dir()), None)
    elif is_offered:
        path = folder_paths.get_full_path(MODEL_FOLDER, name)
    if path is None:
        roots = listed(folder_paths.get_folder_paths(MODEL_FOLDER))
        raise ValueError(
            f"no model '{shown(name)}' in {roots}; put the file there and refresh the page (key R)"
        )
    return Path(path)


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
        super(comfy.model_base.WAN21, self).__init__(
            model_config, flow, device=device, unet_model=ComfyWanVace
        )
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


def check_comfyui_network(config) -> None:
    """Refuse a network that ComfyUI's own cannot represent: it spaces VACE blocks evenly.

    Raises:
        ValueError: names the layers that it expects.
    """
    native = config_from_unet(config_to_unet(config))
    if native != config:
        raise ValueError(
            f"VACE blocks are at layers {config.vace_layers}, ComfyUI's own network expects "
            f"{native.vace_layers}; set network to 'vdot'"
        )


def load_model(path, vace_path=None, weight_dtype="default", network="vdot", disable_dynamic=False):
    """Read a checkpoint of any supported layout into a native MODEL.

    Args:
        path: file or folder of the transformer.
        vace_path: file of the VACE blocks, if they are stored separately.
        weight_dtype: one of WEIGHT_DTYPES; 'default' leaves the choice to ComfyUI.
        network: 'vdot' for our network, 'comfyui' for ComfyUI's own.
        disable_dynamic: ComfyUI's: make a patcher without dynamic memory.

    Returns:
        comfy.model_patcher.ModelPatcher

    Raises:
        ValueError: the file cannot be read, or the network cannot run it.
    """
    from ..vdot_core.checkpoints import inspect
    from ..vdot_core.signals.conventions import control_conventions

    info = inspect(path, vace=vace_path)
    if info.problem:
        raise ValueError(info.problem)
    control_conventions(info.metadata)
    if network == "vdot":
        transformer = {**info.config.to_dict(), "image_model": "wan2.1", "vdot": 1}
    else:
        check_comfyui_network(info.config)
        transformer = {**config_to_unet(info.config), "image_model": "wan2.1"}
    options = {} if weight_dtype == "default" else {"dtype": DTYPES[weight_dtype.removesuffix(FAST)]}
    if weight_dtype.endswith(FAST):
        options["fp8_optimizations"] = True
    state_dict, metadata = _read(info, vace_path, options.get("dtype"))
    register_network()
    patcher = comfy.sd.load_diffusion_model_state_dict(
        state_dict,
        model_options=options,
        metadata={**metadata, "config": json.dumps({"transformer": transformer})},
        **({"disable_dynamic": True} if disable_dynamic else {}),  # older ComfyUI does not know the argument
    )
    if patcher is None:
        raise ValueError(
            f"{shown(path)}: ComfyUI does not recognize this as a Wan model; set network to 'vdot'"
        )
    patcher.cached_patcher_init = (load_model, (path, vace_path, weight_dtype, network))
    return patcher


def _read(info, vace_path, dtype: torch.dtype | None) -> tuple[dict, dict]:
    """Weights under Wan's names, and the metadata that ComfyUI needs."""
    from ..vdot_core.checkpoints import read_weights

    if not (info.scaled or info.formats or info.ggml_types):
        return dict(read_weights(info.path, vace=vace_path).state_dict), {}
    is_safetensors = not info.ggml_types and len(info.files) == 1
    if info.layout in ("wan", "comfyui", "vdot") and is_safetensors and dtype is None:
        # ComfyUI runs scaled fp8 as it is, from the factors in its own form.
        state_dict, metadata = comfy.utils.load_torch_file(str(info.files[0]), return_metadata=True)
        return state_dict, metadata or {}
    _log.info("%s: weights (%s) are expanded to bf16 first", shown(info.path), info.encoded_as)
    return dict(read_weights(info.path, vace=vace_path, dtype=torch.bfloat16).state_dict), {}


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
    """A context's scale by latent frame; explains itself to a network that multiplies hints by it."""

    def __mul__(self, other):
        raise ValueError(ONLY_OUR_NETWORK)

    __rmul__ = __mul__


def check_frame_strengths(model, conditioning) -> None:
    """Refuse strengths by latent frame where only one number per context is supported.

    Raises:
        ValueError: a strength changes over time, and the model is not this pack's network or is run in
            context windows, which ComfyUI cuts without the strengths.
    """
    entries = [strength for _, extra in conditioning for strength in extra.get("vace_strength", [])]
    strengths = [entry.scale if isinstance(entry, StepScale) else entry for entry in entries]
    if not any(isinstance(strength, ContextScale) for strength in strengths):
        return
    if not isinstance(model.model.diffusion_model, ComfyWanVace):
        raise ValueError(ONLY_OUR_NETWORK)
    if model.model_options.get("context_handler") is not None:
        raise ValueError(
            "a strength that changes over time does not work with Context Windows; remove that node, or VDOT "
            "Strength"
        )
