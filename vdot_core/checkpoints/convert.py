"""Converts any readable checkpoint to this project's format, tensor by tensor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ..networks import WanVaceConfig
from .read import inspect, iterate_tensors, loadable
from .streams import reported, unchanged
from .survey import CheckpointInfo
from .write import carried_header, checked_path, require_free, writing_order


def convert(
    source: str | Path,
    target: str | Path,
    *,
    vace: str | Path | None = None,
    config: WanVaceConfig | None = None,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> CheckpointInfo:
    """Rewrite a checkpoint as one safetensors file under Wan's names with its config in the header.

    Args:
        source: anything that `read_weights` reads.
        target: the `.safetensors` file to write; it appears only when complete.
        vace: the VACE module to join to a T2V network.
        config: sizes of a network whose file does not carry them.
        dtype: convert every parameter; None keeps each dtype.
        overwrite: replace an existing target.
    Returns:
        The `inspect` result of the new file.
    Raises:
        ValueError: the source cannot be read, or the target cannot be written or exists already.
    """
    from .safetensors_files import write_safetensors

    target = checked_path(target)
    require_free(target, overwrite)
    checkpoint = loadable(source, vace, config, dtype)
    specs = {name: entry.spec for name, entry in checkpoint.entries.items()}
    if dtype is not None:
        specs = {name: replace(spec, dtype=dtype) for name, spec in specs.items()}
    order = writing_order(specs)
    entries = {name: checkpoint.entries[name] for name in order}
    stream = unchanged(iterate_tensors(entries, dict.fromkeys(order, dtype), mapped=False), entries)
    total = sum(spec.num_bytes for spec in order.values())
    metadata = carried_header(checkpoint.info.config, checkpoint.info.metadata)
    write_safetensors(target, order, reported(stream, total), metadata, overwrite=overwrite)
    return inspect(target)
