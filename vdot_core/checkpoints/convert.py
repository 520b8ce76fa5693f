"""Converts any readable checkpoint to this project's format, tensor by tensor."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from ..files import file_size
from ..networks import WanVaceConfig
from ..text import shown
from .read import inspect, iterate_tensors, loadable
from .survey import CheckpointInfo, Entry
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
    _require_free(target, overwrite)
    checkpoint = loadable(source, vace, config, dtype)
    specs = {name: entry.spec for name, entry in checkpoint.entries.items()}
    if dtype is not None:
        specs = {name: replace(spec, dtype=dtype) for name, spec in specs.items()}
    order = writing_order(specs)
    entries = {name: checkpoint.entries[name] for name in order}
    stream = _unchanged(iterate_tensors(entries, dict.fromkeys(order, dtype), mapped=False), entries)
    total = sum(spec.num_bytes for spec in order.values())
    new_metadata = header(checkpoint.info.config, None)
    metadata = {k: v for k, v in checkpoint.info.metadata.items() if k not in (*new_metadata, _QUANTIZATION)}
    stream = _reported(stream, total)
    write_safetensors(target, order, stream, {**new_metadata, **metadata}, overwrite=overwrite)
    return inspect(target)


def _require_free(target: Path, overwrite: bool) -> None:
    """Refuse to replace a link, a pipe or a device at all, and a file unless that is allowed."""
    if not os.path.lexists(target):
        return
    if target.is_symlink():
        raise ValueError(f"{shown(target)} is a link; give the name of a file, or remove the link")
    file_size(target)
    if not overwrite:
        raise ValueError(f"{shown(target)} exists already; give another name, or --overwrite")


def _unchanged(
    stream: Iterator[tuple[str, torch.Tensor]], entries: Mapping[str, Entry]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Pass tensors through, and refuse at the end if a source file was written to meanwhile."""
    yield from stream
    for file in {entry.file.path: entry.file for entry in entries.values()}.values():
        file.require_unchanged()


def _reported(stream: Iterator[tuple[str, torch.Tensor]], total: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Pass tensors through, and log every tenth of the bytes of a file that takes a while."""
    num_bytes, next_report = 0, total // 10
    for name, tensor in stream:
        num_bytes += tensor.numel() * tensor.element_size()
        yield name, tensor
        del tensor
        if num_bytes >= next_report and total > 2**30:
            log.info("written %.1f of %.1f GB", num_bytes / 1e9, total / 1e9)
            next_report += total // 10
