"""Purpose of a MODEL's weights, read from the file that it was loaded from."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..vdot_core.checkpoints.info import CheckpointInfo
from ..vdot_core.checkpoints.purpose import UNDISTILLED, Purpose, purpose_of, purpose_of_metadata
from ..vdot_core.checkpoints.read import inspect
from ..vdot_core.files import version_of

LORA_PURPOSE = "vdot_lora_purpose"


def purpose_of_model(model: Any) -> Purpose | None:
    """Preset and numbers to sample a ModelPatcher with; None where nothing is known of its file.

    Every loader leaves the file in `cached_patcher_init`, with which ComfyUI makes the model again. A LoRA
    that VDOT Load Model put on it, and that says that it distills, comes first.
    """
    lora = model.attachments.get(LORA_PURPOSE)
    if lora is not None:
        return lora
    loader = getattr(model, "cached_patcher_init", None)
    # Of a model in two files, the second argument is the VACE module.
    paths = [path for path in (loader[1][:2] if loader else ()) if isinstance(path, (str, os.PathLike))]
    purposes = [purpose for path in paths if (purpose := _purpose_of_file(Path(path))) is not None]
    distilled = (purpose for purpose in purposes if purpose.preset != UNDISTILLED.preset)
    return next(distilled, purposes[0] if purposes else None)


def note_lora(model: Any, path: Path) -> None:
    """Remember of a LoRA that was put on a model whether it makes the model a few-step one."""
    from ..vdot_core.checkpoints.open_tensors import open_tensor_file

    purpose = purpose_of_metadata(open_tensor_file(path).metadata)
    if purpose is None:
        purpose = purpose_of(CheckpointInfo(path, "lora", None, {}, 0, (path,)))
    if purpose.preset != UNDISTILLED.preset:
        model.set_attachments(LORA_PURPOSE, purpose)


def _purpose_of_file(path: Path) -> Purpose | None:
    try:
        return purpose_of(_described(path, version_of(path)))
    except (OSError, ValueError):  # removed since, or not a file of weights
        return None


@lru_cache(maxsize=32)
def _described(path: Path, version: tuple[int, ...]) -> CheckpointInfo:
    return inspect(path)
