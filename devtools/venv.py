"""Virtual environments that are either complete or rebuilt.

`vdot-environment` is written into an environment before anything else: only what has it was made here and is
ever deleted, and only while nobody has put files of their own into its folders (see ownership.py).
`vdot-installing` exists while packages change (see install.py): when it is there at the start, an earlier run
was cut off and the environment is rebuilt.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from devtools.errors import DevError
from devtools.explain import ADVICE, cause_of
from devtools.lock import LOCK
from devtools.ownership import foreign_files, is_own_file
from devtools.paths import python_of, require_space, writing_to

MARKER = "vdot-environment"
MARKER_TEXT = "Made by dev.py of ComfyUI-VDOT, which rebuilds it if an installation into it is cut off.\n"
STAMP = "vdot-stamp.json"
INSTALLING = "vdot-installing"
LOG = "vdot-install.log"
SCRATCH = "vdot-scratch"
# What venv, pip, uv and dev.py put into an environment; all else in its folder is somebody's and stays.
VENV_PARTS = (
    *("bin", "lib", "lib64", "include", "Scripts", "Lib", "Include", "share"),
    *("pyvenv.cfg", SCRATCH, STAMP, LOG, INSTALLING),
)
ENSUREPIP_BYTES = 32 * 2**20  # of pip, unpacked
NEWEST_PYTHON = (3, 14)  # the newest with wheels of the pinned torch


def create_venv(
    venv: Path, num_bytes: int, say: Callable[[str], None], base_python: str | None = None
) -> Path:
    """Make sure that a virtual environment exists and runs; nothing is installed into it yet.

    Args:
        venv: its folder.
        num_bytes: disk space that a full installation needs, checked before a new one is begun.
        say: called with one-line progress messages.
        base_python: interpreter to make it from; the running one if None.

    Returns:
        The environment's interpreter.

    Raises:
        DevError: it cannot be made here, or is broken and not ours to rebuild.
    """
    python = python_of(venv)
    require_usable(venv)
    if os.path.lexists(venv / INSTALLING):
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
        if not _is_ours(venv):
            with open(venv / MARKER, "x", encoding="utf-8") as file:  # never through a link
                file.write(MARKER_TEXT)
    process = subprocess.run(
        [base, "-m", "venv", str(venv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if process.returncode:
        hint = _advice(process.stdout, shutil.disk_usage(venv).free)
        _remove(venv, "it could not be made", lambda line: None)
        raise DevError(f"python -m venv {venv} failed:\n{process.stdout.strip()}{hint}")
    return python


def _advice(output: str, free_bytes: int) -> str:
    """Advice after a failed `python -m venv`, as further lines; empty where the cause is not known."""
    # It hides what its ensurepip said: a full disk is told by the space that is left.
    if cause_of(output) == "disk" or free_bytes < ENSUREPIP_BYTES:
        return f"\n{ADVICE['disk']}, or set VDOT_VENV to a folder on another disk"
    if "ensurepip is not available" in " ".join(output.split()):
        return "\nOn Debian and Ubuntu: apt install python3-venv"
    return ""


def require_usable(venv: Path) -> None:
    """Refuse a folder that is neither new, nor empty, nor a virtual environment; nothing is written to it.

    Raises:
        DevError: it is a file, or has other things in it.
    """
    if venv.exists() and not venv.is_dir():
        raise DevError(f"{venv} is a file: VDOT_VENV must be a folder, or a path where one can be made")
    names = _contents(venv)
    if MARKER in names and not _is_ours(venv):
        raise DevError(
            f"{venv / MARKER} is not a file that dev.py wrote: move it away, or set VDOT_VENV elsewhere"
        )
    if names and MARKER not in names and "pyvenv.cfg" not in names:
        raise DevError(
            f"{venv} is no virtual environment (it has {', '.join(names[:5])}): set VDOT_VENV elsewhere"
        )


def site_packages(python: Path) -> str:
    """The folder into which an interpreter's pip installs."""
    command = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def _works(python: Path) -> bool:
    # Without its pyvenv.cfg it would be the base Python, and packages would go there.
    probe = "import pip, sys; print(int(sys.prefix != sys.base_prefix))"
    return python.exists() and _output([str(python), "-c", probe]) == "1"


def _output(command: Sequence[str]) -> str:
    try:
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ).stdout.strip()
    except OSError:
        return ""


def _is_ours(venv: Path) -> bool:
    return is_own_file(venv / MARKER, MARKER_TEXT)


def _contents(venv: Path) -> list[str]:
    """Names in the folder, without the lock."""
    return sorted(path.name for path in venv.iterdir() if path.name != LOCK) if venv.is_dir() else []


def _remove(venv: Path, reason: str, say: Callable[[str], None]) -> None:
    """Delete an environment that was made here; other files in its folder are kept.

    Raises:
        DevError: it was not made here, this process runs from it, or its own folders have other files.
    """
    if not _is_ours(venv):
        raise DevError(
            f"{venv}: {reason}. dev.py did not make this environment, so it does not delete it: repair or "
            f"delete it ({INSTALLING} marks a cut-off installation), or set VDOT_VENV to a new folder"
        )
    if Path(sys.prefix) == venv:
        raise DevError(
            f"{venv}: {reason}. It must be rebuilt, and dev.py runs from it: run it with the system's Python"
        )
    if foreign := foreign_files(venv):
        more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
        raise DevError(
            f"{venv}: {reason}. It must be rebuilt, and has files that no installation recorded "
            f"({', '.join(foreign[:5])}{more}): move them out of it, or set VDOT_VENV to a new folder"
        )
    say(f"{venv}: {reason}; making it again")
    with writing_to(venv, "VDOT_VENV"):
        if not (venv / INSTALLING).is_symlink():
            (venv / INSTALLING).touch()  # deleted last, so that the next run continues a killed one
        for name in VENV_PARTS:
            delete(venv / name)
        if [path.name for path in venv.iterdir()] == [MARKER]:
            shutil.rmtree(venv)


def delete(path: Path) -> None:
    """Delete a file, a link or a folder with all that is in it; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
