"""Virtual environments that are either whole or rebuilt.

Two small files inside the environment say what state it is in. `vdot-stamp.json` is written last and holds a
hash of what was asked for: when it matches, nothing is installed. `vdot-installing` exists while pip changes
packages: when it is found at the start, an earlier run was cut off there and the environment is made anew.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from devtools.errors import DevError
from devtools.paths import python_of, require_space

STAMP = "vdot-stamp.json"
INSTALLING = "vdot-installing"
LOG = "vdot-install.log"
VENV_PARTS = {"bin", "lib", "lib64", "include", "Scripts", "Lib", "Include", INSTALLING, STAMP, LOG}
NEWEST_PYTHON = (3, 14)  # the newest with wheels of the pinned torch
HINTS = (
    ("No space left on device", "the disk is full: make room and run the same command again"),
    ("Errno 28", "the disk is full: make room and run the same command again"),
    (
        "NewConnectionError",
        "the package index cannot be reached: check the network, then run the same command again",
    ),
    (
        "name resolution",
        "the package index cannot be reached: check the network, then run the same command again",
    ),
    ("Read timed out", "the download was interrupted: run the same command again"),
    ("IncompleteRead", "the download was interrupted: run the same command again"),
    ("ProxyError", "the proxy refused the connection: check HTTPS_PROXY, then run the same command again"),
    ("THESE PACKAGES DO NOT MATCH THE HASHES", "a download arrived damaged: run the same command again"),
    (
        "No matching distribution",
        "no wheel for this Python and platform; 64-bit Python 3.12 is the safest choice",
    ),
)


def create_venv(
    venv: Path, num_bytes: int, say: Callable[[str], None], base_python: str | None = None
) -> Path:
    """Make sure that a virtual environment exists and runs; nothing is installed into it yet.

    Args:
        venv: its folder.
        num_bytes: disk space that a full installation needs, checked before a new one is begun.
        say: told in one line what happens.
        base_python: interpreter to make it from; the running one if None.

    Returns:
        The environment's interpreter.

    Raises:
        DevError: it cannot be made here.
    """
    python = python_of(venv)
    if (venv / INSTALLING).exists():
        say(f"an earlier installation in {venv} was cut off: starting over")
        _remove(venv)
    elif venv.exists() and not _works(python):
        say(f"{venv} does not run: making it anew")
        _remove(venv)
    if python.exists():
        return python
    base = base_python or getattr(sys, "_base_executable", None) or sys.executable
    version = _output([base, "-c", "import sys; print(*sys.version_info[:2])"])
    if version and tuple(map(int, version.split())) > NEWEST_PYTHON:
        newest = ".".join(map(str, NEWEST_PYTHON))
        raise DevError(
            f"the pinned torch has no wheels for Python newer than {newest}: use python3.12 dev.py ..."
        )
    require_space(venv, num_bytes, "The Python environment")
    say(f"making {venv}")
    made = subprocess.run(
        [base, "-m", "venv", str(venv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if made.returncode:
        _remove(venv)
        hint = "\nOn Debian and Ubuntu: apt install python3-venv" if "ensurepip" in made.stdout else ""
        raise DevError(f"python -m venv {venv} failed:\n{made.stdout.strip()}{hint}")
    return python


def install(venv: Path, requirements: Sequence[str], constraints: Path, say: Callable[[str], None]) -> bool:
    """Bring the packages of an environment to what is asked for.

    Args:
        venv: an environment from create_venv().
        requirements: pip requirement lines.
        constraints: file with the exact versions.
        say: told in one line what happens.

    Returns:
        Whether anything had to be done; False when the stamp matched.

    Raises:
        DevError: pip failed; the message has its last lines and what to do.
    """
    python = python_of(venv)
    stamp = venv / STAMP
    key = install_key(python, requirements, constraints)
    if read_stamp(stamp) == key:
        return False
    say(f"installing {len(requirements)} requirements into {venv} (several GB the first time)")
    stamp.unlink(missing_ok=True)
    log = venv / LOG
    # pip unpacks gigabytes: beside what it installs, where there is room and where a cut-off run is cleared.
    with tempfile.TemporaryDirectory(dir=venv) as scratch:
        wanted = Path(scratch) / "requirements.txt"
        wanted.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        command = [str(python), "-m", "pip", "install", "--progress-bar", "off", "--no-input"]
        _run_pip([*command, "-r", str(wanted), "-c", str(constraints)], venv, log, scratch)
    stamp.write_text(json.dumps({"key": key}), encoding="utf-8")
    return True


def install_key(python: Path, requirements: Sequence[str], constraints: Path) -> str:
    """Hash of everything that decides what gets installed."""
    # pyvenv.cfg changes with the interpreter that the environment stands on.
    parts = [str((python.parent.parent / "pyvenv.cfg").read_text(encoding="utf-8")), sys.platform]
    parts += [*requirements, constraints.read_text(encoding="utf-8")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read_stamp(stamp: Path) -> str | None:
    """The key in a stamp file; None where there is no readable one."""
    try:
        return json.loads(stamp.read_text(encoding="utf-8"))["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _run_pip(command: Sequence[str], venv: Path, log: Path, scratch: str) -> None:
    """Run pip with its output in a log file; on a terminal one changing line shows what it is at."""
    marker = venv / INSTALLING
    changed = False
    marker.touch()
    with open(log, "w", encoding="utf-8") as sink:
        environment = {
            **os.environ,
            **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), scratch),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONUNBUFFERED": "1",
        }
        pip = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
        )
        for line in pip.stdout:
            sink.write(line)
            changed = changed or line.startswith("Installing collected packages")
            _show(line)
        code = pip.wait()
    _show("")
    if code == 0 or not changed:
        marker.unlink()  # pip failed before it touched a package: what was there is still whole
    if code:
        raise DevError(explain_pip_failure(log.read_text(encoding="utf-8"), log))


def explain_pip_failure(output: str, log: Path) -> str:
    """pip's last words and, for the known causes, what to do."""
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    hint = next(
        (hint for sign, hint in HINTS if sign in output), "see the log, then run the same command again"
    )
    return "\n".join(["pip failed:", *("  " + line for line in errors[-6:]), hint, f"log: {log}"])


def _show(line: str) -> None:
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        sys.stdout.write("\r\033[K" + line.strip()[:width])
        sys.stdout.flush()


def _works(python: Path) -> bool:
    return python.exists() and _output([str(python), "-c", "import pip; print(1)"]) == "1"


def _output(command: Sequence[str]) -> str:
    try:
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ).stdout.strip()
    except OSError:
        return ""


def _remove(venv: Path) -> None:
    if not venv.exists():
        return
    if not (venv / "pyvenv.cfg").exists() and any(venv.iterdir()):
        names = sorted(path.name for path in venv.iterdir())
        if not set(names) <= VENV_PARTS:
            raise DevError(
                f"{venv} is no virtual environment (it has {', '.join(names[:5])}): set VDOT_VENV elsewhere"
            )
    if Path(sys.prefix) == venv:
        raise DevError(f"{venv} must be made anew, and dev.py runs from it: run it with the system's Python")
    shutil.rmtree(venv)
