"""The newest checkpoint's averaged generator as one safetensors file, as VDOTLoadModel opens it."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from vdot_core.checkpoints.write import save_weights
from vdot_core.networks import WanVaceConfig

from .checkpoint import complete, read_progress, read_tensors
from .config import DistillConfig

logger = logging.getLogger("vdot")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def export(config: DistillConfig, path: str | Path) -> Path:
    """Write the averaged generator of a run's newest checkpoint; needs no GPU and no process group.

    Args:
        config: The run.
        path: The `.safetensors` file.

    Returns:
        The file's path.

    Raises:
        ValueError: there is no checkpoint, or a weight does not fit the dtype.
    """
    folder = Path(config.out_dir) / "checkpoints"
    found = complete(folder)
    if not found:
        raise ValueError(f"{folder} holds no complete checkpoint; train first, or give the run's out_dir")
    progress = read_progress(found[-1])
    sizes = WanVaceConfig.from_dict(progress["network"])
    dtype = DTYPES[config.export_dtype]
    weights = {}
    for name, tensor in read_tensors(found[-1], "average."):
        weights[name] = tensor.to(dtype)
        if not bool(torch.isfinite(weights[name]).all()):
            raise ValueError(
                f"{name} is not finite as {config.export_dtype}; set export_dtype to bf16 or fp32"
            )
    schedule = f"{config.rollout.steps} steps, shift {config.rollout.shift:g}, renoise"
    metadata = {
        "trained_by": "training/distill.py",
        "step": str(progress["step"]),
        "stage": str(config.stage),
        "recipe": config.recipe,
        "schedule": schedule,
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, sizes, weights, metadata=metadata)
    logger.info("wrote %s, from %s", path, found[-1].path)
    return Path(path)
