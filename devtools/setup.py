"""Puts an environment together: which packages, which ComfyUI, which constraints."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devtools.comfyui import ensure_comfyui
from devtools.paths import GIB, ROOT, python_of, venv_dir
from devtools.venv import STAMP, create_venv, install

# tomllib is in the standard library from Python 3.11 on; pip has carried it for the versions before.
READ_PROJECT = """
import json, sys
try: import tomllib
except ImportError: from pip._vendor import tomli as tomllib
with open(sys.argv[1], "rb") as file: print(json.dumps(tomllib.load(file)["project"]))
"""
# What tests/core needs besides the pack's own dependencies.
FLOOR_TOOLS = ("pytest", "hypothesis", "POT", "opencv-python-headless", "av", "transformers")


@dataclass(frozen=True)
class Environment:
    """What a command runs in: the interpreter with everything installed, ComfyUI, and how long it took."""

    python: Path
    comfyui: Path
    seconds: float


def say(line: str) -> None:
    """One line of progress for the person at the terminal."""
    print(f"[dev] {line}", flush=True)


def project_table(python: Path) -> dict:
    """pyproject.toml's [project], read by an interpreter that has pip."""
    command = [str(python), "-c", READ_PROJECT, str(ROOT / "pyproject.toml")]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def requirement_lines(path: Path) -> list[str]:
    """The requirements in a pip file, without comments and empty lines."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def set_up(*, tell: Callable[[str], None] = say) -> Environment:
    """The full environment: ComfyUI and its requirements, the pack's, and the development tools."""
    started = time.monotonic()
    venv = venv_dir()
    python = create_venv(venv, 8 * GIB, tell)
    comfyui = ensure_comfyui(python, tell)
    project = project_table(python)
    extras = project["optional-dependencies"]
    wanted = [*requirement_lines(comfyui / "requirements.txt"), *project["dependencies"]]
    install(venv, [*wanted, *extras["train"], *extras["dev"]], ROOT / "constraints.txt", tell)
    return Environment(python, comfyui, time.monotonic() - started)


def set_up_floor(*, tell: Callable[[str], None] = say) -> Path:
    """The oldest environment that the pack promises to run in; ComfyUI is not part of it.

    Returns:
        The environment's interpreter.
    """
    venv = venv_dir(floor=True)
    base = None
    if not venv.exists():
        base = find_python("3.10")
        if base is None:
            tell(
                "no Python 3.10 found (set VDOT_FLOOR_PYTHON): the floor of torch is tested with this Python"
            )
    python = create_venv(venv, 7 * GIB, tell, base)
    project = project_table(python)
    install(venv, [*project["dependencies"], *FLOOR_TOOLS], ROOT / "constraints-floor.txt", tell)
    return python


def peers(python: Path, *, install_them: bool, tell: Callable[[str], None] = say) -> Path:
    """The interpreter that also sees what benchmarks compare with (the extra `bench` of pyproject.toml).

    Those packages are in an environment of their own that looks into the full one, so that nobody else's
    set-up grows.

    Args:
        python: the full environment's interpreter.
        install_them: install them; otherwise they are used only where that was done before.
        tell: told in one line what happens.

    Returns:
        The peers' interpreter, or `python` where there is none.
    """
    venv = venv_dir().with_name(venv_dir().name + "-bench")
    if not install_them:
        return python_of(venv) if (venv / STAMP).exists() else python
    own = create_venv(venv, 2 * GIB, tell, str(python))
    folder = "import sysconfig; print(sysconfig.get_path('purelib'))"
    seen, link = (
        subprocess.run([str(p), "-c", folder], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        for p in (python, own)
    )
    Path(link, "vdot.pth").write_text(seen + "\n", encoding="utf-8")
    wanted = project_table(python)["optional-dependencies"]["bench"]
    install(venv, wanted, ROOT / "constraints.txt", tell)
    return own


def find_python(version: str) -> str | None:
    """An interpreter of that version: $VDOT_FLOOR_PYTHON, on PATH, pyenv's, or the Windows launcher's."""
    candidates = [[os.environ.get("VDOT_FLOOR_PYTHON", "")], [sys.executable], [f"python{version}"]]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates += [
        [str(path)] for path in sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True)
    ]
    candidates += [["py", f"-{version}"]]
    for command in candidates:
        if not command[0] or not shutil.which(command[0]):
            continue
        probe = (
            "import sys; print(sys.executable if '%d.%d' % sys.version_info[:2] == '" + version + "' else '')"
        )
        found = subprocess.run(
            [*command, "-c", probe], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        if found.returncode == 0 and found.stdout.strip():
            return found.stdout.strip()
    return None
