"""Reads a checkpoint's headers: its layout, its config, and the location of every parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..networks import WanVaceConfig, expected_shapes
from ..text import listed, shown
from . import diagnose, infer
from .diagnose import Problem
from .folders import WeightSet, find_weights
from .info import CheckpointInfo, Entry, Survey, with_counts
from .join import has_vace, join, vace_branch
from .layouts import VACE_ROOTS, Layout, detect_layout
from .open_tensors import open_tensor_file
from .quantized import find_quantization, layer_settings
from .tensor_files import TensorFile, TensorSpec


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
        result = join(result, vace_branch(module) if branch_of_vace else module)
    if result.info.problem:
        return result
    if not any(name.startswith("blocks.") for name in result.entries) and has_vace(result):
        return _module(result, config)
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
    info = replace(result.info, layout=problem.layout, problem=reason, usage=problem.usage)
    return Survey(info, result.entries)


def _module(result: Survey, config: WanVaceConfig | None) -> Survey:
    """A VACE module alone, checked against the network that it is part of, where that is known."""
    specs = {name: entry.spec for name, entry in result.entries.items()}
    try:
        argument, config = config, _choose_config(result.info, specs, config, infer.config_of_module)
        result = Survey(replace(result.info, config=argument or result.info.config), result.entries)
        fault = "" if config is None else _module_fault(specs, config)
    except ValueError as error:
        fault = str(error)
    if fault:
        layout = diagnose.VACE_MODULE.layout
        return _refused(result, Problem(layout, f"this is a VACE module that cannot be used; {fault}"))
    return _refused(result, diagnose.VACE_MODULE)


def _module_fault(specs: Mapping[str, TensorSpec], config: WanVaceConfig) -> str:
    num_vace = infer.count_blocks(specs)[1]
    if num_vace != len(config.vace_layers):
        return f"it has {num_vace} VACE blocks, its config says {len(config.vace_layers)}"
    expected = {n: shape for n, shape in expected_shapes(config).items() if n.startswith(VACE_ROOTS)}
    return diagnose.mismatch(specs, expected)


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
    info = with_counts(CheckpointInfo(path, "unknown", None, {}, 0, weights.files, metadata), specs)

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
        entries[name] = Entry(
            owners[original],
            original,
            spec,
            names[scale] if scale else None,
            quantization.rotations.get(name, 0),
            packed,
        )
    info = with_counts(info, {name: entry.spec for name, entry in entries.items()})
    ggml_types = sorted({entry.spec.ggml_type for entry in entries.values()} - {""})
    info = replace(
        info,
        encodings=quantization.encodings,
        formats=quantization.formats,
        ggml_types=tuple(ggml_types),
    )
    return Survey(info, entries)


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


def _choose_config(
    info: CheckpointInfo,
    specs: Mapping[str, TensorSpec],
    argument: WanVaceConfig | None,
    infer_config: Callable[[Mapping[str, TensorSpec]], WanVaceConfig | None] = infer.config_from_shapes,
) -> WanVaceConfig | None:
    if argument is not None and info.config is not None and argument != info.config:
        name = next(name for name, value in vars(argument).items() if value != getattr(info.config, name))
        own, other = (shown(getattr(config, name), 60) for config in (info.config, argument))
        raise ValueError(f"it carries a config with {name} {own}, config= has {other}; leave config= out")
    return argument or info.config or infer_config(specs)


def _fault(specs: Mapping[str, TensorSpec], config: WanVaceConfig) -> str:
    """Block counts first: a false one would make the expected network arbitrarily large."""
    counted = infer.count_blocks(specs)
    if counted != (config.num_layers, len(config.vace_layers)):
        return (
            f"it has {counted[0]} blocks and {counted[1]} VACE blocks, its config says {config.num_layers} "
            f"and {len(config.vace_layers)}: an incomplete file, or a config that is not this file's"
        )
    return diagnose.mismatch(specs, expected_shapes(config))
