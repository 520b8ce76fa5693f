"""Where things live on this machine, and whether they fit."""

import os
import shutil
import sys
from pathlib import Path

from devtools.errors import DevError

ROOT = Path(__file__).resolve().parents[1]
GIB = 1024**3


def cache_dir() -> Path:
    """Per-user cache: $VDOT_CACHE, else the platform's own place (XDG_CACHE_HOME is honoured)."""
    if override := os.environ.get("VDOT_CACHE"):
        return Path(override).expanduser().resolve()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vdot"


def venv_dir(*, floor: bool = False) -> Path:
    """The virtual environment: $VDOT_VENV, else .venv beside dev.py; the floor's gets the suffix -floor."""
    override = os.environ.get("VDOT_VENV")
    base = Path(override).expanduser().resolve() if override else ROOT / ".venv"
    return base.with_name(base.name + "-floor") if floor else base


def python_of(venv: Path) -> Path:
    """The interpreter inside a virtual environment."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def require_space(where: Path, num_bytes: int, purpose: str) -> None:
    """Refuse up front what would fill the disk half-way.

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
