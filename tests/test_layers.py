"""The layers nodes -> vdot_core <- training <- tiny by import-linter; and that check, on broken trees."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

BROKEN = {
    "vdot_core imports nodes": ("vdot_core/bad.py", "from ..nodes import load\n"),
    "vdot_core imports training, inside a function": (
        "vdot_core/bad.py",
        "def f():\n    import training.a\n",
    ),
    "vdot_core imports ComfyUI": ("vdot_core/bad.py", "import comfy.ops\n"),
    "vdot_core imports itself by name": ("vdot_core/bad.py", "from vdot_core.a import x\n"),
    "vdot_core imports torch.distributed": ("vdot_core/bad.py", "from torch import distributed\n"),
    "vdot_core uses torch.distributed": ("vdot_core/bad.py", "import torch\ntorch.distributed.get_rank()\n"),
    "nodes import torch.distributed": ("nodes/bad.py", "import torch.distributed.fsdp as fsdp\n"),
    "nodes outside of the adapters import ComfyUI's insides": (
        "nodes/bad.py",
        "def f():\n    import comfy.sd\n",
    ),
    "nodes outside of the adapters import ComfyUI's folders": (
        "nodes/bad.py",
        "from folder_paths import get_full_path\n",
    ),
    "nodes import training": ("nodes/bad.py", "from ..training import a\n"),
    "tiny imports torch.distributed": ("tiny/bad.py", "import torch.distributed as dist\n"),
    "nodes import tiny": ("nodes/bad.py", "from ..tiny import a\n"),
    "nodes import tiny by name": ("nodes/bad.py", "import tiny.a\n"),
    "vdot_core imports tiny": ("vdot_core/bad.py", "from ..tiny import a\n"),
    "vdot_core imports tiny by name, inside a function": (
        "vdot_core/bad.py",
        "def f():\n    from tiny import a\n",
    ),
    "training imports tiny": ("training/bad.py", "from ..tiny import a\n"),
    "training imports tiny by name, inside a function": (
        "training/bad.py",
        "def f():\n    from tiny.a import x\n",
    ),
    "tiny imports ComfyUI": ("tiny/bad.py", "import comfy.sd\n"),
    "tiny imports nodes": ("tiny/bad.py", "from ..nodes import load\n"),
    "nodes import vdot_core by name": ("nodes/bad.py", "import vdot_core\n"),
    "training imports ComfyUI": ("training/bad.py", "import folder_paths\n"),
    "training imports nodes": ("training/bad.py", "from ..nodes import load\n"),
}
ALLOWED = {
    "nodes/good.py": "from comfy_api.latest import io\nfrom ..vdot_core import a\n",
    "nodes/comfy_good.py": "import comfy.sd\nimport nodes\nfrom ..vdot_core import a\n",
    "training/good.py": "import torch.distributed as dist\nfrom vdot_core.a import x\n",
    "tiny/good.py": "import torch\nfrom training.a import x\nfrom vdot_core.a import x as y\n",
    "vdot_core/good.py": "import torch\nfrom .a import x\nfrom torch.nn import functional\n",
}


def check(root: Path) -> subprocess.CompletedProcess:
    """Run the check in a separate process: import-linter changes the import system."""
    code = (
        "import sys, pathlib; from devtools.layers import check\nfound = check(pathlib.Path(sys.argv[1]))\n"
    )
    code += "print('\\n'.join(found)); sys.exit(bool(found))"
    return subprocess.run(
        [sys.executable, "-c", code, str(root)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def tree(tmp_path) -> Path:
    """A small repository of the same shape, with only allowed imports."""
    for layer in ("nodes", "vdot_core", "training", "tiny"):
        (tmp_path / layer).mkdir()
        (tmp_path / layer / "__init__.py").touch()
        (tmp_path / layer / "a.py").write_text("x = 1\n")
    (tmp_path / "nodes" / "load.py").touch()
    (tmp_path / "__init__.py").write_text("")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name, text in ALLOWED.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_this_repository_keeps_its_layers():
    result = check(ROOT)
    assert result.returncode == 0, result.stdout


def test_what_is_allowed_passes(tree):
    result = check(tree)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_not_allowed_is_found(tree, case):
    name, text = BROKEN[case]
    (tree / name).write_text(text)
    result = check(tree)
    assert result.returncode == 1, result.stdout
    assert "Traceback" not in result.stdout
