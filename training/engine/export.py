"""Export of the newest checkpoint's averaged weights to one safetensors file, as VDOT Load Model opens it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from vdot_core.checkpoints.lora import Factors, load_factors, save_factors
from vdot_core.checkpoints.merge import merge
from vdot_core.checkpoints.write import save_weights
from vdot_core.dtypes import DTYPES
from vdot_core.networks import WanVaceConfig
from vdot_core.networks.adapters import adapter_scale
from vdot_core.signals.conventions import CONTROL_CONVENTIONS
from vdot_core.signals.conventions import KEY as CONVENTIONS_KEY
from vdot_core.text import listed, shown

from .adapters import AdaptedFrom, is_lora
from .checkpoint import SavedStep, newest_complete, numbered, read_progress, read_tensors
from .config import RunConfig
from .damage import state_damage
from .record import FILE as RECORD
from .record import changes, content, require_output, settings

logger = logging.getLogger("vdot")
BASE_CONTENT = "base_content"  # in the header of an adapter's export: `record.content` of its base
# Settings, or beginnings of their keys, that decide an export next to the checkpoint's weights.
METADATA_KEYS = ("stage", "recipe", "rollout.", "model.adapters.base")
# Those that the checkpoint's weights were made with: with no other value are they the generator's.
FIXED_KEYS = tuple(f"model.adapters.{name}" for name in ("rank", "alpha", "targets", "roles"))
ADAPTED_KEYS = ("model.real_score", "model.acc_wan_init")


def export(
    config: RunConfig,
    path: str | Path,
    metadata: Mapping[str, str],
    adapted: AdaptedFrom | None = None,
) -> Path:
    """Write the averaged weights of a run's newest checkpoint; needs no GPU and no process group.

    Args:
        config: The run.
        path: The `.safetensors` file.
        metadata: Of the method; the step and the version of control clips are added.
        adapted: What the weights change, if they are an adapter's.

    Returns:
        The file's path.

    Raises:
        ValueError: There is no checkpoint, it is of another model, the file is one that the run reads, or a
            weight does not fit the dtype.
    """
    folder = Path(config.out_dir) / "checkpoints"
    path = Path(path)
    require_output(path, settings(config))
    newest, progress, tensors = _read_newest(folder, config, adapted)
    sizes = WanVaceConfig.from_dict(progress["network"])
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {
        **metadata,
        "step": str(progress["step"]),
        CONVENTIONS_KEY: str(CONTROL_CONVENTIONS),
    }
    if adapted is None:
        weights = {name: _rounded(name, tensor, config) for name, tensor in tensors.items()}
        save_weights(path, sizes, weights, metadata=metadata)
    else:
        factors = exported_factors(tensors, adapted, sizes)
        metadata["base"] = Path(adapted.real_score).name
        base = progress.get("settings", {}).get("model.real_score") or {}
        metadata[BASE_CONTENT] = base.get("content") or content(Path(adapted.real_score)) or ""
        if adapted.adapters.export == "lora":
            rounded = {
                name: tuple(_rounded(name, part, config) for part in factors[name]) for name in factors
            }
            save_factors(path, rounded, metadata)
        else:
            _save_merged(adapted, config, path, factors, metadata)
    logger.info("wrote %s, from %s", path, newest.path)
    return path


def _read_newest(
    folder: Path, config: RunConfig, adapted: AdaptedFrom | None
) -> tuple[SavedStep, dict[str, Any], dict[str, Tensor]]:
    """The newest checkpoint, its progress and averaged weights; not of one that is removed meanwhile.

    Raises:
        ValueError: As `export`.
    """
    while True:
        newest = newest_complete(folder)
        if newest is None:
            raise ValueError(f"{folder} holds no complete checkpoint; train first, or give the run's out_dir")
        try:
            progress = read_progress(newest)
            if reason := state_damage(progress):
                raise ValueError(
                    f"{newest.path} is damaged: {reason}; remove it to use the checkpoint before it"
                )
            _check_settings(config, newest, progress, adapted)
            return newest, progress, dict(read_tensors(newest, "average."))
        except ValueError:
            if numbered(folder)[-1:] == [newest]:
                raise
            logger.info("%s was replaced while it was read; taking the next", newest.path)


def _check_settings(
    config: RunConfig, newest: SavedStep, progress: Mapping[str, Any], adapted: AdaptedFrom | None
) -> None:
    """Refuse, by ValueError, settings that an export depends on and that are not the checkpoint's."""
    keys = (*METADATA_KEYS, *(ADAPTED_KEYS if adapted else ()))
    different = [c for c in changes(progress.get("settings", {}), settings(config)) if not c.free]
    fixed = [change for change in different if change.key.startswith(FIXED_KEYS)]
    if refused := fixed + [c for c in different if c.key.startswith(keys) and not config.allow_changes]:
        otherwise = "" if fixed else ", or set allow_changes true"
        raise ValueError(
            f"{newest.path} was trained with other settings: {listed(map(str, refused), 2)} (the "
            "checkpoint's -> these); give the run's own "
            f"(--config {shown(Path(config.out_dir) / RECORD, 120)}){otherwise}"
        )


def _rounded(name: str, tensor: Tensor, config: RunConfig) -> Tensor:
    """A weight in the dtype of the export, or ValueError."""
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} is not finite: the run diverged; train again with lower learning rates")
    result = tensor.to(DTYPES[config.export_dtype])
    if not bool(torch.isfinite(result).all()):
        raise ValueError(f"{name} is not finite as {config.export_dtype}; set export_dtype to bf16 or fp32")
    return result


def exported_factors(tensors: Mapping[str, Tensor], adapted: AdaptedFrom, sizes: WanVaceConfig) -> Factors:
    """Join an adapter with stage 1's, if that is a LoRA, to one change.

    Args:
        tensors: `<layer>.A`, `<layer>.B` -> tensor.
        adapted: What it changes.
        sizes: The network's.

    Returns:
        The factors, with every scale multiplied in.
    """
    first = adapted.stage_one
    factors = load_factors(first, sizes) if first and is_lora(first) else {}
    for layer in (name.removesuffix(".A") for name in tensors if name.endswith(".A")):
        down = tensors[f"{layer}.A"]
        up = tensors[f"{layer}.B"] * adapter_scale(adapted.adapters.alpha, len(down))
        name = f"{layer}.weight"
        if name in factors:
            up, down = torch.cat([factors[name][0], up], 1), torch.cat([factors[name][1], down])
        factors[name] = (up, down)
    return factors


def _save_merged(
    adapted: AdaptedFrom, config: RunConfig, path: Path, factors: Factors, metadata: Mapping[str, str]
) -> None:
    """Write the base's weights with an adapter's change added in float32, tensor by tensor."""
    first = adapted.stage_one
    base, parts = adapted.real_score, []
    if first and not is_lora(first):
        base, parts = first, [adapted.real_score]
    with TemporaryDirectory(dir=path.parent) as folder:
        lora = Path(folder) / "adapter.safetensors"
        save_factors(lora, factors)
        dtype = DTYPES[config.export_dtype]
        merge(base, [*parts, lora], path, dtype=dtype, overwrite=True, metadata=metadata)
