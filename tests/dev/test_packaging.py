"""Published metadata is consistent: dependencies, the wheel, the pinned tools, the license."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from devtools.paths import ROOT
from devtools.pins import requirement_lines
from devtools.setup import READ_PROJECT, project_table

BY_COMFYUI = {"torch", "torchvision"}


@pytest.fixture(scope="module")
def project() -> dict:
    return project_table(Path(sys.executable))


def name_of(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9._-]+", requirement).group().lower()


def test_the_manager_never_touches_torch_and_otherwise_installs_the_same(project):
    listed = requirement_lines(ROOT / "requirements.txt")
    assert not {name_of(line) for line in listed} & (BY_COMFYUI | {"torchaudio"})
    assert sorted(listed) == sorted(d for d in project["dependencies"] if name_of(d) not in BY_COMFYUI)


def test_pre_commit_runs_the_same_ruff(project):
    (ruff,) = (d for d in project["optional-dependencies"]["dev"] if d.startswith("ruff"))
    config = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"ruff==[\d.]+", config)) == {ruff}


def test_the_lint_passes_in_a_clone_of_the_usual_name(tmp_path):
    """The repository is itself a package, whose name is that of its folder: ComfyUI-VDOT."""
    root = tmp_path / "ComfyUI-VDOT"
    for name in ("pyproject.toml", "__init__.py", "nodes/__init__.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "."]
    run = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True)
    assert run.returncode == 0, run.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel of a copy of the repository, since building leaves files next to the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("vdot_core", "training", "tiny", "nodes", "devtools", "tests/support"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "__init__.py", "dev.py"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    command += ["-w", str(folder), str(source)]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert run.returncode == 0, run.stdout
    (path,) = folder.glob("vdot-*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_has_the_library_alone_and_all_of_it(wheel):
    """Nodes run inside ComfyUI, training and tiny from a clone; others may have a `training`."""
    names = wheel.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"vdot_core"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    files = (path for path in (ROOT / "vdot_core").rglob("*") if path.is_file())
    sources = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert sources == {name for name in names if ".dist-info/" not in name}
    assert "vdot_core/py.typed" in names


def test_what_is_in_the_wheel_works(wheel):
    """Imported from the wheel itself, away from the repository."""
    code = "import sys; sys.path.insert(0, sys.argv[1])\n"
    code += "import vdot_core.checkpoints, vdot_core.vcu, vdot_core.distill\n"
    code += "from vdot_core.networks import WanVace, vdot_tiny\nprint(len(WanVace(vdot_tiny()).state_dict()))"
    command = [sys.executable, "-I", "-c", code, wheel.filename]
    run = subprocess.run(command, cwd=Path(wheel.filename).parent, capture_output=True, text=True)
    assert run.returncode == 0 and int(run.stdout) > 100, run.stderr


def test_every_classifier_is_known_to_pypi(project):
    classifiers = pytest.importorskip("trove_classifiers").classifiers
    assert not set(project["classifiers"]) - classifiers


def test_no_classifier_is_refused_by_the_registry(project):
    """It knows accelerators by name alone, and systems by these first words."""
    systems = [c for c in project["classifiers"] if c.startswith("Operating System :: ")]
    allowed = ("Microsoft", "POSIX", "MacOS", "OS Independent")
    assert systems and all(c.split(" :: ", 1)[1].startswith(allowed) for c in systems)
    accelerators = [
        c for c in project["classifiers"] if c.startswith(("Environment :: GPU", "Environment :: NPU"))
    ]
    assert accelerators == ["Environment :: GPU :: NVIDIA CUDA"]


def test_the_registry_finds_what_it_needs():
    read = READ_PROJECT.replace('["project"]', '["tool"]["comfy"]')
    command = [sys.executable, "-c", read, str(ROOT / "pyproject.toml")]
    comfy = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert comfy["PublisherId"] and comfy["DisplayName"] and comfy["Icon"].startswith("https://")
    assert re.fullmatch(r">=\d+\.\d+\.\d+", comfy["requires-comfyui"])
    assert "web" not in comfy, "WEB_DIRECTORY in __init__.py serves the scripts already"


def test_the_license_is_the_complete_apache_2(project):
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert project["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in text and "APPENDIX" in text and len(text) > 11_000


def test_the_changelog_knows_the_version(project):
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in text or f"## [{project['version']}]" in text
