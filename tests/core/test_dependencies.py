"""The dependencies are what the pack imports: none too many, none too few."""

import ast
import sys
from pathlib import Path

import pytest

from devtools.setup import project_table

ROOT = Path(__file__).resolve().parents[2]
IMPORT_NAMES = {"pillow": "PIL"}
BY_COMFYUI = {
    *("comfy", "comfy_api", "comfy_execution", "comfy_extras", "comfy_kitchen"),
    *("folder_paths", "latent_preview", "node_helpers", "nodes"),
    "aiohttp",  # its server
}
# Their absence is met where they are imported: by an error that says what to install, or by another way.
OPTIONAL = {"cv2", "flash_sinkhorn", "av", "psutil", "gguf", "transformers", "ai_edge_litert"}


def imports(folder: str) -> set[str]:
    """Top-level names of all absolute imports in a folder, those inside functions included."""
    modules = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules.add(node.module.split(".")[0])
    return modules - set(sys.stdlib_module_names) - {"vdot_core", "training"}


@pytest.fixture(scope="module")
def required() -> set[str]:
    """Import names of the packages in [project.dependencies]."""
    packages = [line.split(">=")[0] for line in project_table(Path(sys.executable))["dependencies"]]
    return {IMPORT_NAMES.get(package, package) for package in packages}


def test_everything_required_is_imported(required):
    unused = required - imports("vdot_core") - imports("nodes")
    assert not unused, f"nothing imports {sorted(unused)}: remove from pyproject.toml and requirements.txt"


def test_everything_imported_is_required(required):
    used = imports("vdot_core") | imports("nodes")
    missing = used - required - BY_COMFYUI - OPTIONAL
    assert not missing, f"{sorted(missing)} are imported and not in pyproject.toml's dependencies"


def test_no_opencv_is_installed_over_another_packs():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if "opencv" in line.split("#")[0].lower()]
