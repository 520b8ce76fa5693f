"""Export of the newest checkpoint's averaged weights to one safetensors file, as VDOT Load Model opens it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch

from vdot_core.checkpoints.write import save_weights
from vdot_core.dtypes import DTYPES
from vdot_core.networks import WanVaceConfig
from vdot_core.signals.conventions import CONTROL_CONVENTIONS
from vdot_core.signals.conventions import KEY as CONVENTIONS_KEY

from .checkpoint import newest_complete, read_progress, read_tensors
from .config import RunConfig
from .damage import state_damage

logger = logging.getLogger("vdot")


def export(config: RunConfig, path: str | Path, metadata: Mapping[str, str]) -> Path:
    """Write the averaged weights of a run's newest checkpoint; needs no GPU and no process group.

    Args:
        config: The run.
        path: The `.safetensors` file.
        metadata: Of the method; the step and the version of control clips are added.

    Returns:
        The file's path.

    Raises:
        ValueError: There is no checkpoint, or a weight does not fit the dtype.
    """
    folder = Path(config.out_dir) / "checkpoints"
    newest = newest_complete(folder)
    if newest is None:
        raise ValueError(f"{folder} holds no complete checkpoint; train first, or give the run's out_dir")
    progress = read_progress(newest)
    if reason := state_damage(progress):
        raise ValueError(f"{newest.path} is damaged: {reason}; remove it to use the checkpoint before it")
    sizes = WanVaceConfig.from_dict(progress["network"])
    dtype = DTYPES[config.export_dtype]
    weights = {}
    for name, tensor in read_tensors(newest, "average."):
        weights[name] = tensor.to(dtype)
        if not bool(torch.isfinite(weights[name]).all()):
            raise ValueError(
                f"{name} is not finite as {config.export_dtype}; set export_dtype to bf16 or fp32"
            )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    versions = {"step": str(progress["step"]), CONVENTIONS_KEY: str(CONTROL_CONVENTIONS)}
    save_weights(path, sizes, weights, metadata={**metadata, **versions})
    logger.info("wrote %s, from %s", path, newest.path)
    return Path(path)
