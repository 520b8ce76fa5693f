"""Makes the real ComfyUI importable inside the test process, on the CPU."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def comfyui_path() -> Path:
    """The ComfyUI checkout that the tests run against: $COMFYUI_PATH, else the one dev.py installed."""
    import dev

    path = dev.find_comfyui()
    if path is None:
        pytest.skip("ComfyUI is not installed: run `python dev.py test`, or set COMFYUI_PATH")
    return path


def import_comfy():
    """Put ComfyUI first on sys.path, force its CPU mode and return the `comfy` package.

    ComfyUI's own `nodes.py` must win over this repository's `nodes/`, so its folder goes first.
    """
    path = str(comfyui_path())
    if path not in sys.path:
        sys.path.insert(0, path)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    import comfy

    return comfy
