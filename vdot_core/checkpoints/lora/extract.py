"""Extracts a LoRA: the difference of two networks' weights as low-rank factors, layer by layer."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ...devices import check_device
from ...files import reason_of
from ...networks import WanVaceConfig
from ...text import described, shown
from ..diagnose import mismatch
from ..info import Entry, Survey
from ..read import iterate_tensors, loadable
from ..safetensors_files import write_safetensors
from ..streams import reported, unchanged
from ..targets import checked_path, earlier_forms, remove, require_apart, require_free
from .base import METADATA_KEY
from .low_rank import squared_norm, truncated_svd
from .names import LORA_NAMINGS, full_key, pair_keys
from .report import Change, LoraReport
from .spool import Spool

_LARGEST_RANK = 2**14


@dataclass(frozen=True)
class LoraOptions:
    """The form of a LoRA.

    Args:
        rank: of the factors, at most a layer's smaller side.
        energy: with it, each layer gets the smallest rank up to `rank` that keeps this part of its squared
            change, above 0, up to 1.
        dtype: of the LoRA's tensors.
        naming: 'comfyui' or 'diffusers'; see `names`.
        device: where the factors are computed.

    Raises:
        ValueError: a field is out of range; the message names it.
    """

    rank: int = 64
    energy: float | None = None
    dtype: torch.dtype = torch.bfloat16
    naming: str = "comfyui"
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if type(self.rank) is not int or not 1 <= self.rank <= _LARGEST_RANK:
            raise ValueError(f"rank is {described(self.rank, 40)}; give an integer from 1 to {_LARGEST_RANK}")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise ValueError(f"energy is {described(self.energy, 40)}; give a number above 0, up to 1")
        if self.naming not in LORA_NAMINGS:
            raise ValueError(f"naming is '{shown(self.naming, 40)}'; give {' or '.join(LORA_NAMINGS)}")
        if self.dtype not in (torch.bfloat16, torch.float16, torch.float32):
            raise ValueError(f"dtype is {self.dtype}; give bfloat16, float16 or float32")
        check_device(self.device)


def extract_lora(
    student: str | Path,
    base: str | Path,
    target: str | Path,
    options: LoraOptions | None = None,
    *,
    vace: str | Path | None = None,
    config: WanVaceConfig | None = None,
    overwrite: bool = False,
) -> LoraReport:
    """Write the LoRA that turns one network into another.

    One parameter's two tensors are in memory at a time. Factors are computed in float32; unchanged parameters
    are left out.

    Args:
        student: the network to reach; anything that `read_weights` reads, as is `base`.
        base: the network to start from, of the same sizes.
        target: the `.safetensors` file to write; it appears only when complete.
        options: the LoRA's form; rank 64 for ComfyUI by default.
        vace: the VACE module to join to `base`, if that is a T2V network.
        config: sizes of networks whose files do not carry them.
        overwrite: replace an existing target.
    Returns:
        The part of each parameter's change that the LoRA keeps, measured on the factors as written.
    Raises:
        ValueError: networks of different sizes, the same file twice, equal weights, or a target that cannot
            be written.
    """
    options, target = options or LoraOptions(), checked_path(target)
    require_free(target, overwrite)
    first = loadable(student, None, config, torch.float32)
    second = loadable(base, vace, config, torch.float32)
    _check_pair(first, second)
    sources = (*first.info.files, *second.info.files)
    require_apart([target], sources)
    earlier = earlier_forms(target, [target], overwrite=overwrite, sources=sources)
    changes, left_out = [], []
    try:
        with Spool(target.parent) as spool:
            for name, difference, weight in _differences(first, second):
                energy = squared_norm(difference)
                if not math.isfinite(energy):
                    raise ValueError(f"{shown(name)} holds NaN or infinity in one of the two networks")
                if energy == 0:
                    continue
                if options.naming != "comfyui" and _key(name, difference, options) is None:
                    left_out.append(name)
                    changes.append(Change(name, 0, energy, energy, weight))
                    continue
                rank, residual = _store(spool, name, difference, options)
                changes.append(Change(name, rank, energy, residual, weight))
                del difference
            _check_changes(changes, spool, first, second)
            report = LoraReport(target, 0, tuple(changes), tuple(left_out))
            metadata = _metadata(first, second, options, report)
            write_safetensors(target, spool.specs, spool.tensors(), metadata, overwrite=overwrite)
            remove(earlier)
    except OSError as error:
        raise ValueError(f"cannot write {shown(target)}: {reason_of(error)}") from error
    return replace(report, num_bytes=target.stat().st_size)


def _check_pair(student: Survey, base: Survey) -> None:
    """Refuse one file given twice, and networks whose parameters differ."""
    files = [{os.stat(file)[1:3] for file in checkpoint.info.files} for checkpoint in (student, base)]
    names = [shown(checkpoint.info.path, 100) for checkpoint in (student, base)]
    if files[0] == files[1]:
        raise ValueError(f"{names[0]} is given twice; give the student, then the base it was trained from")
    sizes = [_sizes(checkpoint.info.config) for checkpoint in (student, base)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"the student {names[0]} has {sizes[0]}, the base {names[1]} {sizes[1]}; give the base that the "
            "student was trained from, with --vace MODULE if it is a T2V network"
        )
    specs = {name: entry.spec for name, entry in student.entries.items()}
    fault = mismatch(specs, {name: entry.spec.shape for name, entry in base.entries.items()})
    if fault:
        raise ValueError(f"the student {names[0]} does not fit the base {names[1]}: {fault}")


def _sizes(config: WanVaceConfig) -> str:
    vace = f"{len(config.vace_layers)} VACE blocks" if config.vace_layers else "no VACE blocks"
    return f"width {config.dim}, {config.num_layers} blocks and {vace}"


def _differences(student: Survey, base: Survey) -> Iterator[tuple[str, torch.Tensor, float]]:
    """Each (name, student - base in float32, squared norm of the base), in the student's order."""
    others = {name: base.entries[name] for name in student.entries}
    values, weights = (_in_float32(entries) for entries in (student.entries, others))
    total = sum(entry.spec.num_elements * torch.float32.itemsize for entry in others.values())
    for name, value in reported(values, total, "compared"):
        weight = next(weights)[1]
        # In place where the tensor was read alone: others of an old file may share its memory.
        alone = student.entries[name].file.load is not None
        difference, size = value.sub_(weight) if alone else value - weight, squared_norm(weight)
        del value, weight
        yield name, difference, size
        del difference
    assert next(weights, None) is None  # and so the base's files are checked too


def _in_float32(entries: dict[str, Entry]) -> Iterator[tuple[str, torch.Tensor]]:
    targets = dict.fromkeys(entries, torch.float32)
    return unchanged(iterate_tensors(entries, targets, mapped=False), entries)


def _is_pair(name: str, change: torch.Tensor) -> bool:
    """True for weights of linear layers, which get factors; other changes are stored in full."""
    return change.ndim == 2 and name.endswith(".weight")


def _key(name: str, change: torch.Tensor, options: LoraOptions) -> str | None:
    if _is_pair(name, change):
        return pair_keys(name, options.naming)[0]
    return full_key(name, options.naming)


def _store(spool: Spool, name: str, change: torch.Tensor, options: LoraOptions) -> tuple[int, float]:
    """Store a change, which is overwritten; returns its rank and the squared norm of the remainder."""
    if not _is_pair(name, change):
        stored = change.to(options.dtype)
        spool.add(full_key(name, options.naming), stored)
        return 0, _finite(name, squared_norm(change.sub_(stored.float())), options)
    change = change.to(options.device)
    factors = truncated_svd(change, options.rank, energy=options.energy)
    up, down = (factor.to(options.dtype) for factor in factors)
    for key, factor in zip(pair_keys(name, options.naming), (up, down), strict=True):
        spool.add(key, factor)
    residual = squared_norm(change.addmm_(up.float(), down.float(), alpha=-1))
    return up.shape[1], _finite(name, residual, options)


def _finite(name: str, residual: float, options: LoraOptions) -> float:
    if not math.isfinite(residual):
        raise ValueError(f"the change of {shown(name)} exceeds {options.dtype}; use bfloat16 or float32")
    return residual


def _check_changes(changes: list[Change], spool: Spool, student: Survey, base: Survey) -> None:
    if not changes:
        raise ValueError(
            f"{shown(student.info.path, 100)} and {shown(base.info.path, 100)} hold the same weights, so "
            "there is no change to extract; give the student, then the base it was trained from"
        )
    if not spool.specs:
        raise ValueError(
            f"the networks differ in {len(changes)} tensors, such as {shown(changes[0].name)}, for which "
            "diffusers' naming has no place; use the naming comfyui"
        )


def _metadata(student: Survey, base: Survey, options: LoraOptions, report: LoraReport) -> dict[str, str]:
    about = {
        "student": student.info.path.name,
        "base": base.info.path.name,
        "rank": options.rank,
        "energy_kept": round(report.kept(), 6),
    }
    if options.energy is not None:
        about["energy"] = options.energy
    return {"format": "pt", METADATA_KEY: json.dumps(about)}
