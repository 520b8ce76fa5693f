"""Command line: `python -m vdot_core.checkpoints COMMAND ..`, or by this folder's path; see `commands`."""

from __future__ import annotations

import argparse
import io
import logging
import runpy
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # by path, for Pythons that look for no module in the current folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    runpy.run_module("vdot_core.checkpoints", run_name="__main__", alter_sys=True)

from ..out_of_memory import memory_in_words
from .commands import COMMANDS


@memory_in_words("close other programs, or use a computer with more memory")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: command line without the program's name; None takes the process's own.
    Returns:
        Exit code: 0 done, 1 the checkpoint is refused or a file cannot be written; wrong usage exits with 2.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("vdot").setLevel(logging.INFO)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names have letters that a terminal may lack
    try:
        return COMMANDS[options.command].run(options)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m vdot_core.checkpoints",
        description="Inspect, verify, convert, split and merge checkpoints; extract LoRAs.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        command.add_arguments(commands.add_parser(name, help=command.HELP, description=command.HELP))
    return parser


def _end_in_order() -> None:
    """Let an asked end (kill, a terminal that closes) remove the file that is being written, of many GB."""
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, lambda received, _: sys.exit(128 + received))


if __name__ == "__main__":
    _end_in_order()
    sys.exit(main())
