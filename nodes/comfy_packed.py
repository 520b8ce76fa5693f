"""Layers whose weights stay as a file stores them, in GGUF blocks, fp8 or int8, and are decoded at use."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from comfy.quant_ops import QuantizedLayout, QuantizedTensor
from comfy_kitchen.tensor import register_layout_class
from comfy_kitchen.tensor.base import BaseLayoutParams
from torch import Tensor, nn

from ..vdot_core.checkpoints.ggml_types import dequantize
from ..vdot_core.checkpoints.scaled import expand_scaled

LAYOUT = "VDOTPackedLayout"


class PackedLayout(QuantizedLayout):
    """Decoding of our packed weights for ComfyUI's quantized tensors; they are never encoded."""

    @dataclass(frozen=True)
    class Params(BaseLayoutParams):
        """Form of one weight: the format of its GGUF blocks, or `scale`, one factor or one per row.

        Args:
            group_size: columns that were rotated together before; 0: none were.
        """

        ggml_type: str = ""
        group_size: int = 0

        def _tensor_fields(self) -> list[str]:
            return [] if self.ggml_type else ["scale"]

    @classmethod
    def quantize(cls, tensor: Tensor, **options: Any):
        raise ValueError("packed weights cannot be encoded; set weight_dtype of VDOT Load Model to bf16")

    @classmethod
    def dequantize(cls, qdata: Tensor, params: Params) -> Tensor:
        if params.ggml_type:
            return dequantize(qdata, params.ggml_type, params.orig_shape, params.orig_dtype)
        return expand_scaled(qdata, params.scale, params.orig_dtype, params.group_size)

    @classmethod
    def get_plain_tensors(cls, qtensor: QuantizedTensor) -> tuple[Tensor, ...]:
        scale = qtensor._params.scale
        return (qtensor._qdata,) if scale is None else (qtensor._qdata, scale)

    @classmethod
    def state_dict_tensors(cls, qdata: Tensor, params: Params) -> dict[str, Tensor]:
        return {"": cls.dequantize(qdata, params)}


register_layout_class(LAYOUT, PackedLayout)


def pack(
    stored: Tensor,
    shape: tuple[int, ...],
    scale: Tensor | None = None,
    ggml_type: str = "",
    group_size: int = 0,
) -> QuantizedTensor:
    """A stored weight as one tensor of its values.

    Args:
        stored: as it lies in the file, uint8 blocks, or fp8 or int8 numbers.
        shape: of the values.
        scale: of fp8 and int8, one factor or one per row.
        ggml_type: the format of GGUF's blocks.
        group_size: columns that were rotated together before; 0: none were.
    """
    params = PackedLayout.Params(scale, torch.bfloat16, shape, ggml_type, group_size)
    return QuantizedTensor(stored, LAYOUT, params)


def _decoded_to(packed: QuantizedTensor, dtype: torch.dtype) -> QuantizedTensor:
    """The same bytes with values of another dtype; the tensor's own `to` would copy them."""
    params = dataclasses.replace(packed._params, orig_dtype=dtype)
    return QuantizedTensor(packed._qdata, LAYOUT, params)


def packed_operations(decode: bool) -> type:
    """ComfyUI's layers, whose Linear reads packed weights.

    Args:
        decode: decode each weight as it is loaded; otherwise it stays packed and is decoded at each use.
    """

    class PackedOperations(comfy.ops.manual_cast):
        class Linear(PackedLinear):
            decode_at_load = decode

    return PackedOperations


class PackedLinear(comfy.ops.manual_cast.Linear):
    """ComfyUI's linear layer, with a weight that may be packed."""

    decode_at_load = False

    def __init__(self, in_features, out_features, bias=True, device=None, dtype=None):
        nn.Module.__init__(self)  # no memory for weights that the file brings
        self.in_features, self.out_features, self.dtype = in_features, out_features, dtype
        self.register_parameter("weight", None)
        self.register_parameter("bias", None)
        self.has_bias = bias

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors):
        for name in ("weight", "bias") if self.has_bias else ("weight",):
            value = state_dict.get(prefix + name)
            if value is None:
                missing.append(prefix + name)
                continue
            if isinstance(value, QuantizedTensor):
                value = _decoded_to(value, self.dtype)
                value = value.dequantize() if self.decode_at_load else value
            else:
                value = value.to(self.dtype)
            setattr(self, name, nn.Parameter(value, requires_grad=False))

    def convert_weight(self, weight: Tensor, inplace: bool = False, **_options: Any) -> Tensor:
        """ComfyUI's hook before it patches a weight."""
        return weight.dequantize() if isinstance(weight, QuantizedTensor) else weight

    def set_weight(self, weight, inplace_update=False, seed=None, return_weight=False, **_options):
        """ComfyUI's hook after it has patched a weight."""
        if return_weight:
            return weight
        if isinstance(self.weight, QuantizedTensor):
            raise ValueError(
                "LoRA hooks cannot change packed weights (GGUF, fp8 of several scales); set weight_dtype of "
                "VDOT Load Model to bf16, or put the LoRA on the model itself"
            )
        self.weight = nn.Parameter(weight.to(self.weight.dtype), requires_grad=False)
        return None

    def _apply(self, fn, recurse=True):
        """Move the parameters; torch's own way would lose the packed bytes."""
        for name, parameter in self._parameters.items():
            if parameter is not None:
                value = fn(parameter)
                if value.is_inference() and not torch.is_inference_mode_enabled():
                    value = value.clone()
                self._parameters[name] = nn.Parameter(value, requires_grad=False)
        return self


class PackedPatcher(comfy.model_patcher.ModelPatcher):
    """ComfyUI's patcher; patches of packed weights are applied at use, on the decoded values."""

    def patch_weight_to_device(self, key, *args, **options):
        """Put a weight's patches on its layer if it is packed, else on the weight, as ComfyUI does."""
        layer = self._packed_layer(key)
        if layer is None or key not in self.patches or options.get("return_weight"):
            return super().patch_weight_to_device(key, *args, **options)
        layer.weight_function = [comfy.model_patcher.LowVramPatch(key, self.patches), *layer.weight_function]
        return None

    def partially_unload(self, *args, **options):
        """Unload, without ComfyUI's second copy of patches that are on the layer already."""
        freed = super().partially_unload(*args, **options)
        for module in self._packed_layers():
            patches = [f for f in module.weight_function if isinstance(f, comfy.model_patcher.LowVramPatch)]
            module.weight_function = [f for f in module.weight_function if f not in patches[1:]]
        return freed

    def unpatch_model(self, device_to=None, unpatch_weights=True):
        """Take patches off, also those of packed weights."""
        if unpatch_weights:
            for module in self._packed_layers():
                module.weight_function = []
        super().unpatch_model(device_to, unpatch_weights)

    def _packed_layers(self):
        return [m for m in self.model.modules() if isinstance(getattr(m, "weight", None), QuantizedTensor)]

    def _packed_layer(self, key: str):
        layer = comfy.utils.get_attr(self.model, key.rpartition(".")[0]) if "." in key else None
        is_weight = key.endswith(".weight") and isinstance(getattr(layer, "weight", None), QuantizedTensor)
        return layer if is_weight else None
