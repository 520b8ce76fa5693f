"""`merge BASE PART .. OUT`: a base network with a VACE module, or LoRAs, or both, as one file."""

from __future__ import annotations

import argparse

from ..merge import merge
from .arguments import add_dtype, add_plain, add_source, dtype_of
from .summary import print_summary

HELP = "join a base with a VACE module, add LoRAs to it, or both"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_source(parser, "base", "BASE")
    parser.add_argument(
        "parts",
        metavar="PART",
        nargs="+",
        help="VACE module, or VACE network of which the VACE branch is taken (AccWanInit); LoRAs",
    )
    parser.add_argument("target", metavar="OUT", help="the .safetensors file to write")
    parser.add_argument(
        "--strength",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="S",
        help="of each LoRA, in order, or one for all (default: 1.0)",
    )
    add_dtype(parser)
    add_plain(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def run(options: argparse.Namespace) -> int:
    """Merge, and print the new file's summary; returns the exit code."""
    return print_summary(
        merge(
            options.base,
            options.parts,
            options.target,
            strengths=options.strength,
            dtype=dtype_of(options),
            plain=options.plain,
            overwrite=options.overwrite,
        )
    )
