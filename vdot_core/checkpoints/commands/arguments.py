"""Arguments that several commands share."""

from __future__ import annotations

import argparse

import torch

from ...dtypes import DTYPES


def add_source(parser: argparse.ArgumentParser, name: str = "source", metavar: str = "IN") -> None:
    """Add the network to read."""
    parser.add_argument(name, metavar=metavar, help="weight file, folder of shards, index, or one shard")


def add_vace(parser: argparse.ArgumentParser, of: str = "IN") -> None:
    """Add the VACE module that completes the network `of`."""
    parser.add_argument("--vace", metavar="FILE", help=f"VACE module, if {of} is a T2V network")


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """Add the dtype of the result; `dtype_of` reads it."""
    parser.add_argument(
        "--dtype",
        choices=("bf16", "fp16", "fp32"),
        help="convert every parameter; by default dtypes are kept",
    )


def dtype_of(options: argparse.Namespace) -> torch.dtype | None:
    """The dtype that was asked for; None keeps each."""
    return DTYPES[options.dtype] if options.dtype else None


def add_plain(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a file without a config."""
    parser.add_argument(
        "--plain",
        action="store_true",
        help="leave the config out, so that ComfyUI without this pack opens the file (released sizes only)",
    )
