"""`inspect IN`: describe a checkpoint without reading its weights."""

from __future__ import annotations

import argparse

from ..read import inspect
from .arguments import add_source, add_vace
from .summary import print_summary

HELP = "describe a checkpoint without reading its weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_source(parser)
    add_vace(parser)


def run(options: argparse.Namespace) -> int:
    """Inspect and print; returns the exit code."""
    return print_summary(inspect(options.source, vace=options.vace))
