"""The files that the Comfy Registry's program puts into the archive: what git tracks without .comfyignore."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def shipped_files() -> list[Path]:
    """Paths relative to the root; files that are not yet committed count, too."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a clone")
    tracked = _list("--exclude-standard")
    ignored = set(_list("--ignored", "--exclude-from=.comfyignore"))
    return [path for path in tracked if path not in ignored and (ROOT / path).is_file()]


def copy_shipped(destination: Path) -> Path:
    """Copy these files to a folder."""
    for path in shipped_files():
        (destination / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, destination / path)
    return destination


def _list(*options: str) -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", *options]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [Path(name) for name in output.split("\0") if name]
