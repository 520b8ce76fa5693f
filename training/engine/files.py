"""Writing files whole or not at all, so that a killed run never leaves half of one."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdot_core.torch_files import load_torch_file


def save_safetensors(tensors: dict[str, Tensor], path: str | Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file beside its place, then move it there.

    Args:
        tensors: Name -> tensor.
        path: Destination.
        metadata: Strings for the header; "format": "pt" is added.
    """
    from safetensors.torch import save_file

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two processes may write one shard of a cache at once; each needs a file of its own to move.
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    ready = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    save_file(ready, str(partial), metadata={"format": "pt", **metadata})
    # safetensors makes files that only their owner reads.
    os.chmod(partial, 0o644)
    os.replace(partial, path)


def save_checkpoint(state: dict[str, Any], path: str | Path) -> None:
    """`torch.save` beside the destination, then move it there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of ours; nothing but tensors and plain values is unpickled."""
    return load_torch_file(path)
