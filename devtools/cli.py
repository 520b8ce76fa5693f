"""The command line of dev.py: runs a command and prints an error as one message."""

import io
import os
import signal
import sys
from collections.abc import Sequence

from devtools.errors import DevError
from devtools.paths import escaped

USAGE = """usage: python dev.py COMMAND [options]

  demo    make a video with a real ComfyUI and the bundled tiny model (demo --help)
  comfy   open a ComfyUI with the pack in the browser (comfy --help)
  test    the test suite; --full: rare and long tests too; --fuzz N: N times as many fuzz cases;
          --floor: Python 3.10 and torch 2.7; --host VERSION: workflows on an older ComfyUI;
          further arguments go to pytest
  lint    ruff, formatting and the layers
  gpu     measure an NVIDIA GPU in at most nine minutes (gpu --help)
  verify  check a network's file against the published layout and one step against ComfyUI (verify --help)
  annotators  fetch the small files behind pose, matte, face and NIQE (37 MB)
  pins    write devtools/pinned/*.txt, the exact packages of every environment (--upgrade: newer versions)
  bench   measurements: bench lists them, bench NAME runs one; --install-peers adds what it compares with

Each command sets up what it needs: .venv here and ComfyUI in a per-user cache.
VDOT_VENV and VDOT_CACHE change these folders, COMFYUI_PATH uses an existing ComfyUI."""
# Commands whose options stand in USAGE; the others have a help text of more lines.
WITHOUT_PARSER = ("annotators", "lint", "pins", "bench")


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: the command line without the program's name.

    Returns:
        The exit status: the command's own, 1 for an error that was explained, 130 after Ctrl-C.
    """
    from devtools import commands

    table = {
        "demo": commands.demo,
        "comfy": commands.comfy,
        "test": commands.test,
        "lint": commands.lint,
        "gpu": commands.gpu,
        "verify": commands.verify,
        "annotators": commands.annotators,
        "pins": commands.pins,
        "bench": commands.bench,
    }
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if arguments else 2
    command = table.get(arguments[0])
    if command is None:
        print(f"dev.py: no command {arguments[0]!r}; there are {', '.join(table)}", file=sys.stderr)
        return 2
    if arguments[0] in WITHOUT_PARSER and arguments[1:2] in (["-h"], ["--help"]):
        print(USAGE)
        return 0
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names have letters that a terminal may lack
    # A terminated run stops its server like an interrupted one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        make_absolute()
        return command(list(arguments[1:]))
    except DevError as error:
        print(f"\nerror: {escaped(str(error))}", file=sys.stderr)
        return 1
    except OSError as error:  # a folder that cannot be entered, a full disk
        place = f": {error.filename}" if error.filename else ""
        print(f"\nerror: {escaped(f'{error.strerror or error}{place}')}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the same command resumes", file=sys.stderr)
        return 130


def make_absolute() -> None:
    """Make relative paths in the variables absolute: programs run in the repository's root, not here.

    Raises:
        DevError: the current folder was deleted.
    """
    for name in ("VDOT_VENV", "VDOT_CACHE", "COMFYUI_PATH"):
        value = os.environ.get(name)
        if value and not value.startswith("~"):
            try:
                os.environ[name] = os.path.abspath(value)
            except FileNotFoundError as error:
                raise DevError(
                    f"{name}={value} starts at the current folder, which was deleted: change to another one"
                ) from error
