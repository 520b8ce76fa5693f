"""Makes the real ComfyUI importable inside the test process, on the CPU."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]


def unavailable(what: str) -> NoReturn:
    """Skip the test for want of something, but fail it in continuous integration ($CI), which has it all."""
    if os.environ.get("CI", "").lower() in ("", "0", "false"):
        pytest.skip(what)
    pytest.fail(f"{what} (tests that need it are not skipped where CI is set)", pytrace=False)


def comfyui_path() -> Path:
    """The ComfyUI checkout that the tests run against: $COMFYUI_PATH, else the one dev.py installed.

    COMFYUI_PATH set to nothing says that there is none on purpose, as on the floor of versions: these tests
    are skipped then, in continuous integration too.
    """
    import dev

    path = dev.find_comfyui()
    if path is None:
        missing = "ComfyUI is not installed: run `python dev.py test`, or set COMFYUI_PATH"
        pytest.skip("COMFYUI_PATH is empty") if os.environ.get("COMFYUI_PATH") == "" else unavailable(missing)
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
