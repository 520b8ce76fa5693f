"""Paths on this machine, and checks of free disk space."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from devtools.errors import DevError

ROOT = Path(__file__).resolve().parents[1]
GIB = 1024**3


def path_from(variable: str) -> Path | None:
    """The absolute path in an environment variable; None where it is unset or empty.

    Raises:
        DevError: it names an unknown user's home folder or a loop of links, is too long, or not in UTF-8.
    """
    value = os.environ.get(variable)
    if not value:
        return None
    try:
        value.encode()
        path = Path(value).expanduser().resolve()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            path.stat()
    except UnicodeEncodeError as error:
        raise DevError(
            f"{variable}={printable(value)} is not in UTF-8, which Python's environments cannot handle: "
            "set it to a folder of another name"
        ) from error
    except (RuntimeError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DevError(
            f"{variable}={printable(value)} is no usable path ({reason}): set it to another folder"
        ) from error
    return path


def printable(text: str, limit: int = 160) -> str:
    """One line of text from outside without terminal sequences, shortened in the middle."""
    if len(text) > limit:
        half = (limit - 3) // 2
        text = f"{text[:half]}...{text[-half:]}"
    return escaped(text).replace("\n", "\\n")


def escaped(text: str) -> str:
    """Text of several lines with its terminal sequences and undecodable bytes as escapes."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode("ascii") for c in text
    )


@contextmanager
def writing_to(folder: Path, variable: str) -> Iterator[None]:
    """Turn a failure to write into a sentence that names the variable with which to write elsewhere."""
    try:
        yield
    except OSError as error:
        raise DevError(
            f"cannot write to {error.filename or folder} ({error.strerror or error}): make {folder} a "
            f"writable folder, or set {variable} to another one"
        ) from error


def cache_dir() -> Path:
    """Per-user cache: $VDOT_CACHE, else the platform's own place (an absolute XDG_CACHE_HOME is honored).

    Raises:
        DevError: VDOT_CACHE is no usable path, or there is neither that nor a home folder.
    """
    if override := path_from("VDOT_CACHE"):
        return override
    variable = {"win32": "LOCALAPPDATA", "darwin": ""}.get(sys.platform, "XDG_CACHE_HOME")
    # Its specification has relative paths ignored.
    if os.path.isabs(os.environ.get(variable, "")):
        return path_from(variable) / "vdot"
    own = {"win32": "AppData/Local", "darwin": "Library/Caches"}.get(sys.platform, ".cache")
    try:
        return Path.home() / own / "vdot"
    except RuntimeError as error:
        raise DevError("this user has no home folder: set VDOT_CACHE to a folder for ComfyUI") from error


def venv_dir(suffix: str = "") -> Path:
    """The virtual environment: $VDOT_VENV, else .venv next to dev.py; others have a suffix to that name."""
    base = path_from("VDOT_VENV") or ROOT / ".venv"
    if not base.name:
        raise DevError(f"VDOT_VENV={base} is the root of the disk: give a separate folder")
    return base.with_name(base.name + suffix)


def python_of(venv: Path) -> Path:
    """The interpreter inside a virtual environment."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def require_space(where: Path, num_bytes: int, purpose: str) -> None:
    """Refuse early if the disk is too full.

    Args:
        where: folder that will be written to; it need not exist yet.
        num_bytes: how much is needed.
        purpose: what for, in words.

    Raises:
        DevError: less than that is free.
    """
    folder = where
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise DevError(
            f"{purpose} needs {num_bytes / GIB:.1f} GiB in {folder}, {free / GIB:.1f} GiB are free: "
            "make room, or put it on another disk with VDOT_VENV (packages) and VDOT_CACHE (ComfyUI)"
        )
