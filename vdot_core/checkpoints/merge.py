"""Joins a base network, a VACE module and LoRAs to one network file, tensor by tensor."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..dtypes import FP8_DTYPES
from ..networks import WanVaceConfig
from ..text import counted, described, listed, shown
from .diagnose import VACE_MODULE
from .info import CheckpointInfo, Entry, Survey
from .lora import Lora, read_lora
from .lora.base import note_of_another_base
from .read import inspect, iterate_tensors, loadable
from .safetensors_files import write_safetensors
from .streams import reported, unchanged
from .survey import survey
from .targets import checked_path, earlier_forms, remove, require_apart, require_free
from .tensor_files import all_finite
from .write import carried_header, plain_header, writing_order

log = logging.getLogger("vdot")

METADATA_KEY = "vdot_merged"


def merge(
    base: str | Path,
    parts: Sequence[str | Path],
    target: str | Path,
    *,
    strengths: Sequence[float] = (1.0,),
    config: WanVaceConfig | None = None,
    dtype: torch.dtype | None = None,
    plain: bool = False,
    overwrite: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> CheckpointInfo:
    """Write a base network joined with a VACE module, with LoRAs added, as one file in this project's format.

    Sums are computed in float32 and rounded once. A complete VACE network in place of a module gives its VACE
    branch alone: that is VDOT's AccWanInit, with the few-step T2V network as the base.

    Args:
        base: anything that `read_weights` reads.
        parts: at most one VACE module or VACE network, and any number of LoRAs, told apart by their keys.
        target: the `.safetensors` file to write; it appears only when complete.
        strengths: one for each LoRA, in order, or one for all.
        config: sizes of a network whose file does not carry them.
        dtype: convert every parameter; None keeps each dtype.
        plain: as for `convert`.
        overwrite: replace an existing target.
        metadata: further strings for the header, in place of the base's of the same names.
    Returns:
        The `inspect` result of the new file.
    Raises:
        ValueError: a part is neither of these or does not fit, a strength is missing or not finite, or the
            target cannot be written or exists already.
    """
    target = checked_path(target)
    require_free(target, overwrite)
    modules, loras = _sorted(parts)
    require_apart([target], (*modules, *loras))
    strengths = _checked(strengths, len(loras))
    checkpoint = _joined(base, modules, config, dtype)
    module_files = [file for module in modules for file in survey(module).info.files]
    base_files = [file for file in checkpoint.info.files if file not in module_files]
    require_apart([target], module_files + (base_files if len(base_files) > 1 else []))
    earlier = earlier_forms(target, [target], overwrite=overwrite, sources=(*checkpoint.info.files, *loras))
    specs = {name: entry.spec for name, entry in checkpoint.entries.items()}
    added = [(read_lora(path, specs), strength) for path, strength in zip(loras, strengths, strict=True)]
    _check_factors(added)
    for lora, strength in added:
        _report(lora, strength, len(specs), checkpoint.info.path.name)
    dtypes = {name: dtype or spec.dtype for name, spec in specs.items()}
    _check_dtypes(added, dtypes)
    stored = {name: replace(spec, dtype=dtypes[name], ggml_type="") for name, spec in specs.items()}
    order = writing_order(stored)
    entries = {name: checkpoint.entries[name] for name in order}
    stream = reported(_summed(entries, dtypes, added), sum(spec.num_bytes for spec in order.values()))
    carried = {**checkpoint.info.metadata, **(metadata or {})}
    header = carried_header(checkpoint.info.config, carried)
    if plain:
        header = plain_header(checkpoint.info.config, specs, carried)
    if added:
        header[METADATA_KEY] = json.dumps(
            [{"lora": lora.path.name, "strength": strength} for lora, strength in added]
        )
    write_safetensors(target, order, stream, header, overwrite=overwrite)
    remove(earlier)
    return inspect(target)


def _sorted(parts: Sequence[str | Path]) -> tuple[list[Path], list[Path]]:
    """(modules, LoRAs), told apart by their keys; a network with a VACE branch counts as a module."""
    modules, loras = [], []
    for part in map(Path, parts):
        info = survey(part).info
        if info.layout == "lora":
            loras.append(part)
        elif info.layout == VACE_MODULE.layout or (info.config is not None and info.config.vace_layers):
            modules.append(part)
        else:
            reason = info.problem or f"{shown(part)} is a T2V network"
            raise ValueError(f"{reason}. Expected as a part: a VACE module, a VACE network or a LoRA")
    if len(modules) > 1:
        raise ValueError(f"{listed(modules)} are {len(modules)} VACE modules; give one")
    if not parts:
        raise ValueError("nothing to merge; give a VACE module or LoRAs")
    return modules, loras


def _checked(strengths: Sequence[float], num_loras: int) -> list[float]:
    strengths = list(strengths)
    if not all(math.isfinite(strength) for strength in strengths):
        raise ValueError(f"strengths are {described(strengths)}; give finite numbers")
    if num_loras and len(strengths) == 1:
        strengths *= num_loras
    if num_loras and len(strengths) != num_loras:
        raise ValueError(
            f"{len(strengths)} strengths for {counted(num_loras, 'LoRA')}; give one for each, in order, or "
            "one for all"
        )
    return strengths if num_loras else []


def _joined(
    base: str | Path, modules: Sequence[Path], config: WanVaceConfig | None, dtype: torch.dtype | None
) -> Survey:
    if not modules:
        return loadable(base, None, config, dtype)
    if survey(modules[0]).info.layout != VACE_MODULE.layout:
        log.info("%s is a complete network: its VACE branch alone is taken", shown(modules[0]))
    return loadable(base, modules[0], config, dtype, branch_of_vace=True)


def _report(lora: Lora, strength: float, num_parameters: int, base: str) -> None:
    log.info(
        "%s at %g: changes %d of %d tensors", shown(lora.path), strength, len(lora.updates), num_parameters
    )
    if note := note_of_another_base(lora.metadata, base):
        log.warning("%s: %s", shown(lora.path), note)
    if lora.unknown:
        log.warning(
            "%d of its keys belong to no layer of the network: %s", len(lora.unknown), listed(lora.unknown)
        )


def _check_factors(added: Sequence[tuple[Lora, float]]) -> None:
    """Refuse factors beyond float32, in which sums are computed."""
    for lora, strength in added:
        largest = max((abs(strength * update.scale) for update in lora.updates.values()), default=0.0)
        if largest > torch.finfo(torch.float32).max:
            raise ValueError(
                f"{shown(lora.path)} would be added {largest:.2g} times (strength {strength:g} times its own "
                "scale); give a lower strength"
            )


def _check_dtypes(added: Sequence[tuple[Lora, float]], dtypes: Mapping[str, torch.dtype]) -> None:
    """Refuse sums that would be rounded to fp8 without a scale."""
    for lora, _ in added:
        coarse = [name for name in lora.updates if dtypes[name] in FP8_DTYPES]
        if coarse:
            raise ValueError(
                f"{shown(lora.path)} changes {len(coarse)} tensors that the base holds in fp8, such as "
                f"{coarse[0]}: fp8 rounds most of it away; give --dtype bf16, then quantize the result"
            )


def _summed(
    entries: Mapping[str, Entry], dtypes: Mapping[str, torch.dtype], added: Sequence[tuple[Lora, float]]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Each (name, base + sum of strength * change, in its dtype), rounded once."""
    updated = {name for lora, strength in added if strength for name in lora.updates}
    targets = {name: torch.float32 if name in updated else dtypes[name] for name in entries}
    for name, tensor in unchanged(iterate_tensors(entries, targets, mapped=False), entries):
        if name in updated:
            tensor = tensor.clone(memory_format=torch.contiguous_format)
            for lora, strength in added:
                if name in lora.updates:
                    lora.updates[name].add_to(tensor, strength)
            tensor = _rounded(name, tensor, dtypes[name])
        yield name, tensor
        del tensor


def _rounded(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    rounded = tensor.to(dtype)
    if not all_finite(rounded):
        raise ValueError(
            f"{shown(name)} with the LoRAs holds NaN, or values outside {dtype}'s range; use bfloat16, a "
            "lower strength, or an undamaged LoRA"
        )
    return rounded
