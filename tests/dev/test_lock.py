"""Several dev.py at once, killed or not: real processes, and a small package in place of gigabytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from devtools.errors import DevError
from devtools.lock import LOCK, locked
from devtools.paths import ROOT, python_of
from devtools.venv import INSTALLING, MARKER, STAMP

# Builds the package when `go` exists, so that a test decides how long the installation takes.
BACKEND = """
import time, zipfile
from pathlib import Path

def build_wheel(folder, config_settings=None, metadata_directory=None):
    here = Path.cwd()
    with open(here / "builds", "a") as builds:
        builds.write("x")
    deadline = time.monotonic() + 60
    while not (here / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(Path(folder, "tiny-1.0-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("tiny.py", "version = 1\\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        names = [*wheel.namelist(), f"{info}/RECORD"]
        wheel.writestr(f"{info}/RECORD", "".join(f"{name},,\\n" for name in names))
    return "tiny-1.0-py3-none-any.whl"
"""
# The floor's set-up is the whole way without ComfyUI.
SET_UP = """
import sys
from pathlib import Path
from devtools import setup
source = Path(sys.argv[1])
setup.project_table = lambda python: {"dependencies": [f"tiny @ {source.as_uri()}"]}
setup.FLOOR_TOOLS = ()
setup.ROOT = source
setup.find_python = lambda version: sys.executable
setup.set_up_floor()
"""

TAKE_THE_LOCK = """
import sys
from pathlib import Path
from devtools.lock import locked
with locked(Path(sys.argv[1]), "VDOT_VENV", print): print("mine")
"""


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    """The package's source, next to which the environment is made."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "own.py").write_text(BACKEND)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n'
    )
    (folder / "constraints-floor.txt").write_text("tiny==1.0\n")
    monkeypatch.setenv("VDOT_VENV", str(tmp_path / "venv"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def start(source: Path) -> subprocess.Popen:
    command = [sys.executable, "-u", "-c", SET_UP, str(source)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_until(condition, process: subprocess.Popen, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def line_with(process: subprocess.Popen, words: str) -> str:
    return next((line for line in process.stdout if words in line), "")


def complete(source: Path) -> bool:
    venv = source.parent / "venv-floor"
    check = [str(python_of(venv)), "-c", "import tiny; assert tiny.version == 1"]
    return (
        (venv / STAMP).exists()
        and (venv / MARKER).exists()
        and not (venv / INSTALLING).exists()
        and subprocess.run(check, cwd=venv).returncode == 0
    )


def test_the_second_waits_for_the_first_and_uses_what_it_made(source):
    first = start(source)
    wait_until((source / "builds").exists, first)
    second = start(source)
    assert f"(process {first.pid} on " in line_with(second, "another dev.py is setting up")
    assert second.poll() is None
    (source / "go").touch()
    said = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), said
    assert (source / "builds").read_text() == "x" and complete(source)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL and inherited locks")
def test_after_a_kill_the_next_waits_for_its_pip_and_repairs(source):
    """The pip of a killed run goes on installing: to delete what it fills would leave half an environment."""
    (source.parent / "venv-floor").mkdir()
    first = start(source)
    wait_until((source / "builds").exists, first)
    (source.parent / "venv-floor" / "thesis.txt").write_text("years of work")
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = start(source)
    assert line_with(second, "waiting for it")
    (source / "go").touch()
    said = second.communicate(timeout=120)[0]
    assert second.returncode == 0 and "cut off; making it again" in said
    assert (source / "builds").read_text() == "xx" and complete(source)
    assert (source.parent / "venv-floor" / "thesis.txt").exists()


@pytest.mark.skipif(os.name == "nt", reason="needs SIGTERM")
def test_a_terminated_run_ends_its_pip(source):
    first = start(source)
    wait_until((source / "builds").exists, first)
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    (source / "go").touch()
    with locked(source.parent / "venv-floor", "VDOT_VENV", pytest.fail):
        pass


def test_a_lock_is_for_one_at_a_time_and_its_file_may_be_deleted(tmp_path):
    said = []
    with locked(tmp_path / "a", "VDOT_VENV", said.append):
        command = [sys.executable, "-u", "-c", TAKE_THE_LOCK, str(tmp_path / "a")]
        other = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert "waiting" in other.stdout.readline()
    assert other.communicate(timeout=60)[0] == "mine\n"
    with locked(tmp_path / "a", "VDOT_VENV", said.append):
        pass
    assert not said and (tmp_path / "a" / LOCK).read_text().startswith("process ")


def test_a_folder_that_cannot_be_made_names_the_variable(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DevError, match=r"cannot write to .*file/venv .*set VDOT_VENV"):
        with locked(tmp_path / "file" / "venv", "VDOT_VENV", print):
            pass
