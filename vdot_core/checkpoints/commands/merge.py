"""`merge BASE PART .. OUT`: a base network with a VACE module, or LoRAs, or both, as one file."""

from __future__ import annotations

import argparse

from ...dtypes import DTYPES
from ..merge import merge
from .summary import print_summary

HELP = "join a base with a VACE module, add LoRAs to it, or both"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("base", metavar="BASE", help="network file, folder of shards, index, or one shard")
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
    parser.add_argument(
        "--dtype",
        choices=("bf16", "fp16", "fp32"),
        help="convert every parameter; by default dtypes are kept",
    )
    parser.add_argument(
        "--plain",
        action="store_true",
        help="leave the config out, so that ComfyUI without this pack opens the file (released sizes only)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def run(options: argparse.Namespace) -> int:
    """Merge, and print the new file's summary; returns the exit code."""
    dtype = DTYPES[options.dtype] if options.dtype else None
    return print_summary(
        merge(
            options.base,
            options.parts,
            options.target,
            strengths=options.strength,
            dtype=dtype,
            plain=options.plain,
            overwrite=options.overwrite,
        )
    )
