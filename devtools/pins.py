"""Writes the pinned packages of every environment, with the hash of each file: `python dev.py pins`.

One list serves Python 3.10 to 3.14 on Linux, macOS and Windows: markers choose the versions, and each version
has the hashes of all its files. Versions that are pinned already stay, unless --upgrade asks for newer ones.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devtools.paths import ROOT

FOLDER = ROOT / "devtools" / "pinned"
FULL, FLOOR, UV = FOLDER / "full.txt", FOLDER / "floor.txt", FOLDER / "uv.txt"
# ComfyUI leaves these open; other versions of torch clash with torchaudio's CUDA build.
TORCH_FAMILY = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
FULL_EXTRAS = ("train", "data", "annotators", "dev")
PUBLISHER = "comfy-cli==1.23.0"
COMMAND = "python dev.py pins"
OLDEST_PYTHON = "3.10"


@dataclass(frozen=True)
class Pins:
    """One list of pinned packages.

    Attributes:
        path: the file.
        requirements: the direct requirements; the file also has their dependencies.
        layer: on top of the full environment: the file leaves out what that has, at the same versions.
        python: the oldest Python.
    """

    path: Path
    requirements: Sequence[str]
    layer: bool = False
    python: str = OLDEST_PYTHON


def requirement_lines(path: Path) -> list[str]:
    """The requirements in a pip file, without comments and empty lines."""
    # Letters in comments may be of another encoding.
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def pinned_lines(path: Path) -> list[str]:
    """`name==version [; marker]` of every package in a file of pins, without the hashes."""
    lines = (line.removesuffix("\\").strip() for line in requirement_lines(path))
    return [line for line in lines if not line.startswith("--hash=")]


def pinned_names(path: Path) -> set[str]:
    """Names of the packages in a file of pins."""
    return {line.split("==")[0] for line in pinned_lines(path)}


def all_pins(project: dict, comfyui: Path) -> list[Pins]:
    """Every list, in the order in which they build on each other.

    Args:
        project: pyproject.toml's [project].
        comfyui: the folder of the pinned ComfyUI.
    """
    extras = project["optional-dependencies"]
    full = [*requirement_lines(comfyui / "requirements.txt"), *project["dependencies"], *TORCH_FAMILY]
    full += [requirement for extra in FULL_EXTRAS for requirement in extras[extra]]
    return [
        Pins(UV, ["uv"]),
        Pins(FULL, full),
        Pins(FLOOR, requirement_lines(FLOOR.with_suffix(".in"))),
        Pins(FOLDER / "bench.txt", extras["bench"], layer=True),
        Pins(FOLDER / "gpu.txt", extras["flash"], layer=True),
        Pins(FOLDER / "publish.txt", [PUBLISHER]),
    ]


def compile_command(python: Path, pins: Pins, *, upgrade: bool) -> list[str]:
    """uv's command that writes one list; the requirements go to its standard input."""
    command = [str(python), "-m", "uv", "pip", "compile", "-", "--output-file", str(pins.path), "--quiet"]
    command += ["--universal", "--python-version", pins.python, "--generate-hashes", "--no-annotate"]
    command += ["--custom-compile-command", COMMAND]
    if upgrade:
        command.append("--upgrade")
    if pins.layer:
        command += ["--constraints", str(FULL)]
        command += [f"--no-emit-package={name}" for name in sorted(pinned_names(FULL))]
    return command


def write_pins(python: Path, pins: Pins, *, upgrade: bool = False) -> int:
    """Write one list; returns uv's exit status, which has printed what went wrong."""
    text = "\n".join(pins.requirements) + "\n"
    command = compile_command(python, pins, upgrade=upgrade)
    return subprocess.run(command, input=text, text=True, cwd=ROOT).returncode
