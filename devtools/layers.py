"""Checks the four layers, nodes -> vdot_core <- training <- tiny.

Run as `python -m devtools.layers` in the repository's root.

import-linter wants packages by name, and this repository is itself one (ComfyUI imports its root), under any
folder name. So it is made importable here as `vdot_pack`, and the contracts in
pyproject.toml speak of `vdot_pack.nodes` and its siblings: relative imports then resolve as they do inside
ComfyUI.
"""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path

from devtools.paths import ROOT

PACK = "vdot_pack"
INSIDES = {"comfy", "comfy_execution", "comfy_extras", "execution", "folder_paths", "latent_preview"}
INSIDES |= {"node_helpers", "nodes", "server"}


class PackFinder(MetaPathFinder):
    """Finds the repository's root as the package `vdot_pack`."""

    def __init__(self, root: Path):
        self._root = root

    def find_spec(self, fullname, path=None, target=None):
        if fullname != PACK:
            return None
        where = [str(self._root)]
        return importlib.util.spec_from_file_location(
            PACK, self._root / "__init__.py", submodule_search_locations=where
        )


def distributed_users(folder: Path) -> Iterator[str]:
    """Places in a folder that name torch.distributed; import-linter sees only top-level external packages.

    Yields:
        `file:line` of each import of it, and of each attribute chain torch.distributed.
    """
    for path, line, names in _named(folder):
        if any(name == "torch.distributed" or name.startswith("torch.distributed.") for name in names):
            yield f"{path.relative_to(folder.parent).as_posix()}:{line}"


def comfy_users(folder: Path) -> Iterator[str]:
    """Places in `nodes` that import ComfyUI's insides though their file is no adapter, `comfy_*.py`.

    Yields:
        `file:line`; nodes may import comfy_api, which is ComfyUI's public interface.
    """
    for path, line, names in _named(folder, attributes=False):
        if not path.name.startswith("comfy_") and any(name.split(".")[0] in INSIDES for name in names):
            yield f"{path.relative_to(folder.parent).as_posix()}:{line}"


def _named(folder: Path, *, attributes: bool = True) -> Iterator[tuple[Path, int, list[str]]]:
    """File, line and dotted names of each absolute import in a folder, and of each attribute of a name."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.Import):
                yield path, node.lineno, [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                yield path, node.lineno, [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
            elif attributes and isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                yield path, node.lineno, [f"{node.value.id}.{node.attr}"]


def check(root: Path = ROOT, config: Path | None = None) -> list[str]:
    """Check every contract.

    Args:
        root: a repository with the project's layout.
        config: file with [tool.importlinter]; the repository's pyproject.toml if None.

    Returns:
        One line for each broken contract; empty when all hold. import-linter prints its own report.
    """
    from importlinter.cli import lint_imports

    finder = PackFinder(root)
    sys.meta_path.insert(0, finder)
    try:
        code = lint_imports(
            config_filename=str(config or root / "pyproject.toml"), no_cache=True, no_logo=True
        )
    finally:
        sys.meta_path.remove(finder)
    problems = ["a layer imports what it must not (see the report above)"] if code else []
    for layer in ("nodes", "vdot_core", "tiny"):
        problems += [
            f"{place}: only training may use torch.distributed" for place in distributed_users(root / layer)
        ]
    problems += [f"{place}: only nodes/comfy_*.py may import this" for place in comfy_users(root / "nodes")]
    return problems


def main() -> int:
    """Print broken contracts; exit status 1 if there are any."""
    problems = check()
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
