"""Checkpoint -> MODEL, through ComfyUI's own loader and LoRA code."""

import inspect
import json
import math
from collections.abc import Sequence
from pathlib import Path

import comfy.lora
import comfy.lora_convert
import comfy.sd
import torch

from ..vdot_core.dtypes import DTYPES
from ..vdot_core.signals.conventions import control_conventions
from ..vdot_core.text import counted, shown
from .comfy_bridge import register_network
from .comfy_network import config_from_unet, config_to_unet
from .comfy_weights import check_memory, read_for_comfyui

WEIGHT_DTYPES = ("default", "bf16", "fp16", "fp32", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2")
NETWORKS = ("vdot", "comfyui")
FAST = "_fast"  # fp8 of the weights and of the matrix products


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
        ValueError: the file cannot be read, the network cannot run it, or it does not fit into memory.
    """
    from ..vdot_core.checkpoints.survey import survey

    checkpoint = survey(path, vace_path)
    info = checkpoint.info
    if info.problem:
        raise ValueError(info.problem)
    control_conventions(info.metadata)
    if network == "vdot":
        transformer = {**info.config.to_dict(), "image_model": "wan2.1", "vdot": 1}
    else:
        check_comfyui_network(info.config)
        transformer = {**config_to_unet(info.config), "image_model": "wan2.1"}
    weights = read_for_comfyui(checkpoint, DTYPES.get(weight_dtype.removesuffix(FAST)))
    check_memory(info.path, weights)
    options = {"dtype": weights.dtype, "custom_operations": weights.operations}
    register_network()
    patcher = comfy.sd.load_diffusion_model_state_dict(
        weights.state_dict,
        model_options={**options, "fp8_optimizations": weight_dtype.endswith(FAST)},
        metadata={"config": json.dumps({"transformer": transformer})},
        **_without_dynamic_memory(disable_dynamic or weights.is_packed),
    )
    if patcher is None:
        raise ValueError(
            f"{shown(path)}: ComfyUI does not recognize this as a Wan model; set network to 'vdot'"
        )
    if weights.is_packed:
        from .comfy_packed import PackedPatcher

        patcher = PackedPatcher(patcher.model, patcher.load_device, patcher.offload_device)
    patcher.cached_patcher_init = (load_model, (path, vace_path, weight_dtype, network))
    return patcher


def _without_dynamic_memory(disabled: bool) -> dict[str, bool]:
    """The argument for it; older ComfyUI has neither."""
    is_known = "disable_dynamic" in inspect.signature(comfy.sd.load_diffusion_model_state_dict).parameters
    return {"disable_dynamic": True} if disabled and is_known else {}


def describe_model(model) -> str:
    """A short description of a loaded model."""
    network = model.model.diffusion_model
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    kind = "VACE" if hasattr(network, "vace_patch_embedding") else "text-only"
    dtype = str(model.model.get_dtype() or torch.float32).removeprefix("torch.")
    large = num_parameters >= 1e9
    size = f"{num_parameters / (1e9 if large else 1e6):.3g} {'billion' if large else 'million'}"
    return f"{kind} model of {size} parameters in {dtype}"


def add_loras(patcher, loras: Sequence[tuple[Path, float]], model: str = "") -> list[str]:
    """Put LoRAs on a freshly loaded model, by ComfyUI's own code.

    Args:
        patcher: the model; changed.
        loras: file and strength of each; a strength of 0 leaves it unread.
        model: file name of the model, for LoRAs that say what they were made from.

    Returns:
        A sentence for each, with the number of its tensors that fit the model.

    Raises:
        ValueError: a LoRA of which nothing fits.
    """
    from .comfy_purpose import note_lora

    lines = []
    for path, strength in loras:
        lines.append(_add_lora(patcher, path, strength, model))
        if strength:
            note_lora(patcher, path)
    return lines


def _add_lora(patcher, path: Path, strength: float, model: str) -> str:
    if not strength:
        return f"{shown(path.name)} at 0: off"
    from ..vdot_core.checkpoints.lora.base import note_of_another_base
    from ..vdot_core.checkpoints.open_tensors import read_tensors
    from ..vdot_core.checkpoints.tensor_files import require_finite

    # ComfyUI's reader repeats names from the file in its errors, which may be in no encoding.
    tensors, metadata = read_tensors(path, "a LoRA")
    for name, tensor in tensors.items():
        require_finite(name, tensor, path)
    tensors = comfy.lora_convert.convert_lora(_in_comfyui_names(path, tensors, metadata))
    recorded = _Recorded(tensors)
    patches = comfy.lora.load_lora(
        recorded, comfy.lora.model_lora_keys_unet(patcher.model, {}), log_missing=False
    )
    shapes = {name: tuple(value.shape) for name, value in patcher.model.state_dict().items()}
    fitting = {key: patch for key, patch in patches.items() if _fits(patch, shapes.get(key))}
    if not fitting:
        misfits = f"; all {counted(len(patches), 'weight')} are of another size" if patches else ""
        raise ValueError(
            f"nothing of the LoRA {shown(path.name)} fits this model{misfits}; give one that was made for "
            "Wan 2.1 of this size"
        )
    patcher.add_patches({key: patch for key, patch in fitting.items() if not _is_table(key)}, strength)
    for key, patch in fitting.items():
        if _is_table(key):
            _change_table(patcher, key, patch, strength)
    parts = [f"{shown(path.name)} at {strength:g}: {counted(len(fitting), 'weight')}"]
    idle = sum(map(_is_idle, fitting.values()))
    if idle == len(fitting):
        parts.append("which change nothing (an alpha of 0, or factors of zeros): download the file again")
    elif idle:
        parts.append(f"{idle} of them zeros")
    if len(fitting) < len(patches):
        parts.append(f"{len(patches) - len(fitting)} of another size left out")
    unused = len(recorded.keys() - recorded.used)
    if unused:
        parts.append(f"{unused} of {len(recorded)} keys not of this network left out")
    if model and (note := note_of_another_base(metadata, model)):
        parts.append(note)
    return ", ".join(parts)


def _in_comfyui_names(path: Path, tensors: dict, metadata: dict) -> dict:
    """A LoRA's tensors; those under diffusers' names, which ComfyUI does not read for Wan, under its own."""
    from ..vdot_core.checkpoints.lora.names import comfyui_key
    from ..vdot_core.checkpoints.lora.read import default_alpha

    renamed = {key: new for key in tensors if (new := comfyui_key(key)) is not None}
    if not renamed:
        return tensors
    converted = {renamed.get(key, key): value for key, value in tensors.items()}
    alpha, ending = default_alpha(path, metadata), ".lora_A.weight"
    if alpha is not None:
        for key in [new for new in renamed.values() if new.endswith(ending)]:
            converted.setdefault(key.removesuffix(ending) + ".alpha", torch.tensor(float(alpha)))
    return converted


def _is_table(key: str) -> bool:
    """Modulation tables lie directly in modules of layers, where ComfyUI never applies the patches it has."""
    return key.endswith(".modulation")


def _change_table(patcher, key: str, patch, strength: float) -> None:
    """Put a changed modulation table in the model's place of it for as long as the patcher is loaded."""
    table = patcher.get_model_object(key)
    values = table.detach().to(torch.float32, copy=True)  # it is changed in place
    changed = comfy.lora.calculate_weight([(strength, patch, 1.0, None, None)], values, key)
    patcher.add_object_patch(key, torch.nn.Parameter(changed.to(table.dtype), requires_grad=False))


class _Recorded(dict):
    """A dict that records which of its keys were read."""

    def __init__(self, items):
        super().__init__(items)
        self.used = set()

    def __getitem__(self, key):
        self.used.add(key)
        return super().__getitem__(key)

    def get(self, key, default=None):
        return self[key] if key in self else default


def _is_idle(patch) -> bool:
    """True if a patch adds zeros to its weight."""
    if isinstance(patch, tuple):
        return patch[0] == "diff" and not patch[1][0].any()
    if patch.name != "lora":
        return False
    up, down, alpha = patch.weights[:3]
    return alpha == 0 or not up.any() or not down.any()


def _fits(patch, shape: tuple[int, ...] | None) -> bool:
    """True if a patch fits a weight of this shape; ComfyUI only logs an error where it does not."""
    if shape is None:
        return False
    if isinstance(patch, tuple):
        return patch[0] not in ("diff", "set") or tuple(patch[1][0].shape) == shape
    if patch.name != "lora" or patch.weights[3] is not None or patch.weights[5] is not None:
        return True  # other kinds, convolutions in three parts and LoRAs that change a weight's size
    up, down = patch.weights[:2]
    return up.shape[0] == shape[0] and up.shape[0] * down.flatten(1).shape[1] == math.prod(shape)
