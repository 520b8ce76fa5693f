"""The text that a command prints about a checkpoint."""

from __future__ import annotations

import sys

from ...text import shown
from ..info import CheckpointInfo

_MAX_METADATA = 20  # lines


def print_summary(info: CheckpointInfo) -> int:
    """Print a checkpoint's summary.

    Returns:
        Exit code: 0 it can be loaded or used with a network, 1 it cannot.
    """
    sys.stdout.write(describe(info) + "\n")
    return 1 if info.problem and not info.usage else 0


def describe(info: CheckpointInfo) -> str:
    """A short text summary: layout, sizes, and whether the checkpoint can be loaded."""
    files = (
        f"{len(info.files)} files, the first {shown(info.files[0].name)}"
        if len(info.files) > 1
        else shown(info.files[0].name)
    )
    dtypes = ", ".join(f"{name} {count:,}" for name, count in sorted(info.dtypes.items())) or "none"
    lines = [
        shown(info.path),
        f"  layout      {info.layout}{f' ({info.encoded_as})' if info.encoded_as else ''}",
        f"  files       {files}",
        f"  parameters  {info.num_parameters:,}",
        f"  dtypes      {dtypes}",
    ]
    if info.config is not None:
        lines += [f"  {key:<11} {value}" for key, value in info.config.to_dict().items()]
    metadata = [(key, value) for key, value in info.metadata.items() if key != "config"]
    lines += [
        f"  metadata    {shown(key, 80)} = {shown(value, 80)}" for key, value in metadata[:_MAX_METADATA]
    ]
    if len(metadata) > _MAX_METADATA:
        lines.append(f"  metadata    and {len(metadata) - _MAX_METADATA} more")
    lines.append(f"  {_verdict(info)}")
    return "\n".join(lines)


def _verdict(info: CheckpointInfo) -> str:
    if info.usage:
        return info.usage
    if info.problem:
        return f"cannot be loaded: {info.problem}"
    if info.formats:
        names = ", ".join(info.formats)
        return f"can be loaded by VDOT Load Model alone: {names} is for ComfyUI's layers"
    return "can be loaded"
