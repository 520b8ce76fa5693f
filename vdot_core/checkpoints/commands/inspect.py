"""`inspect IN`: describe a checkpoint without reading its weights."""

from __future__ import annotations

import argparse

from ..read import inspect
from .summary import print_summary

HELP = "describe a checkpoint without reading its weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("source", metavar="IN", help="weight file, folder of shards, index, or one shard")
    parser.add_argument("--vace", metavar="FILE", help="VACE module, if IN is a T2V network")


def run(options: argparse.Namespace) -> int:
    """Inspect and print; returns the exit code."""
    return print_summary(inspect(options.source, vace=options.vace))
