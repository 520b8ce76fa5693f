"""Mistakes in a distillation's settings, found before any weight is read or data encoded.

A run, its rehearsal (`--dry_run`) and its plan (`--plan`) refuse the same settings, by these functions; the
last two pass over files that are not there.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from pathlib import Path

import torch

from vdot_core.checkpoints import inspect
from vdot_core.checkpoints.lora import load_factors
from vdot_core.checkpoints.lora.base import note_of_another_base
from vdot_core.networks import WanVace, WanVaceConfig, default_taps, expected_shapes
from vdot_core.networks.adapters import target_layers
from vdot_core.text import shown

from ..engine.adapters import AdapterConfig, is_lora, parameter_names
from ..engine.export import BASE_CONTENT
from ..engine.method import trained_names
from ..engine.networks import check_transformer, network_sizes
from ..engine.record import content
from ..engine.weight_only import check_form, check_unsharded
from .vdot_config import DistillConfig, ModelConfig


def check_networks(config: DistillConfig, processes: int = 1) -> list[str]:
    """Find mistakes in a run's networks; as `check_settings`, and all files and torchao must be there."""
    check_form(config.model.adapters.base)
    return check_settings(config, processes, need_files=True)


def check_settings(config: DistillConfig, processes: int = 1, *, need_files: bool = False) -> list[str]:
    """Refuse settings that fit neither each other, nor the networks' files, nor the number of processes.

    Args:
        config: The run.
        processes: Number of them.
        need_files: Refuse files that are missing; False passes over them.

    Returns:
        What the run does with its settings that its user may not expect, a sentence each.

    Raises:
        ValueError: A file is missing or does not fit, a tap is no block, a target no module, model.frozen
            fits no parameter, or networks are sharded that cannot be.
    """
    model = config.model
    config.parallel.check(processes)
    if model.real_score is None:
        raise ValueError("model.real_score is null; give the teacher's file")
    check_unsharded(model.adapters.base, config.parallel.shards(processes))
    sizes = network_sizes(model.preset, model.real_score, text_only=model.text_only)
    for key in ("real_score", "generator", "fake_score"):
        path = getattr(model, key)
        if path and (need_files or Path(path).exists()):
            check_transformer(path, sizes, f"model.{key}")
    if model.acc_wan_init and not sizes.vace_layers:
        raise ValueError("model.acc_wan_init goes with a VACE branch; unset it, or set model.text_only false")
    notes = _notes_of_stage(config)
    if model.acc_wan_init and (need_files or Path(model.acc_wan_init).exists()):
        notes += check_stage_one(model, sizes)
    notes += _check_targets(sizes, model.adapters)
    trained_names(parameter_names(sizes, model.adapters), model.frozen)
    _check_taps(model, sizes)
    return notes


def _check_targets(sizes: WanVaceConfig, adapters: AdapterConfig) -> list[str]:
    """Refuse modules that no layer is named after; note a rank that is more than a layer can have."""
    if not adapters.rank:
        return []
    try:
        widths = _widths(sizes, tuple(adapters.targets))
    except ValueError as error:
        raise ValueError(f"model.adapters.targets: {error}") from error
    if adapters.rank <= min(widths):
        return []
    return [
        f"model.adapters.rank is {adapters.rank}, and some layers that it adapts are {min(widths)} wide: "
        f"these get rank {min(widths)}"
    ]


@lru_cache(maxsize=8)
def _widths(sizes: WanVaceConfig, targets: tuple[str, ...]) -> tuple[int, ...]:
    """The smaller side of each layer that an adapter changes."""
    layers = target_layers(WanVace(sizes, device="meta"), targets).values()
    return tuple(min(layer.in_features, layer.out_features) for layer in layers)


def _check_taps(model: ModelConfig, sizes: WanVaceConfig) -> None:
    taps = model.taps or []
    if len({*taps}) < len(taps) or not all(0 <= tap < sizes.num_layers for tap in taps):
        raise ValueError(
            f"model.taps is {shown(taps)}; expected different blocks from 0 to {sizes.num_layers - 1}"
        )
    if not taps:
        try:
            default_taps(sizes.num_layers)
        except ValueError as error:
            raise ValueError(f"model.taps is null: {error}") from error


def _notes_of_stage(config: DistillConfig) -> list[str]:
    """Where `stage`, which goes to the export's metadata alone, is not what the other settings train."""
    model, losses = config.model, config.losses
    if config.stage == 2 and model.text_only:
        return [
            "stage is 2 and model.text_only true, which is stage 1's: the export's metadata will say stage "
            "2; set stage 1"
        ]
    frozen_branch = any("vace_blocks.".startswith(prefix) for prefix in model.frozen)
    missing = {
        "model.text_only true": not model.text_only and not frozen_branch,
        "losses.otd false": losses.otd,
        "losses.gan false": losses.gan,
    }
    if config.stage == 1 and any(missing.values()):
        settings = ", ".join(setting for setting, lacking in missing.items() if lacking)
        return [
            "stage is 1, which alone changes nothing but the export's metadata; to train from captions by "
            f"DMD set {settings} too, or set stage 2"
        ]
    return []


def check_stage_one(model: ModelConfig, sizes: WanVaceConfig) -> list[str]:
    """Refuse, by ValueError, a stage 1 that does not fit the network or the adapters; note another base."""
    path = model.acc_wan_init
    adapted = model.adapters.adapts("generator")
    notes = _check_origin(model)
    if not is_lora(path):
        check_transformer(path, dataclasses.replace(sizes, vace_layers=()), "model.acc_wan_init")
        if adapted and model.adapters.export == "lora":
            raise ValueError(
                "model.acc_wan_init has full weights, and a LoRA on them fits no published network; set "
                "model.adapters.export merged, or make stage 1 a LoRA (python -m vdot_core.checkpoints lora)"
            )
    elif not adapted:
        raise ValueError(
            "model.acc_wan_init is a LoRA, and the generator has full weights; merge it into the base first "
            "(python -m vdot_core.checkpoints merge), or set model.adapters.rank"
        )
    else:
        _check_factors(path, sizes)
    return notes


def _check_origin(model: ModelConfig) -> list[str]:
    """Refuse a stage 2 as stage 1; note a LoRA that was made for another base."""
    path, metadata = model.acc_wan_init, inspect(model.acc_wan_init).metadata
    if metadata.get("stage") == "2":
        raise ValueError(
            f"model.acc_wan_init is {shown(path)}, which says that it is of stage 2; give stage 1's export "
            "(the file of a run with stage 1), or null"
        )
    base, own = Path(model.real_score), metadata.get(BASE_CONTENT)
    if not is_lora(path) or (own and own == content(base)):
        return []
    note = note_of_another_base(metadata, base.name)
    if own and base.exists() and not note:
        note = f"made from a file of this name, {shown(base.name, 50)}, with other content"
    return [f"model.acc_wan_init: {shown(path)} was {note}"] if note else []


def _check_factors(path: str, sizes: WanVaceConfig) -> None:
    """Refuse a LoRA of convolutions, which no adapter stacks on, or with values that are not finite."""
    shapes = expected_shapes(sizes)
    for name, (up, down) in load_factors(path, sizes).items():
        if len(shapes[name]) != 2:
            raise ValueError(
                f"model.acc_wan_init: {shown(path)} changes {name}, which is no linear layer; merge it into "
                "the base first (python -m vdot_core.checkpoints merge)"
            )
        if not (torch.isfinite(up).all() and torch.isfinite(down).all()):
            raise ValueError(
                f"model.acc_wan_init: {shown(path)} holds NaN or infinity in {name}; give an intact file"
            )
