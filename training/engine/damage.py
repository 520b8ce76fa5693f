"""Distinguishes damaged checkpoints from those of other networks, before reading tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

PROGRESS = "progress.json"


def damage(folder: Path) -> str | None:
    """Compare a checkpoint's files with its metadata.

    Args:
        folder: The checkpoint.

    Returns:
        The damage, such as "__0_0.distcp has 10 bytes of 4096"; None if all files are complete.
    """
    try:
        progress = json.loads((folder / PROGRESS).read_text())
        if not isinstance(progress, dict) or "step" not in progress:
            return f"{PROGRESS} has no step"
    except (OSError, ValueError) as error:
        return f"{PROGRESS} cannot be read ({error})"
    try:
        metadata = read_metadata(folder)
        parts = [(part.relative_path, part.offset + part.length) for part in metadata.storage_data.values()]
    except Exception as error:
        # A truncated pickle can raise any error.
        return f".metadata cannot be read ({type(error).__name__}: {error})"
    ends: dict[str, int] = {}
    for name, end in parts:
        ends[name] = max(end, ends.get(name, 0))
    for name, end in ends.items():
        file = folder / name
        size = file.stat().st_size if file.is_file() else None
        if size is None:
            return f"{name} is missing"
        if size < end:
            return f"{name} has {size} bytes of {end}"
    return None


def misfit(folder: Path, tensors: Mapping[str, Tensor]) -> str | None:
    """Compare the names and shapes of an intact checkpoint with a run's tensors.

    Returns:
        The difference, such as "generator.head.weight is [64, 16] there and [64, 12] here"; None if it fits.
    """
    entries = {
        name: list(entry.size)
        for name, entry in read_metadata(folder).state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    for name, tensor in tensors.items():
        if name not in entries:
            return f"it has no {name}"
        if entries[name] != list(tensor.shape):
            return f"{name} is {entries[name]} there and {list(tensor.shape)} here"
    return None


def read_metadata(folder: Path) -> Metadata:
    """Names, shapes and files of a checkpoint's tensors."""
    return dcp.FileSystemReader(folder).read_metadata()
