"""Weights of any readable checkpoint as the state dict that ComfyUI's loader takes, in memory once."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.cli_args
import comfy.memory_management
import comfy.model_management as management
import comfy.model_patcher
import comfy.utils
import torch
from torch import Tensor

from ..vdot_core.dtypes import FP8_DTYPES
from ..vdot_core.memory import check_size
from ..vdot_core.text import shown

if TYPE_CHECKING:
    from ..vdot_core.checkpoints.info import Entry, Survey
    from ..vdot_core.checkpoints.tensor_files import TensorFile

SAFETENSORS = (".safetensors", ".sft")


@dataclass(frozen=True)
class ComfyWeights:
    """Weights and settings that ComfyUI builds a network from.

    Args:
        state_dict: Wan name -> tensor; quantized layers as ComfyUI's own or as our packed layers read them.
        dtype: of the network's weights; None leaves the choice to ComfyUI.
        operations: layers to build it from; None leaves the choice to ComfyUI.
        is_packed: weights stay packed in our own layers.
    """

    state_dict: dict[str, Tensor]
    dtype: torch.dtype | None
    operations: type | None = None
    is_packed: bool = False


def read_for_comfyui(checkpoint: Survey, dtype: torch.dtype | None) -> ComfyWeights:
    """Read a checkpoint's weights; nothing is decoded or copied here.

    Args:
        checkpoint: a loadable one.
        dtype: of the weights; None keeps the file's. fp8 asked of an fp8 file is the file as it is.

    Raises:
        ValueError: a quantization that stays as it is, and a dtype or a second file that it does not go with.
    """
    path, formats = checkpoint.info.path, checkpoint.info.formats
    quantized = [entry for entry in checkpoint.entries.values() if entry.packed or entry.is_encoded]
    if not quantized:
        return ComfyWeights(_state_dict(checkpoint, as_stored=True), dtype)
    stored_as = {entry.spec.ggml_type or entry.spec.dtype for entry in quantized}
    is_same = dtype in FP8_DTYPES and stored_as == {dtype}
    decode = not (dtype is None or is_same)
    needs_our_layers = decode or any(entry.packed is None for entry in quantized)
    if formats and decode:
        raise ValueError(
            f"{shown(path)} is quantized as {' and '.join(formats)} and stays so, got weight_dtype "
            f"{str(dtype).removeprefix('torch.')}; set it to default"
        )
    if formats and needs_our_layers:
        raise ValueError(
            f"{shown(path)}: {' and '.join(formats)} weights cannot be joined with a file quantized in "
            "another way; give both files in bf16, or in one format"
        )
    if not needs_our_layers:
        return ComfyWeights(_state_dict(checkpoint, as_stored=True), None)
    from .comfy_packed import packed_operations

    state_dict = _state_dict(checkpoint, as_stored=False)
    return ComfyWeights(state_dict, dtype if decode else None, packed_operations(decode), not decode)


def check_memory(path: Path, weights: ComfyWeights) -> None:
    """Refuse weights of which a computer without a GPU cannot hold the copy that ComfyUI makes.

    Packed and quantized weights stay in their file's map. With a GPU, ComfyUI streams what does not fit.

    Raises:
        ValueError: gives both sizes and what to choose.
    """
    if (
        weights.is_packed
        or _takes_weights_over()
        or not management.is_device_cpu(management.get_torch_device())
    ):
        return
    state, suffix = weights.state_dict, ".comfy_quant"
    quantized = {f"{name.removesuffix(suffix)}.weight" for name in state if name.endswith(suffix)}
    stored_as = None if quantized else comfy.utils.weight_dtype(state)  # as ComfyUI's loader asks
    num_parameters = comfy.utils.calculate_parameters(state)
    dtype = weights.dtype or management.unet_dtype(model_params=num_parameters, weight_dtype=stored_as)
    num_copied = sum(tensor.numel() for name, tensor in state.items() if name not in quantized)
    check_size(
        num_copied * dtype.itemsize,
        f"{shown(path)} in {str(dtype).removeprefix('torch.')}, without a GPU,",
        "use a GPU, a smaller weight_dtype, or a file in fp8_scaled or GGUF, whose weights stay in it",
    )


def _takes_weights_over() -> bool:
    """Tell whether ComfyUI has dynamic memory, which maps weights instead of copying them."""
    patcher = comfy.model_patcher.ModelPatcher
    return getattr(comfy.model_patcher, "CoreModelPatcher", patcher) is not patcher


def _state_dict(checkpoint: Survey, *, as_stored: bool) -> dict[str, Tensor]:
    """Tensors by Wan name; quantized ones in ComfyUI's form, or else packed."""
    names = defaultdict(set)
    for entry in checkpoint.entries.values():
        parts = entry.packed.parts.values() if entry.packed else [entry.scale] if entry.scale else []
        names[entry.file.path].update((entry.name, *parts))
    files = {entry.file.path: entry.file for entry in checkpoint.entries.values()}
    read = {path: _read_file(file, names[path]) for path, file in files.items()}
    state_dict = {}
    for name, entry in checkpoint.entries.items():
        tensors = read[entry.file.path]
        if entry.packed and as_stored:
            state_dict.update(_quantized_layer(name, entry, tensors))
        elif entry.is_encoded:
            state_dict[name] = _packed(entry, tensors)
        else:
            state_dict[name] = tensors[entry.name]
    for file in files.values():
        file.require_unchanged()
    return state_dict


def _read_file(file: TensorFile, names: set[str]) -> dict[str, Tensor]:
    """Tensors of a file, by ComfyUI's loader where it does more than to map it.

    It reads straight into the GPU's memory, or not through a map (--disable-mmap). Where it would only map
    the file our map is better: Windows reserves nothing for it, Linux maps files larger than its memory.
    """
    direct = getattr(comfy.memory_management, "aimdo_enabled", False)
    is_unmapped = comfy.cli_args.args.disable_mmap
    if (direct or is_unmapped) and file.path.suffix.lower() in SAFETENSORS:
        return comfy.utils.load_torch_file(str(file.path), safe_load=True)
    if is_unmapped and file.load is not None:
        return {name: file.load(name) for name in names}
    return file.read(writable=False)


def _quantized_layer(name: str, entry: Entry, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A layer's weight, scales and settings under the names that ComfyUI's layers read."""
    layer, (settings, parts) = name.removesuffix(".weight"), (entry.packed.settings, entry.packed.parts)
    state_dict = {name: tensors[entry.name]}
    for part, original in parts.items():
        # In ComfyUI's older files an input's scale of 1 says that there is none.
        if not (original.endswith(".scale_input") and tensors[original].item() == 1):
            state_dict[f"{layer}.{part}"] = tensors[original]
    text = json.dumps(settings).encode()
    return {**state_dict, f"{layer}.comfy_quant": torch.tensor(list(text), dtype=torch.uint8)}


def _packed(entry: Entry, tensors: dict[str, Tensor]) -> Tensor:
    """A weight for our packed layers; the few that are not of linear layers are decoded."""
    from .comfy_packed import pack

    scale, spec = tensors[entry.scale] if entry.scale else None, entry.spec
    packed = pack(tensors[entry.name], spec.shape, scale, spec.ggml_type, entry.group_size)
    return packed if len(spec.shape) == 2 else packed.dequantize()
