"""`verify PATH`: a checkpoint against the published layout, one line for each check."""

from __future__ import annotations

import argparse
import sys

from ..verify import verify
from .arguments import add_source, add_vace

HELP = "check a network's names, shapes, sizes and values against the published layout"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_source(parser)
    add_vace(parser)
    parser.add_argument("--headers", action="store_true", help="read the headers alone, not the values")
    parser.add_argument("--sha256", action="store_true", help="compute checksums")


def run(options: argparse.Namespace) -> int:
    """Check and print; returns the exit code, 1 where a check failed."""
    failed = False
    checks = verify(options.source, vace=options.vace, values=not options.headers, sha256=options.sha256)
    for check in checks:
        failed |= not check.passed
        sys.stdout.write(check.line() + "\n")
        sys.stdout.flush()
    return int(failed)
