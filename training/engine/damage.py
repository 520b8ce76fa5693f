"""Distinguishes damaged checkpoints from those of other networks, before reading tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from vdot_core.files import read_file
from vdot_core.text import MAX_JSON_BYTES, parse_json, shown

from .metadata import METADATA, is_plain, part_ends, read_metadata

PROGRESS = "progress.json"
OPTIMIZER = "optimizer."  # beginning of the names of an optimizer's tensors
# Of the hashes of a checkpoint's files; those written before have none.
FILES = "files"
# What a run cannot be resumed without, and the types.
STATE = {
    "network": dict,
    "seed": int,
    "bad_steps": int,
    "average_updates": int,
    "optimizer_steps": dict,
    "data": dict,
}


def damage(folder: Path) -> str | None:
    """Compare a checkpoint's files with its metadata.

    Args:
        folder: The checkpoint.

    Returns:
        The damage, such as "__0_0.distcp has 10 bytes of 4096"; None if all files are complete.
    """
    try:
        progress = read_progress_file(folder)
    except ValueError as error:
        return f"{PROGRESS} cannot be read ({shown(error, 200)})"
    if progress["step"] != int(folder.name.rpartition("-")[2]):
        return f"{PROGRESS} is of step {progress['step']}"
    try:
        ends = part_ends(read_metadata(folder))
    except ValueError as error:
        return f"{METADATA} cannot be read ({shown(error, 200)})"
    for name, end in ends.items():
        file = folder / name
        size = file.stat().st_size if file.is_file() else None
        if size is None:
            return f"{shown(name)} is missing"
        if size < end:
            return f"{shown(name)} has {size} bytes of {end}"
        if name not in progress.get(FILES, ends):
            return f"{PROGRESS} has no hash of {shown(name)}"
    return None


def read_progress_file(folder: Path) -> dict[str, Any]:
    """The plain values of a checkpoint.

    Raises:
        ValueError: There are none, or without the number of steps done, or the hashes are none of files.
    """
    # A setting may be infinite, such as optim.clip.
    values = parse_json(read_file(folder / PROGRESS, MAX_JSON_BYTES), allow_nan=True)
    step = values.get("step") if isinstance(values, dict) else None
    if type(step) is not int or step < 0:
        raise ValueError(f"it has no step, but {shown(step, 20)}")
    files = values.get(FILES, {})
    if not isinstance(files, dict) or not all(is_plain(n) and isinstance(h, str) for n, h in files.items()):
        raise ValueError(f"its {FILES} are not names with hashes")
    return values


def state_damage(progress: Mapping[str, Any]) -> str | None:
    """The first value of a run that is missing in a checkpoint, or of a wrong type."""
    for key, kind in STATE.items():
        if type(progress.get(key)) is not kind:
            return f"{PROGRESS} has no {key}"
    if not all(type(steps) is int for steps in progress["optimizer_steps"].values()):
        return f"{PROGRESS} has optimizer_steps that are no numbers"
    if not isinstance(progress.get("settings", {}), dict):
        return f"{PROGRESS} has settings that are no table"
    return None


def misfit(folder: Path, tensors: Mapping[str, Tensor]) -> str | None:
    """Compare the names and shapes of an intact checkpoint with a run's tensors.

    An optimizer's state that the run has no use for, as of parameters that are now frozen, is no difference.

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
    extra = [name for name in entries if name not in tensors and not name.startswith(OPTIMIZER)]
    return f"it has trained weights that this run lacks, such as {shown(extra[0])}" if extra else None
