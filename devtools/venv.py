"""Virtual environments that are either complete or rebuilt.

Small files inside the environment record its state. `vdot-environment` is written before anything else: only
what has it was made here and is ever deleted. `vdot-stamp.json` is written last and holds a hash of the
requirements: when it matches, nothing is installed. `vdot-installing` exists while pip changes packages: when
it is there at the start, an earlier run was cut off and the environment is rebuilt.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from devtools.errors import DevError
from devtools.lock import LOCK
from devtools.paths import python_of, require_space, writing_to

MARKER = "vdot-environment"
MARKER_TEXT = "Made by dev.py of ComfyUI-VDOT, which rebuilds it if an installation into it is cut off.\n"
STAMP = "vdot-stamp.json"
INSTALLING = "vdot-installing"
LOG = "vdot-install.log"
SCRATCH = "vdot-scratch"
# What venv, pip and this file put into an environment; all else in its folder is somebody's and stays.
VENV_PARTS = (
    *("bin", "lib", "lib64", "include", "Scripts", "Lib", "Include"),
    *("pyvenv.cfg", ".gitignore", SCRATCH, STAMP, LOG, INSTALLING),
)
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
        DevError: it cannot be made here, or is broken and not ours to rebuild.
    """
    python = python_of(venv)
    require_usable(venv)
    if (venv / INSTALLING).exists():
        _remove(venv, "an earlier installation into it was cut off", say)
    elif _contents(venv) and not _works(python):
        _remove(venv, "its Python or pip does not run", say)
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
    with writing_to(venv, "VDOT_VENV"):
        venv.mkdir(parents=True, exist_ok=True)
        (venv / MARKER).write_text(MARKER_TEXT, encoding="utf-8")
    process = subprocess.run(
        [base, "-m", "venv", str(venv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if process.returncode:
        _remove(venv, "it could not be made", lambda line: None)
        hint = "\nOn Debian and Ubuntu: apt install python3-venv" if "ensurepip" in process.stdout else ""
        raise DevError(f"python -m venv {venv} failed:\n{process.stdout.strip()}{hint}")
    return python


def require_usable(venv: Path) -> None:
    """Refuse a folder that is neither new, nor empty, nor a virtual environment; nothing is written to it.

    Raises:
        DevError: it is a file, or has other things in it.
    """
    if venv.exists() and not venv.is_dir():
        raise DevError(f"{venv} is a file: VDOT_VENV must be a folder, or a path where one can be made")
    names = _contents(venv)
    if names and MARKER not in names and "pyvenv.cfg" not in names:
        raise DevError(
            f"{venv} is no virtual environment (it has {', '.join(names[:5])}): set VDOT_VENV elsewhere"
        )


def install(
    venv: Path,
    requirements: Sequence[str],
    constraints: Path,
    say: Callable[[str], None],
    lock: TextIO | None = None,
) -> bool:
    """Bring the packages of an environment to what is asked for.

    Args:
        venv: an environment from create_venv().
        requirements: pip requirement lines.
        constraints: file with the exact versions.
        say: told in one line what happens.
        lock: the environment's lock file; pip shares it, so that it outlives this process if pip does.

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
    # pip unpacks gigabytes: next to what it installs, where there is room and where a cut-off run is cleared.
    scratch = venv / SCRATCH
    with writing_to(venv, "VDOT_VENV"):
        stamp.unlink(missing_ok=True)
        _delete(scratch)
        scratch.mkdir()
        (scratch / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
        command = [str(python), "-m", "pip", "install", "--progress-bar", "off", "--no-input"]
        command += ["-r", str(scratch / "requirements.txt"), "-c", str(constraints)]
        try:
            _run_pip(command, venv, lock)
        finally:
            _delete(scratch)
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


def _run_pip(command: Sequence[str], venv: Path, lock: TextIO | None) -> None:
    """Run pip with its output in a log file; on a terminal one changing line shows its progress."""
    marker, log = venv / INSTALLING, venv / LOG
    changed = False
    marker.touch()
    environment = {
        **os.environ,
        **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(venv / SCRATCH)),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONUNBUFFERED": "1",
    }
    shared = (lock.fileno(),) if lock and os.name == "posix" else ()
    with (
        open(log, "w", encoding="utf-8") as sink,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            pass_fds=shared,
        ) as pip,
    ):
        try:
            for line in pip.stdout:
                sink.write(line)
                changed = changed or line.startswith("Installing collected packages")
                _show(line)
        except BaseException:
            pip.terminate()
            raise
    _show("")
    if pip.returncode == 0 or not changed:
        marker.unlink()  # pip failed before it touched a package: the environment is what it was
    if pip.returncode:
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


def _contents(venv: Path) -> list[str]:
    """Names in the folder, without the lock."""
    return sorted(path.name for path in venv.iterdir() if path.name != LOCK) if venv.is_dir() else []


def _remove(venv: Path, reason: str, say: Callable[[str], None]) -> None:
    """Delete an environment that was made here; what else is in its folder stays."""
    if not (venv / MARKER).exists():
        raise DevError(
            f"{venv}: {reason}. dev.py did not make this environment, so it does not delete it: repair or "
            f"delete it ({INSTALLING} marks a cut-off installation), or set VDOT_VENV to a new folder"
        )
    if Path(sys.prefix) == venv:
        raise DevError(
            f"{venv}: {reason}. It must be rebuilt, and dev.py runs from it: run it with the system's Python"
        )
    say(f"{venv}: {reason}; making it again")
    with writing_to(venv, "VDOT_VENV"):
        (venv / INSTALLING).touch()  # it goes last, so that a run that is killed here is taken up by the next
        for name in VENV_PARTS:
            _delete(venv / name)
        if [path.name for path in venv.iterdir()] == [MARKER]:
            shutil.rmtree(venv)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
