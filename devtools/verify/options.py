"""Options of `dev.py verify`."""

import argparse
import os
from collections.abc import Sequence

DEVICES = ("auto", "cuda", "cpu")


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line.

    Args:
        arguments: without the command's name.
    """
    parser = argparse.ArgumentParser(
        prog="dev.py verify",
        description="Check a network's file against the published layout, and one step of this project's "
        "network against ComfyUI's. The step reads the file twice; one block is in memory at a time.",
    )
    parser.add_argument("path", metavar="IN", help="weight file, folder of shards, index, or one shard")
    parser.add_argument("--vace", metavar="FILE", help="VACE module, if IN is a T2V network")
    parser.add_argument("--headers", action="store_true", help="do not read the values for the first checks")
    parser.add_argument("--sha256", action="store_true", help="compute checksums")
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default="auto",
        help="where the step runs (default: a GPU, if there is one)",
    )
    return parser.parse_args(arguments)


def absolute(options: argparse.Namespace) -> list[str]:
    """The command line for a program that runs in another folder."""
    arguments = [os.path.abspath(options.path), "--device", options.device]
    arguments += ["--vace", os.path.abspath(options.vace)] if options.vace else []
    return arguments + [f"--{name}" for name in ("headers", "sha256") if getattr(options, name)]
