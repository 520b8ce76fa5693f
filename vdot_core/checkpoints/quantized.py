"""Quantized weights in safetensors: fp8 and int8 with scale factors, and ComfyUI's other formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from ..dtypes import FP8_DTYPES
from ..text import parse_json, shown
from .tensor_files import TensorFile, TensorSpec

QUANTIZATION_METADATA = "_quantization_metadata"  # key of ComfyUI's table of layers in a header
_MAX_SETTINGS_BYTES = 10_000
_MARKER = "scaled_fp8"
# ComfyUI's ending of each further tensor of a quantized layer -> the endings that publishers use.
_PARTS = {
    "weight_scale": (".weight_scale", ".scale_weight"),
    "weight_scale_2": (".weight_scale_2",),
    "input_scale": (".input_scale", ".scale_input"),
    "pre_quant_scale": (".pre_quant_scale",),
    "comfy_quant": (".comfy_quant",),
}
_PART_OF = {ending: part for part, endings in _PARTS.items() for ending in endings}
_UNREAD = (".qweight", ".qzeros", ".absmax", ".quant_map")
_INT8 = "int8_tensorwise"
_ROTATED, _GROUP_SIZE = "convrot", "convrot_groupsize"  # ComfyUI's settings: channels are rotated in groups
_DEFAULT_GROUP = 256
_FP8_FORMATS = {torch.float8_e4m3fn: "float8_e4m3fn", torch.float8_e5m2: "float8_e5m2"}


class _Form(NamedTuple):
    """A format of ComfyUI's layers other than fp8: values in an element, and values that share a scale."""

    dtype: torch.dtype
    num_values: int = 1
    block_size: int | None = None


_OTHER_FORMATS = {
    _INT8: _Form(torch.int8),
    "mxfp8": _Form(torch.float8_e4m3fn, block_size=32),
    "nvfp4": _Form(torch.uint8, num_values=2, block_size=16),
    "convrot_w4a4": _Form(torch.int8, num_values=2),
}
_SINGLE_FACTORS = ("input_scale", "weight_scale_2")


@dataclass(frozen=True)
class PackedWeight:
    """A weight that ComfyUI's quantized layers read as it is stored.

    Args:
        settings: of the layer, as in ComfyUI's comfy_quant: its 'format', and options of some formats.
        parts: ComfyUI's ending of each further tensor of the layer -> its Wan name.
        shape: of the weight's values.
    """

    settings: dict[str, Any]
    parts: dict[str, str]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Quantization:
    """The quantization that a file's keys describe.

    Args:
        scales: Wan name of a weight -> Wan name of its scale, where `expand_scaled` gives its values.
        rotations: Wan name of such a weight -> size of the groups of columns that are rotated.
        packed: Wan name of a weight -> its form, where ComfyUI's layers read it.
        helpers: every name that is part of the quantization and no parameter of the network.
        problem: why the weights cannot be read; empty where they can.
    """

    scales: dict[str, str] = field(default_factory=dict)
    rotations: dict[str, int] = field(default_factory=dict)
    packed: dict[str, PackedWeight] = field(default_factory=dict)
    helpers: frozenset[str] = frozenset()
    problem: str = ""

    @property
    def formats(self) -> tuple[str, ...]:
        """Formats of the weights that only ComfyUI's layers read."""
        return tuple(
            sorted({self.packed[name].settings["format"] for name in self.packed.keys() - self.scales})
        )

    @property
    def encodings(self) -> tuple[str, ...]:
        """Forms of the weights that `expand_scaled` decodes."""
        settings = [self.packed[name].settings if name in self.packed else {} for name in self.scales]
        return tuple(sorted({"int8" if s.get("format") == _INT8 else "scaled fp8" for s in settings}))


def find_quantization(
    specs: Mapping[str, TensorSpec], settings: Mapping[str, dict[str, Any]] | None = None
) -> Quantization:
    """Separate quantization keys from parameters.

    Args:
        specs: Wan name -> shape and dtype, quantization keys included.
        settings: as from `layer_settings`; None goes by dtypes and names alone.
    Returns:
        The scales and packed weights; `problem` names a scheme that is not read.
    """
    helpers, layers = {name for name in specs if name == _MARKER}, {}
    for name in specs:
        layer, dot, ending = name.rpartition(".")
        if dot + ending in _UNREAD:
            return Quantization(
                problem=f"its weights are quantized in a way that is not read ({shown(name)})"
            )
        if dot + ending in _PART_OF:
            helpers.add(name)
            layers.setdefault(f"{layer}.weight", {})[_PART_OF[dot + ending]] = name
    scales, rotations, packed = {}, {}, {}
    scaled = {
        name: parts for name, parts in layers.items() if parts.keys() & {"weight_scale", "weight_scale_2"}
    }
    for weight, options in (settings or {}).items():
        # A whole file without scales is fp8 as it is; one layer without its own is damaged.
        is_fp8 = weight in specs and specs[weight].dtype in FP8_DTYPES
        if scaled and weight not in scaled and "format" in options and is_fp8:
            return Quantization(problem=f"{shown(weight, 80)} has no weight_scale, which other layers have")
    for weight, parts in scaled.items():
        options = {**(settings or {}).get(weight, {})}
        options.setdefault("format", _format_of(specs, weight, parts))
        problem = _check_layer(specs, weight, parts, options)
        if problem:
            return Quantization(problem=problem)
        is_other = options["format"] in _OTHER_FORMATS
        if "pre_quant_scale" not in parts and (not is_other or options["format"] == _INT8):
            scales[weight] = parts["weight_scale"]
        if options["format"] == _INT8 and (size := _rotation_group(options)):
            rotations[weight] = size
        if is_other or specs[parts["weight_scale"]].num_elements == 1:
            *rows, width = specs[weight].shape
            shape = (*rows, width * (_OTHER_FORMATS[options["format"]].num_values if is_other else 1))
            packed[weight] = PackedWeight(options, parts, shape)
    for name, spec in specs.items():
        if not (name in helpers or name in packed or spec.dtype.is_floating_point):
            return Quantization(problem=f"{shown(name)} is {spec.dtype}, a quantization that is not read")
    return Quantization(scales, rotations, packed, frozenset(helpers))


def layer_settings(
    names: Mapping[str, str], owners: Mapping[str, TensorFile], metadata: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Read what a file says of its quantized layers.

    Args:
        names: Wan name -> name in the file.
        owners: name in the file -> the file.
        metadata: the header's strings.
    Returns:
        Wan name of a weight -> ComfyUI's settings of its layer.
    Raises:
        ValueError: settings that cannot be read.
    """
    table = _parsed(metadata[QUANTIZATION_METADATA], "layers") if QUANTIZATION_METADATA in metadata else {}
    marker = names.get(_MARKER)
    # In ComfyUI's older files a marker of two elements asks for matrix products of full precision.
    is_precise = marker is not None and owners[marker].specs[marker].num_elements == 2
    settings: dict[str, dict[str, Any]] = {}
    for weight, name in names.items():
        layer = weight.removesuffix(".weight")
        part = names.get(f"{layer}.comfy_quant")
        if layer == weight:
            continue
        if part is not None:
            file = owners[part]
            if file.load is None or file.specs[part].num_bytes > _MAX_SETTINGS_BYTES:
                raise ValueError(
                    f"{shown(part, 80)} has {file.specs[part].num_bytes} bytes and is not read; "
                    "download the file again"
                )
            settings[weight] = _parsed(file.load(part).contiguous().view(torch.uint8).numpy().tobytes())
        elif isinstance(table.get(name.removesuffix(".weight"), table.get(layer)), dict):
            settings[weight] = dict(table.get(name.removesuffix(".weight"), table.get(layer)))
        elif is_precise and f"{layer}.scale_weight" in names:
            settings[weight] = {"full_precision_matrix_mult": True}
    return settings


def _parsed(text: str | bytes, key: str | None = None) -> dict[str, Any]:
    try:
        value = parse_json(text)
    except ValueError as error:
        raise ValueError(f"its quantization settings are damaged ({error}); download it again") from error
    value = value.get(key) if key and isinstance(value, dict) else value
    if not isinstance(value, dict):
        raise ValueError(
            f"its quantization settings are a {type(value).__name__}, expected a JSON object; download it "
            "again"
        )
    return value


def _format_of(specs: Mapping[str, TensorSpec], weight: str, parts: Mapping[str, str]) -> str:
    """The format of a weight by its dtype and parts, for files that do not say it."""
    dtype = specs[weight].dtype if weight in specs else None
    if dtype == torch.uint8 and "weight_scale_2" in parts:
        return "nvfp4"
    return _INT8 if dtype == torch.int8 else _FP8_FORMATS.get(dtype, "")


def _check_layer(
    specs: Mapping[str, TensorSpec], weight: str, parts: Mapping[str, str], options: Mapping[str, Any]
) -> str:
    """Say why a quantized layer cannot be read; empty where it can."""
    name, kind = parts.get("weight_scale") or parts["weight_scale_2"], options["format"]
    if weight not in specs:
        return f"{shown(name, 80)} scales {shown(weight, 80)}, which the file does not hold"
    if not isinstance(kind, str) or kind not in _OTHER_FORMATS:
        problem = _check_fp8(specs, weight, parts, kind)
    else:
        problem = _check_other(specs, weight, parts, options)
    if not problem and "weight_scale" not in parts:
        problem = f"{shown(weight, 80)} is {kind or 'fp8'} and has no weight_scale"
    for part in _SINGLE_FACTORS:
        if not problem and part in parts and specs[parts[part]].num_elements != 1:
            shape = shown(list(specs[parts[part]].shape), 40)
            problem = f"{shown(parts[part], 80)} is {shape}; one factor is read"
    return problem


def _check_fp8(specs: Mapping[str, TensorSpec], weight: str, parts: Mapping[str, str], kind: Any) -> str:
    """As `_check_layer`, of a weight in fp8."""
    name = parts.get("weight_scale") or parts["weight_scale_2"]
    scale, (shape, dtype) = specs[name], (specs[weight].shape, specs[weight].dtype)
    if dtype not in FP8_DTYPES or kind not in ("", _FP8_FORMATS[dtype]):
        label = f"a weight of {dtype}" + (f" in the format '{shown(kind, 40)}'" if kind else "")
        return f"{shown(name)} scales {label}; only fp8 weights with scales and ComfyUI's formats are read"
    if not scale.dtype.is_floating_point or scale.num_elements not in (1, *shape[:1]):
        return f"{shown(name)} is {shown(list(scale.shape))}; one factor, or one per output channel, is read"
    if scale.num_elements != 1 and "pre_quant_scale" in parts:
        return f"{shown(weight, 80)} has a pre_quant_scale, which is read with one weight_scale alone"
    return "" if shape else f"{shown(weight, 80)} is a single scaled number, expected a matrix"


def _check_other(
    specs: Mapping[str, TensorSpec], weight: str, parts: Mapping[str, str], options: Mapping[str, Any]
) -> str:
    """As `_check_layer`, of a weight in one of `_OTHER_FORMATS`: what ComfyUI would take for granted."""
    kind, spec = options["format"], specs[weight]
    form, label = _OTHER_FORMATS[kind], f"{shown(weight, 80)} is {kind}"
    if len(spec.shape) != 2 or spec.dtype != form.dtype:
        return f"{label} and {spec.dtype} {shown(list(spec.shape), 40)}, expected a matrix of {form.dtype}"
    missing = {"weight_scale", *(["weight_scale_2"] if kind == "nvfp4" else [])} - parts.keys()
    if missing:
        return f"{label} and has no {missing.pop()}"
    scale, num_values = specs[parts["weight_scale"]], spec.num_elements * form.num_values
    fits = scale.num_elements in (1, spec.shape[0]) if kind == _INT8 else scale.num_elements
    if form.block_size is not None:
        fits = scale.num_bytes * form.block_size >= num_values
    if not fits:
        return f"{label}, and its weight_scale {shown(list(scale.shape), 40)} does not fit"
    width = spec.shape[1] * form.num_values
    size = _rotation_group(options) if kind == _INT8 else _setting(options, _GROUP_SIZE)
    if size is not None and not (_is_power_of_4(size) and width % size == 0):
        return (
            f"{label} in groups of {shown(size, 40)}, expected a power of 4 that divides its {width} columns"
        )
    return ""


def _setting(options: Mapping[str, Any], name: str) -> Any:
    """A setting of a layer, which may also lie under 'params'; None where it is not given."""
    further = options.get("params")
    return options.get(name, further.get(name) if isinstance(further, dict) else None)


def _rotation_group(options: Mapping[str, Any]) -> Any:
    """Columns of an int8 weight that are rotated together; None where none are."""
    if not _setting(options, _ROTATED):
        return None
    size = _setting(options, _GROUP_SIZE)
    return _DEFAULT_GROUP if size is None else size


def _is_power_of_4(size: Any) -> bool:
    return type(size) is int and size > 1 and size.bit_count() == 1 and size.bit_length() % 2 == 1
