"""ComfyUI's and our own requirements are enough: nothing else that the tests have is used by accident."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from devtools.paths import ROOT
from devtools.pins import requirement_lines
from tests.support.alone import normalized
from tests.support.shipped import copy_shipped

PROGRAM = ROOT / "tests" / "support" / "alone.py"


def reachable(requirements: Iterable[str]) -> set[str]:
    """Normalized names of what pip installs for requirements, from the metadata of installed packages."""
    names: set[tuple[str, str]] = set()
    waiting = [Requirement(line) for line in requirements]
    while waiting:
        requirement = waiting.pop()
        for extra in ["", *requirement.extras]:
            name = normalized(requirement.name)
            if (name, extra) in names:
                continue
            names.add((name, extra))
            try:
                needed = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:  # of another platform
                continue
            candidates = map(Requirement, needed)
            waiting += [r for r in candidates if r.marker is None or r.marker.evaluate({"extra": extra})]
    return {name for name, _ in names}


def hidden(requirements: Iterable[str]) -> dict[str, list[str]]:
    """The installed modules and distributions that these requirements do not reach."""
    required = reachable(requirements)
    modules = [
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if not required.intersection(map(normalized, owners))
    ]
    installed = {normalized(distribution.name) for distribution in importlib.metadata.distributions()}
    return {"modules": sorted(modules), "distributions": sorted(installed - required)}


@pytest.fixture(scope="module")
def without_the_rest(comfyui, tmp_path_factory) -> Path:
    lines = [
        *requirement_lines(comfyui / "requirements.txt"),
        *requirement_lines(ROOT / "requirements.txt"),
    ]
    values = hidden(lines)
    assert {"pytest", "cv2", "ot", "webdataset", "jsonargparse"} <= set(values["modules"])
    assert not {"torch", "numpy", "comfy_kitchen", "diffusers", "kornia"}.intersection(values["modules"])
    file = tmp_path_factory.mktemp("alone") / "hidden.json"
    file.write_text(json.dumps(values))
    return file


def run(*words: str | Path, program: Path = PROGRAM) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(program), *map(str, words)], capture_output=True, text=True)


def test_every_node_runs_on_comfyuis_and_our_requirements_alone(without_the_rest, comfyui, tmp_path):
    """And on the files alone that the registry ships."""
    from tests.support.pack import load_nodes

    root = copy_shipped(tmp_path / "ComfyUI-VDOT")
    program = root / PROGRAM.relative_to(ROOT)
    program.parent.mkdir(parents=True)
    shutil.copyfile(PROGRAM, program)
    result = run(without_the_rest, "nodes", comfyui, program=program)
    assert result.returncode == 0, result.stderr[-3000:]
    assert set(load_nodes()) <= set(result.stdout.split())


@pytest.mark.parametrize(
    "words",
    [
        ["vdot_core.checkpoints", "inspect", ROOT / "assets" / "vdot_tiny.safetensors"],
        ["vdot_core.vcu", "--help"],
    ],
    ids=["inspect", "vcu"],
)
def test_the_command_lines_run_on_our_requirements_alone(tmp_path, words):
    """Without ComfyUI: the library's own, as `pip install vdot` gives them."""
    file = tmp_path / "hidden.json"
    file.write_text(
        json.dumps(hidden([*requirement_lines(ROOT / "requirements.txt"), "torch", "torchvision"]))
    )
    result = run(file, "module", *words)
    assert result.returncode == 0, result.stderr[-3000:]


def test_a_package_that_is_not_required_is_missing(tmp_path):
    file = tmp_path / "hidden.json"
    file.write_text(json.dumps(hidden(["numpy"])))
    result = run(
        file, "module", "vdot_core.checkpoints", "inspect", ROOT / "assets" / "vdot_tiny.safetensors"
    )
    assert result.returncode == 1 and "No module named 'torch'" in result.stderr
