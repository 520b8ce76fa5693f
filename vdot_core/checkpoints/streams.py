"""Streams of (name, tensor) between reading and writing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import torch

from .survey import Entry

log = logging.getLogger("vdot")


def unchanged(
    stream: Iterator[tuple[str, torch.Tensor]], entries: Mapping[str, Entry]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Pass tensors through, and refuse at the end if a source file was written to meanwhile."""
    yield from stream
    for file in {entry.file.path: entry.file for entry in entries.values()}.values():
        file.require_unchanged()


def reported(
    stream: Iterator[tuple[str, torch.Tensor]], total: int, verb: str = "written"
) -> Iterator[tuple[str, torch.Tensor]]:
    """Pass tensors through, and log every tenth of the bytes of a file that takes a while."""
    num_bytes, next_report = 0, total // 10
    for name, tensor in stream:
        num_bytes += tensor.numel() * tensor.element_size()
        yield name, tensor
        del tensor
        if num_bytes >= next_report and total > 2**30:
            log.info("%s %.1f of %.1f GB", verb, num_bytes / 1e9, total / 1e9)
            next_report += total // 10
