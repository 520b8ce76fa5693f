"""`split IN --base OUT1 --module OUT2`: a VACE network's T2V part and its VACE branch as two files."""

from __future__ import annotations

import argparse
import sys

from ...text import shown
from ..split import FILE_NAMINGS, split
from .arguments import add_dtype, add_source, dtype_of

HELP = "split a VACE network into a T2V base and a VACE module"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_source(parser)
    parser.add_argument("--base", metavar="OUT1", required=True, help="file to write the T2V part to")
    parser.add_argument("--module", metavar="OUT2", required=True, help="file to write the VACE branch to")
    parser.add_argument(
        "--naming",
        choices=tuple(FILE_NAMINGS),
        default="wan",
        help="names of the keys: Wan's, as in Kijai's modules and ComfyUI's files; ComfyUI's with "
        "model.diffusion_model. before them; diffusers' (default: wan)",
    )
    add_dtype(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


def run(options: argparse.Namespace) -> int:
    """Split, and print one line for each file; returns the exit code."""
    parts = split(
        options.source,
        options.base,
        options.module,
        dtype=dtype_of(options),
        naming=options.naming,
        overwrite=options.overwrite,
    )
    for kind, info in zip(("T2V base", "VACE module"), parts, strict=True):
        num_bytes = info.path.stat().st_size
        text = f"{shown(info.path)}: {kind}, {info.num_parameters:,} parameters, {num_bytes / 1e9:.2f} GB"
        sys.stdout.write(text + "\n")
    return 0
