"""Every package that dev.py installs is pinned, with hashes, and the pins are those of the metadata."""

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from devtools import pins
from devtools.comfyui import VERSION, find_comfyui, version_of
from devtools.paths import ROOT
from devtools.setup import project_table

FILES = sorted(pins.FOLDER.glob("*.txt"))
PLATFORMS = {"linux": ("Linux", "x86_64"), "darwin": ("Darwin", "arm64"), "win32": ("Windows", "AMD64")}
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def environments():
    for python in PYTHONS:
        for platform, (system, machine) in PLATFORMS.items():
            yield {
                "python_version": python,
                "python_full_version": f"{python}.1",
                "sys_platform": platform,
                "platform_system": system,
                "platform_machine": machine,
                "implementation_name": "cpython",
                "platform_python_implementation": "CPython",
            }


def versions(path: Path, environment: dict[str, str]) -> dict[str, str]:
    """The version of each package that a file pins for one Python and platform."""
    pinned: dict[str, str] = {}
    for line in pins.pinned_lines(path):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = normalized(requirement.name)
            assert name not in pinned, f"{path.name} pins {name} twice for {environment}"
            pinned[name] = str(requirement.specifier).removeprefix("==")
    return pinned


@pytest.fixture(scope="module")
def expected() -> list[pins.Pins]:
    comfyui = find_comfyui()
    if comfyui is None or version_of(comfyui) != VERSION:
        pytest.skip("needs the ComfyUI that dev.py installs")
    return pins.all_pins(project_table(Path(sys.executable)), comfyui)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_package_has_a_version_and_hashes(path):
    entries = re.split(r"\n(?=\S)", path.read_text(encoding="utf-8"))
    entries = [entry for entry in entries if not entry.startswith("#")]
    assert entries
    for entry in entries:
        assert re.match(r"[\w.\[\]-]+==\S+( ; .*)? \\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n?)+$", entry), (
            entry
        )


def test_one_pin_answers_every_requirement_on_every_python_and_platform(expected):
    """Pinned versions meet the requirements; the command in the message renews them."""
    assert sorted(listed.path for listed in expected) == FILES
    for listed in expected:
        pythons = ("3.10",) if listed.path == pins.FLOOR else PYTHONS
        for environment in environments():
            if environment["python_version"] not in pythons:
                continue
            pinned = versions(listed.path, environment)
            if listed.layer:
                pinned = {**versions(pins.FULL, environment), **pinned}
            for line in listed.requirements:
                requirement = Requirement(line)
                version = pinned.get(normalized(requirement.name))
                assert version and requirement.specifier.contains(version, prereleases=True), (
                    f"{listed.path.name} pins {requirement.name} at {version}, {line} is required: "
                    f"{pins.COMMAND} writes it again"
                )


def test_a_layer_has_nothing_of_what_is_below_it(expected):
    full = pins.pinned_names(pins.FULL)
    for listed in expected:
        if listed.layer:
            assert not pins.pinned_names(listed.path) & full, listed.path.name


def test_torch_is_one_family(expected):
    lines = pins.pinned_lines(pins.FULL)
    assert set(pins.TORCH_FAMILY) <= set(lines)


def test_the_floor_is_what_the_metadata_promises():
    project = project_table(Path(sys.executable))
    floor = versions(pins.FLOOR, next(environments()))
    for line in project["dependencies"]:
        if ">=" in line:
            name, lowest = line.split(">=")
            assert floor[name].split(".")[: len(lowest.split("."))] == lowest.split("."), line
    assert project["requires-python"] == f">={pins.OLDEST_PYTHON}"


def test_the_pins_are_written_from_what_the_metadata_says(tmp_path, monkeypatch):
    """uv's own run, on what needs no network: a file that is up to date stays as it is."""
    command = pins.compile_command(
        Path(sys.executable), pins.Pins(tmp_path / "x.txt", [], layer=True), upgrade=True
    )
    assert {"--universal", "--generate-hashes", "--upgrade"} <= set(command)
    assert "--no-emit-package=torch" in command and str(pins.FULL) in command
    assert ROOT / "devtools" / "pinned" / "full.txt" == pins.FULL
