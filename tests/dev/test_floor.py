"""Tests for the oldest supported versions: Python 3.10 and torch 2.7, `python dev.py test --floor`."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Imports the pack as ComfyUI does, by file location and under another name, without ComfyUI.
IMPORT_PACK = """
import importlib.util, sys, time
root = sys.argv[1]
started = time.process_time()
path = root + "/__init__.py"
spec = importlib.util.spec_from_file_location("some_name", path, submodule_search_locations=[root])
module = importlib.util.module_from_spec(spec)
sys.modules["some_name"] = module
spec.loader.exec_module(module)
print(time.process_time() - started)
assert callable(module.comfy_entrypoint) and module.WEB_DIRECTORY
assert not hasattr(module, "NODE_CLASS_MAPPINGS"), "ComfyUI would not call the entry point"
heavy = {"comfy", "comfy_api", "folder_paths", "nodes", "torch", "diffusers", "numpy"} & sys.modules.keys()
assert not heavy, heavy
"""


def test_the_pack_imports_without_comfyui_and_at_once():
    times = []
    for _ in range(3):
        command = [sys.executable, "-I", "-c", IMPORT_PACK, str(ROOT)]
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        times.append(float(run.stdout))
    assert min(times) < 0.2, times


def core_modules() -> list[str]:
    import vdot_core

    return ["vdot_core", *(info.name for info in pkgutil.walk_packages(vdot_core.__path__, "vdot_core."))]


@pytest.mark.parametrize("name", core_modules())
def test_every_module_of_the_library_imports(name):
    importlib.import_module(name)


def test_all_files_are_valid_on_this_python():
    folders = ("nodes", "vdot_core", "training", "tiny", "devtools", "benchmarks", "tests", "locales")
    for path in [path for folder in folders for path in (ROOT / folder).rglob("*.py")]:
        compile(path.read_text(encoding="utf-8"), str(path), "exec")
