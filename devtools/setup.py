"""Puts an environment together: which packages, which ComfyUI, which Python."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from devtools.comfyui import VERSION, ensure_comfyui, require_place, version_of
from devtools.errors import DevError
from devtools.install import install
from devtools.lock import locked
from devtools.paths import GIB, ROOT, escaped, python_of, venv_dir
from devtools.pins import FLOOR, FOLDER, FULL, requirement_lines
from devtools.venv import STAMP, create_venv, require_usable, site_packages

# tomllib is in the standard library from Python 3.11 on; pip has carried it for the versions before.
READ_PROJECT = """
import json, sys
try: import tomllib
except ImportError: from pip._vendor import tomli as tomllib
with open(sys.argv[1], "rb") as file: print(json.dumps(tomllib.load(file)["project"]))
"""


@dataclass(frozen=True)
class Environment:
    """The environment of a command: interpreter, ComfyUI, and seconds of the set-up."""

    python: Path
    comfyui: Path
    seconds: float


def say(line: str) -> None:
    """One line of progress for the person at the terminal."""
    print(f"[dev] {escaped(line)}", flush=True)


def project_table(python: Path) -> dict:
    """pyproject.toml's [project], read by an interpreter that has pip."""
    command = [str(python), "-c", READ_PROJECT, str(ROOT / "pyproject.toml")]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def set_up(*, tell: Callable[[str], None] = say) -> Environment:
    """The full environment: ComfyUI and its requirements, the pack's, and the development tools."""
    started = time.monotonic()
    venv = venv_dir()
    require_place(venv)  # a wrong path should not cost minutes
    with environment_lock(venv, tell) as lock:
        python = create_venv(venv, 8 * GIB, tell)
        comfyui = ensure_comfyui(python, tell)
        install(venv, FULL, tell, lock, own_requirements(comfyui))
    return Environment(python, comfyui, time.monotonic() - started)


def own_requirements(comfyui: Path) -> list[str]:
    """Requirements of a ComfyUI of another version than the pins are for."""
    return [] if version_of(comfyui) == VERSION else requirement_lines(comfyui / "requirements.txt")


def environment_lock(venv: Path, tell: Callable[[str], None]) -> AbstractContextManager[TextIO | None]:
    """The lock of an environment's folder, to be held during the set-up.

    Raises:
        DevError: the folder has other things in it; then nothing is written there.
    """
    require_usable(venv)
    return locked(venv, "VDOT_VENV", tell)


def set_up_floor(*, tell: Callable[[str], None] = say) -> Path:
    """The oldest environment that the pack promises to run in; ComfyUI is not part of it.

    Returns:
        The environment's interpreter.
    """
    venv = venv_dir("-floor")
    base = find_python("3.10")
    if base is None:
        tell("no Python 3.10 found (set VDOT_FLOOR_PYTHON): the floor of torch is tested with this Python")
    with environment_lock(venv, tell) as lock:
        python = create_venv(venv, 7 * GIB, tell, base)
        install(venv, FLOOR, tell, lock)
    return python


def layer_of(python: Path, name: str, *, install_it: bool, tell: Callable[[str], None] = say) -> Path:
    """The interpreter of a small environment on top of the full one, so that nobody else's set-up grows.

    Args:
        python: the full environment's interpreter.
        name: the layer: `bench`, what benchmarks compare with; `gpu`, what only an NVIDIA GPU can use.
        install_it: install it; otherwise it is used only where that was done before.
        tell: told in one line what happens.

    Returns:
        The layer's interpreter, or `python` where there is none.
    """
    venv = venv_dir(f"-{name}")
    if not install_it:
        return python_of(venv) if (venv / STAMP).exists() else python
    with environment_lock(venv, tell) as lock:
        own = create_venv(venv, 2 * GIB, tell, str(python))
        full, link = (site_packages(interpreter) for interpreter in (python, own))
        Path(link, "vdot.pth").write_text(full + "\n", encoding="utf-8")
        install(venv, FOLDER / f"{name}.txt", tell, lock)
    return own


def find_python(version: str) -> str | None:
    """An interpreter of that version: $VDOT_FLOOR_PYTHON, on PATH, pyenv's, or the Windows launcher's.

    Raises:
        DevError: $VDOT_FLOOR_PYTHON is set to something else.
    """
    if override := os.environ.get("VDOT_FLOOR_PYTHON"):
        path = _executable_of([override], version)
        if path is None:
            raise DevError(f"VDOT_FLOOR_PYTHON={override} is no Python {version}")
        return path
    pyenv = Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"))
    candidates = [[sys.executable], [f"python{version}"]]
    candidates += [
        [str(path)] for path in sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True)
    ]
    candidates += [["py", f"-{version}"]]
    return next(filter(None, (_executable_of(command, version) for command in candidates)), None)


def _executable_of(command: list[str], version: str) -> str | None:
    """Path of the interpreter that a command starts; None where there is none or it has another version."""
    if not shutil.which(command[0]):
        return None
    probe = "import sys; print(sys.executable if '%d.%d' % sys.version_info[:2] == '" + version + "' else '')"
    try:
        process = subprocess.run(
            [*command, "-c", probe], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError:
        return None
    return process.stdout.strip() or None if process.returncode == 0 else None
