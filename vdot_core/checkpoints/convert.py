"""Converts any readable checkpoint to this project's format, tensor by tensor."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from ..networks import WanVaceConfig
from ..text import shown
from .read import inspect, iterate_tensors, loadable
from .survey import CheckpointInfo
from .write import checked_path, header, writing_order

log = logging.getLogger("vdot")

_QUANTIZATION = "_quantization_metadata"  # ComfyUI's; no longer true once weights are converted


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
    if target.exists() and not overwrite:
        raise ValueError(f"{shown(target)} exists already; give another name, or --overwrite")
    checkpoint = loadable(source, vace, config, dtype)
    specs = {name: entry.spec for name, entry in checkpoint.entries.items()}
    if dtype is not None:
        specs = {name: replace(spec, dtype=dtype) for name, spec in specs.items()}
    order = writing_order(specs)
    entries = {name: checkpoint.entries[name] for name in order}
    stream = iterate_tensors(entries, dict.fromkeys(order, dtype))
    total = sum(spec.num_bytes for spec in order.values())
    new_metadata = header(checkpoint.info.config, None)
    metadata = {k: v for k, v in checkpoint.info.metadata.items() if k not in (*new_metadata, _QUANTIZATION)}
    write_safetensors(target, order, _reported(stream, total), {**new_metadata, **metadata})
    return inspect(target)


def _reported(stream: Iterator[tuple[str, torch.Tensor]], total: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Pass tensors through, and log every tenth of the bytes of a file that takes a while."""
    num_bytes, next_report = 0, total // 10
    for name, tensor in stream:
        num_bytes += tensor.numel() * tensor.element_size()
        yield name, tensor
        if num_bytes >= next_report and total > 2**30:
            log.info("written %.1f of %.1f GB", num_bytes / 1e9, total / 1e9)
            next_report += total // 10
