"""Reads a checkpoint's headers: its layout, its config, and the location of every parameter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..networks import WanVaceConfig, expected_shapes
from ..text import listed, shown
from . import diagnose, infer
from .folders import WeightSet, find_weights
from .layouts import VACE_ROOTS, Layout, detect_layout
from .quantized import PackedWeight, find_quantization, layer_settings
from .tensor_files import Problem, TensorFile, TensorSpec, open_tensor_file


@dataclass(frozen=True)
class CheckpointInfo:
    """Description of a checkpoint, from its headers.

    Args:
        path: the checkpoint.
        layout: 'vdot' (ours), 'vdot-pt' (the release), 'wan', 'comfyui', 'diffusers', 'vace-module', two of
            these joined by ' + ', or what else it is: 'lora', 'vae', 'text-encoder', 'i2v', 'unknown', ...
        config: the network's sizes; None where they cannot be known.
        dtypes: number of parameters by dtype, as in {'bfloat16': 17337592896}, or by GGUF's format.
        num_parameters: all parameters of the network; quantization scales are not counted.
        files: the weight files.
        metadata: the strings of the files' headers.
        problem: why it cannot be loaded; empty where it can.
        scaled: True for fp8 weights with scale factors.
        formats: formats of weights that only ComfyUI's layers read, such as 'nvfp4'.
        ggml_types: formats of a GGUF file's blocks, such as 'Q4_K'.
    """

    path: Path
    layout: str
    config: WanVaceConfig | None
    dtypes: dict[str, int]
    num_parameters: int
    files: tuple[Path, ...]
    metadata: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    scaled: bool = False
    formats: tuple[str, ...] = ()
    ggml_types: tuple[str, ...] = ()

    @property
    def encoded_as(self) -> str:
        """Form of weights that have to be decoded, and so need a dtype to be read; empty where none have."""
        return "scaled fp8" if self.scaled else ", ".join(self.ggml_types)


@dataclass(frozen=True)
class Entry:
    """Location of one parameter.

    Args:
        file: that holds it.
        name: in the file.
        spec: shape of its values and dtype of its storage.
        scale: name of its fp8 factor in the same file.
        packed: its form for ComfyUI's quantized layers; `parts` are names in the same file.
    """

    file: TensorFile
    name: str
    spec: TensorSpec
    scale: str | None = None
    packed: PackedWeight | None = None

    @property
    def is_encoded(self) -> bool:
        """The file's numbers are not the parameter's values."""
        return self.scale is not None or bool(self.spec.ggml_type)


@dataclass(frozen=True)
class Survey:
    """The `inspect` result, and the location of each parameter by its Wan name."""

    info: CheckpointInfo
    entries: dict[str, Entry]


def survey(
    path: str | Path,
    vace: str | Path | None = None,
    config: WanVaceConfig | None = None,
    *,
    branch_of_vace: bool = False,
) -> Survey:
    """Read the headers of a checkpoint, or of a base network and the VACE module to be joined to it.

    Args:
        path: what `folders.find_weights` takes.
        vace: a file with VACE's keys alone, where `path` is a T2V network.
        config: the network's sizes, where the file does not carry them; must not contradict it.
        branch_of_vace: `vace` may be a complete VACE network, of which only the VACE branch is taken.
    Returns:
        Layout, config and entries; `info.problem` says why it is no loadable network.
    Raises:
        ValueError: a file is missing, damaged or unsafe, or the two files are not a base and a module.
    """
    result = _survey_set(Path(path))
    if vace is not None:
        module = _survey_set(Path(vace))
        result = _join(result, _branch(module) if branch_of_vace else module)
    if result.info.problem:
        return result
    if not any(name.startswith("blocks.") for name in result.entries) and _has_vace(result):
        return _refused(result, diagnose.VACE_MODULE)
    specs = {name: entry.spec for name, entry in result.entries.items()}
    try:
        config = _choose_config(result.info, specs, config)
        fault = _fault(specs, config)
    except ValueError as error:
        fault = str(error)
    result = Survey(replace(result.info, config=config), result.entries)
    return _refused(result, Problem(result.info.layout, fault)) if fault else result


def _refused(result: Survey, problem: Problem) -> Survey:
    reason = f"{shown(result.info.path, 100)}: {problem.reason}"
    return Survey(replace(result.info, layout=problem.layout, problem=reason), result.entries)


def _survey_set(path: Path) -> Survey:
    """Layout, names and config of one network's files, before the check against the network."""
    weights = find_weights(path)
    files = [open_tensor_file(file) for file in weights.files]
    if weights.owners is not None:
        _check_owners(path, weights, files)
    owners: dict[str, TensorFile] = {}
    for file in files:
        for name in file.specs:
            if name in owners:
                both = listed([owners[name].path.name, file.path.name])
                raise ValueError(f"{shown(path)}: {shown(name)} is in two files: {both}")
            owners[name] = file
    metadata = {key: value for file in files for key, value in file.metadata.items()}
    specs = {name: file.specs[name] for name, file in owners.items()}
    info = _count(CheckpointInfo(path, "unknown", None, {}, 0, weights.files, metadata), specs)

    layout = detect_layout(specs, files[0].container)
    problem = diagnose.foreign(specs)
    if problem is None and layout is None:
        names = listed(specs) or "no tensors at all"
        problem = Problem(
            "unknown",
            f"nothing in it looks like a Wan transformer; it has {names}; give a VACE or VDOT network",
        )
    if problem is not None:
        return _refused(Survey(info, {}), problem)
    try:
        return _interpret(replace(info, layout=layout.name), layout, owners, weights.config)
    except ValueError as error:
        return _refused(Survey(info, {}), Problem(layout.name, str(error)))


def _interpret(
    info: CheckpointInfo, layout: Layout, owners: Mapping[str, TensorFile], content: Mapping[str, Any] | None
) -> Survey:
    """Translate a file's names to Wan's, set its quantization's helpers apart, and read its config."""
    names = layout.wan_names(owners)
    specs = {name: owners[original].specs[original] for name, original in names.items()}
    problem = diagnose.wrong_channels(specs)
    if problem is not None:
        return _refused(Survey(info, {}), problem)
    config = infer.config_from_metadata(info.metadata)
    if config is not None and layout.name == "wan":
        info = replace(info, layout="vdot")
    if config is None and content is not None:
        config = infer.config_from_json(content)
    info = replace(info, config=config)
    quantization = find_quantization(specs, layer_settings(names, owners, info.metadata))
    if quantization.problem:
        reason = f"{quantization.problem}; give a bf16, fp16 or fp8 file"
        return _refused(Survey(info, {}), Problem(info.layout, reason))
    entries = {}
    for name, original in names.items():
        if name in quantization.helpers:
            continue
        scale, packed, spec = quantization.scales.get(name), quantization.packed.get(name), specs[name]
        if packed is not None:
            packed = replace(packed, parts={part: names[helper] for part, helper in packed.parts.items()})
            spec = replace(spec, shape=packed.shape)
        entries[name] = Entry(owners[original], original, spec, names[scale] if scale else None, packed)
    info = _count(info, {name: entry.spec for name, entry in entries.items()})
    ggml_types = sorted({entry.spec.ggml_type for entry in entries.values()} - {""})
    info = replace(
        info,
        scaled=bool(quantization.scales),
        formats=quantization.formats,
        ggml_types=tuple(ggml_types),
    )
    return Survey(info, entries)


def _count(info: CheckpointInfo, specs: Mapping[str, TensorSpec]) -> CheckpointInfo:
    dtypes: Counter[str] = Counter()
    for spec in specs.values():
        dtypes[spec.ggml_type or str(spec.dtype).removeprefix("torch.")] += spec.num_elements
    return replace(info, dtypes=dict(dtypes), num_parameters=sum(dtypes.values()))


def _check_owners(path: Path, weights: WeightSet, files: list[TensorFile]) -> None:
    """The index and the shards must agree on where every tensor is."""
    assert weights.owners is not None
    actual = {name: file.path for file in files for name in file.specs}
    wrong = [
        name for name, file in weights.owners.items() if name not in files[weights.files.index(file)].specs
    ]
    wrong += [name for name in actual if name not in weights.owners]
    if wrong:
        raise ValueError(
            f"{shown(path)}: the index and the shards disagree on {len(wrong)} tensors: {listed(wrong)}; "
            "they are of different downloads, download them again"
        )


def _has_vace(result: Survey) -> bool:
    return any(name.startswith(VACE_ROOTS) for name in result.entries)


def _branch(network: Survey) -> Survey:
    """The VACE branch of a complete VACE network; others are returned as they are."""
    if network.info.problem or not _has_vace(network):
        return network
    entries = {name: entry for name, entry in network.entries.items() if name.startswith(VACE_ROOTS)}
    return Survey(network.info, entries)


def _join(base: Survey, module: Survey) -> Survey:
    """Join a T2V network and its VACE module."""
    if base.info.layout == "i2v":
        raise ValueError(
            f"{shown(base.info.path)} is an image-to-video network (I2V), which takes an image with every "
            "video; VACE modules belong to text-to-video networks: give the T2V network of the same size"
        )
    for part in (base, module):
        if part.info.problem:
            raise ValueError(part.info.problem)
    if any(not name.startswith(VACE_ROOTS) for name in module.entries):
        swapped = all(name.startswith(VACE_ROOTS) for name in base.entries)
        advice = "the two are swapped" if swapped else "load it alone, or give a file of vace_* keys only"
        raise ValueError(f"{shown(module.info.path)} holds a complete network, not the VACE module: {advice}")
    _check_widths(base, module)
    if _has_vace(base):
        raise ValueError(
            f"{shown(base.info.path)} has a VACE branch already; load it alone, or give a T2V network"
        )
    entries = {**base.entries, **module.entries}
    info = replace(
        _count(base.info, {name: entry.spec for name, entry in entries.items()}),
        layout=f"{base.info.layout} + {diagnose.VACE_MODULE.layout}",
        files=base.info.files + module.info.files,
        metadata={**module.info.metadata, **base.info.metadata},
        scaled=base.info.scaled or module.info.scaled,
        formats=tuple(sorted({*base.info.formats, *module.info.formats})),
        ggml_types=tuple(sorted({*base.info.ggml_types, *module.info.ggml_types})),
    )
    if info.config is not None:
        info = replace(info, config=_with_vace(info.config, module))
    return Survey(info, entries)


def _check_widths(base: Survey, module: Survey) -> None:
    """Refuse the module of a network of another size before its blocks are counted."""
    embeddings = (
        base.entries.get("patch_embedding.weight"),
        module.entries.get("vace_patch_embedding.weight"),
    )
    widths = [entry.spec.shape[0] for entry in embeddings if entry is not None and entry.spec.shape]
    if len(set(widths)) > 1:
        raise ValueError(
            f"{shown(base.info.path, 100)} and {shown(module.info.path, 100)} are of networks of different "
            f"size (widths {widths[0]} and {widths[1]}); give the VACE module of the same size, 14B to 14B "
            "or 1.3B to 1.3B"
        )


def _with_vace(config: WanVaceConfig, module: Survey) -> WanVaceConfig:
    """A text-only config that came with the base, completed by the module's VACE layers.

    Where the module carries no config, they are evenly spaced.
    """
    own = module.info.config
    if own is not None and own.vace_layers and own.num_layers == config.num_layers:
        return replace(config, vace_layers=own.vace_layers, vace_in_channels=own.vace_in_channels)
    specs = {name: entry.spec for name, entry in module.entries.items()}
    _, num_vace = infer.count_blocks(specs)
    if num_vace == 0 or config.num_layers % num_vace:
        raise ValueError(
            f"{shown(module.info.path)} has {num_vace} VACE blocks, the base network {config.num_layers} "
            "blocks, over which they cannot be spaced evenly; give the module that belongs to this base"
        )
    embedding = specs.get("vace_patch_embedding.weight")
    channels = (
        embedding.shape[1] if embedding is not None and len(embedding.shape) == 5 else config.vace_in_channels
    )
    layers = tuple(range(0, config.num_layers, config.num_layers // num_vace))
    return replace(config, vace_layers=layers, vace_in_channels=channels)


def _choose_config(
    info: CheckpointInfo, specs: Mapping[str, TensorSpec], argument: WanVaceConfig | None
) -> WanVaceConfig:
    if argument is not None and info.config is not None and argument != info.config:
        name = next(name for name, value in vars(argument).items() if value != getattr(info.config, name))
        own, other = (shown(getattr(config, name), 60) for config in (info.config, argument))
        raise ValueError(f"it carries a config with {name} {own}, config= has {other}; leave config= out")
    return argument or info.config or infer.config_from_shapes(specs)


def _fault(specs: Mapping[str, TensorSpec], config: WanVaceConfig) -> str:
    """Block counts first: a false one would make the expected network arbitrarily large."""
    counted = infer.count_blocks(specs)
    if counted != (config.num_layers, len(config.vace_layers)):
        return (
            f"it has {counted[0]} blocks and {counted[1]} VACE blocks, its config says {config.num_layers} "
            f"and {len(config.vace_layers)}: an incomplete file, or a config that is not this file's"
        )
    return diagnose.mismatch(specs, expected_shapes(config))
