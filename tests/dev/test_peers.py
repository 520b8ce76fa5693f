"""The benchmarks' own environment: made only when asked for, and on top of the full one."""

import sys
import sysconfig
from pathlib import Path

import pytest

from devtools import cli, commands, setup
from devtools.paths import ROOT
from devtools.venv import STAMP


@pytest.fixture
def beside(tmp_path, monkeypatch):
    monkeypatch.setenv("VDOT_VENV", str(tmp_path / "venv"))
    return tmp_path / "venv-bench"


def test_without_being_asked_nothing_is_made(beside):
    assert setup.layer_of(Path(sys.executable), "bench", install_it=False) == Path(sys.executable)
    assert not beside.exists()


def test_it_sees_the_full_environment_and_installs_its_own_pins(beside, monkeypatch):
    calls = []

    def install(venv, pins, tell, lock):
        calls.append(pins)
        (venv / STAMP).write_text("{}")

    monkeypatch.setattr(setup, "install", install)
    python = setup.layer_of(Path(sys.executable), "bench", install_it=True, tell=lambda line: None)
    assert calls == [ROOT / "devtools" / "pinned" / "bench.txt"]
    link = next(beside.rglob("vdot.pth"))
    assert link.read_text().strip() == sysconfig.get_path("purelib")
    assert setup.layer_of(Path(sys.executable), "bench", install_it=False) == python


def test_the_option_is_for_dev_and_the_rest_for_the_benchmark(monkeypatch):
    calls = []
    environment = setup.Environment(Path("full"), Path("comfyui"), 0.0)
    monkeypatch.setattr(commands, "set_up", lambda: environment)
    monkeypatch.setattr(
        commands, "layer_of", lambda python, name, install_it: calls.append((name, install_it)) or python
    )
    monkeypatch.setattr(commands, "run", lambda command, variables: calls.append(command[2:]) or 0)
    assert cli.main(["bench", "transport", "--install-peers", "--rounds", "1"]) == 0
    assert cli.main(["bench", "network", "--repeats", "1"]) == 0
    assert calls == [("bench", True), ["--rounds", "1"], ["--repeats", "1"]]
