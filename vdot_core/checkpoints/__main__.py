"""Command line: `python -m vdot_core.checkpoints inspect IN`, `... convert IN OUT [--dtype bf16]`."""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Sequence

from ..dtypes import DTYPES
from ..text import shown
from .convert import convert
from .read import inspect
from .survey import CheckpointInfo

_MAX_METADATA = 20  # lines


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
        f"  layout      {info.layout}{' (scaled fp8)' if info.scaled else ''}",
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
    lines.append(f"  cannot be loaded: {info.problem}" if info.problem else "  can be loaded")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: command line without the program's name; None takes the process's own.
    Returns:
        Exit code: 0 done, 1 the checkpoint is refused or a file cannot be written; wrong usage exits with 2.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names have letters that a terminal may lack
    try:
        if options.command == "inspect":
            info = inspect(options.source, vace=options.vace)
        else:
            dtype = DTYPES[options.dtype] if options.dtype else None
            info = convert(
                options.source, options.target, vace=options.vace, dtype=dtype, overwrite=options.overwrite
            )
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(describe(info) + "\n")
    return 1 if info.problem else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m vdot_core.checkpoints", description="Inspect and convert checkpoints."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    look = commands.add_parser("inspect", help="describe a checkpoint without reading its weights")
    rewrite = commands.add_parser(
        "convert", help="write a checkpoint as one safetensors file with its config"
    )
    for command in (look, rewrite):
        command.add_argument(
            "source", metavar="IN", help="weight file, folder of shards, index, or one shard"
        )
    rewrite.add_argument("target", metavar="OUT", help="the .safetensors file to write")
    for command in (look, rewrite):
        command.add_argument("--vace", metavar="FILE", help="VACE module, if IN is a T2V network")
    rewrite.add_argument(
        "--dtype",
        choices=("bf16", "fp16", "fp32"),
        help="convert every parameter; by default dtypes are kept",
    )
    rewrite.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    return parser


if __name__ == "__main__":
    sys.exit(main())
