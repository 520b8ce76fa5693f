"""Splits a VACE network into its T2V base and its VACE module, tensor by tensor."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ..files import new_files
from ..networks import WanVaceConfig
from ..text import shown
from .infer import follows_from_shapes
from .info import CheckpointInfo, Entry
from .layouts import COMFYUI_PREFIXES, VACE_ROOTS, wan_to_diffusers
from .read import inspect, iterate_tensors, loadable
from .safetensors_files import fill_safetensors
from .streams import reported, unchanged
from .targets import checked_path, earlier_forms, remove, require_apart, require_free
from .tensor_files import TensorSpec
from .write import carried_header, plain_header, writing_order

FILE_NAMINGS: dict[str, Callable[[str], str]] = {
    "wan": str,
    "comfyui": lambda name: COMFYUI_PREFIXES[0] + name,
    "diffusers": wan_to_diffusers,
}
"""Keys of the parts: Wan's own, as in ComfyUI's and Kijai's files; ComfyUI's checkpoints'; diffusers'."""


def split(
    source: str | Path,
    base: str | Path,
    module: str | Path,
    *,
    config: WanVaceConfig | None = None,
    dtype: torch.dtype | None = None,
    naming: str = "wan",
    overwrite: bool = False,
) -> tuple[CheckpointInfo, CheckpointInfo]:
    """Write a VACE network's T2V part and its VACE branch to two files; `merge` joins them again.

    Files of released sizes carry no config, so that programs that know nothing of this project open them.

    Args:
        source: anything that `read_weights` reads.
        base: the `.safetensors` file for the T2V network.
        module: the `.safetensors` file for `vace_blocks` and `vace_patch_embedding`.
        config: sizes of a network whose file does not carry them.
        dtype: convert every parameter; None keeps each dtype.
        naming: of the keys, one of FILE_NAMINGS.
        overwrite: replace existing targets.
    Returns:
        The `inspect` results of base and module.
    Raises:
        ValueError: the source cannot be read or has no VACE branch, or a target cannot be written or exists
            already; then neither file is left.
    """
    if naming not in FILE_NAMINGS:
        raise ValueError(f"naming is '{shown(naming, 40)}'; give {', '.join(FILE_NAMINGS)}")
    targets = [checked_path(path) for path in (base, module)]
    if _is_same(*targets):
        raise ValueError(
            f"{shown(targets[0])} is given twice; give a file for the base and one for the module"
        )
    for target in targets:
        require_free(target, overwrite)
    checkpoint = loadable(source, None, config, dtype)
    config = checkpoint.info.config
    if not config.vace_layers:
        raise ValueError(f"{shown(source)} has no VACE branch to split off; give a VACE network")
    require_apart(targets, checkpoint.info.files)
    earlier = [
        path
        for target in targets
        for path in earlier_forms(target, targets, overwrite=overwrite, sources=checkpoint.info.files)
    ]
    parts: list[dict[str, Entry]] = [{}, {}]
    for name, entry in checkpoint.entries.items():
        parts[name.startswith(VACE_ROOTS)][name] = entry
    text = replace(config, vace_layers=())
    specs = {name: entry.spec for name, entry in checkpoint.entries.items()}
    is_released = follows_from_shapes(config, specs)
    with new_files(targets[0], targets, overwrite=overwrite) as partial_of:
        for target, entries, own in zip(targets, parts, (text, config), strict=True):
            metadata = carried_header(own, checkpoint.info.metadata)
            if is_released:
                metadata = plain_header(config, specs, checkpoint.info.metadata)
            _write(partial_of(target), entries, dtype, FILE_NAMINGS[naming], metadata)
    remove(earlier)
    return inspect(targets[0]), inspect(targets[1])


def _write(
    target: Path,
    entries: dict[str, Entry],
    dtype: torch.dtype | None,
    rename: Callable[[str], str],
    metadata: dict[str, str],
) -> None:
    specs = {name: TensorSpec(e.spec.shape, dtype or e.spec.dtype) for name, e in entries.items()}
    order = writing_order(specs)
    entries = {name: entries[name] for name in order}
    stream = unchanged(iterate_tensors(entries, dict.fromkeys(order, dtype), mapped=False), entries)
    renamed = ((rename(name), tensor) for name, tensor in stream)
    total = sum(spec.num_bytes for spec in order.values())
    order = {rename(name): spec for name, spec in order.items()}
    fill_safetensors(target, order, reported(renamed, total), metadata)


def _is_same(first: Path, second: Path) -> bool:
    """True for two names of one file, be it there or not."""
    if os.path.exists(first) and os.path.exists(second):
        return os.path.samefile(first, second)
    return os.path.realpath(first) == os.path.realpath(second)
