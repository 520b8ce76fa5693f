"""`convert IN OUT`: rewrite a checkpoint in this project's format."""

from __future__ import annotations

import argparse

from ...dtypes import DTYPES
from ..convert import convert
from .summary import print_summary

HELP = "write a checkpoint as one safetensors file with its config"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("source", metavar="IN", help="weight file, folder of shards, index, or one shard")
    parser.add_argument("target", metavar="OUT", help="the .safetensors file to write")
    parser.add_argument("--vace", metavar="FILE", help="VACE module, if IN is a T2V network")
    parser.add_argument(
        "--dtype",
        choices=("bf16", "fp16", "fp32"),
        help="convert every parameter; by default dtypes are kept",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def run(options: argparse.Namespace) -> int:
    """Convert, and print the new file's summary; returns the exit code."""
    dtype = DTYPES[options.dtype] if options.dtype else None
    return print_summary(
        convert(options.source, options.target, vace=options.vace, dtype=dtype, overwrite=options.overwrite)
    )
