"""Several dev.py at once, killed or not: real processes, and a small package in place of gigabytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from devtools import lock
from devtools.errors import DevError
from devtools.lock import LOCK, locked
from devtools.paths import ROOT, python_of
from devtools.venv import INSTALLING, MARKER, STAMP
from tests.support.packages import Index, installed_uv, make_wheel, pin

# The floor's set-up is the full one without ComfyUI.
SET_UP = """
import sys
from pathlib import Path
from devtools import installer, setup
setup.FLOOR, installer.UV = map(Path, sys.argv[1:])
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
def place(tmp_path) -> Path:
    """A folder whose path has spaces and letters of several scripts."""
    folder = tmp_path / "mein Ordner für 視頻"
    folder.mkdir()
    return folder


@pytest.fixture
def index(place, monkeypatch):
    """A package index that holds back the package's file, so that a test decides how long it takes."""
    wheel = make_wheel(place / "wheels", "tiny", "1.0")
    (place / "pins.txt").write_text(pin(wheel))
    uv = installed_uv(place / "wheels")  # without it pip installs
    (place / "uv.txt").write_text(pin(uv) if uv else f"uv==1 --hash=sha256:{'0' * 64}\n")
    running = Index(place / "wheels")
    running.start()
    monkeypatch.setenv("VDOT_VENV", str(place / "venv"))
    monkeypatch.setenv("UV_CACHE_DIR", str(place / "cache"))
    monkeypatch.setenv("PIP_INDEX_URL", running.url)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    yield running
    running.close()


def start(folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-u", "-c", SET_UP, str(folder / "pins.txt"), str(folder / "uv.txt")]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_until(condition, process: subprocess.Popen, seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def line_with(process: subprocess.Popen, words: str) -> str:
    return next((line for line in process.stdout if words in line), "")


def complete(folder: Path) -> bool:
    venv = folder / "venv-floor"
    check = [str(python_of(venv)), "-c", "import tiny; assert tiny.version == '1.0'"]
    return (
        (venv / STAMP).exists()
        and (venv / MARKER).exists()
        and not (venv / INSTALLING).exists()
        and subprocess.run(check, cwd=venv).returncode == 0
    )


def test_the_second_waits_for_the_first_and_uses_what_it_made(place, index):
    first = start(place)
    wait_until(lambda: index.downloads, first)
    second = start(place)
    assert f"(process {first.pid} on " in line_with(second, "another dev.py is setting up")
    assert second.poll() is None
    index.go.set()
    output = [process.communicate(timeout=6000)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), output
    assert set(index.downloads) == {"tiny-1.0-py3-none-any.whl"} and complete(place)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL and inherited locks")
def test_after_a_kill_the_next_waits_for_its_installer_and_repairs(place, index):
    """The uv or pip of a killed run still installs: what it fills must not be deleted under it."""
    (place / "venv-floor").mkdir()
    first = start(place)
    wait_until(lambda: index.downloads, first)
    (place / "venv-floor" / "thesis.txt").write_text("years of work")
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = start(place)
    assert line_with(second, "waiting for it")
    index.go.set()
    output = second.communicate(timeout=6000)[0]
    assert second.returncode == 0 and "cut off; making it again" in output
    assert complete(place)
    assert (place / "venv-floor" / "thesis.txt").exists()


@pytest.mark.skipif(os.name == "nt", reason="needs SIGTERM")
def test_an_interrupted_run_ends_its_installer(place, index):
    first = start(place)
    wait_until(lambda: index.downloads, first)
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=600)
    index.go.set()
    with locked(place / "venv-floor", "VDOT_VENV", pytest.fail):
        pass


def test_a_lock_is_for_one_at_a_time_and_its_file_may_be_deleted(tmp_path):
    output = []
    with locked(tmp_path / "a", "VDOT_VENV", output.append):
        command = [sys.executable, "-u", "-c", TAKE_THE_LOCK, str(tmp_path / "a")]
        other = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert "waiting" in other.stdout.readline()
    assert other.communicate(timeout=600)[0] == "mine\n"
    with locked(tmp_path / "a", "VDOT_VENV", output.append):
        pass
    assert not output and (tmp_path / "a" / LOCK).read_text().startswith("process ")


@pytest.mark.skipif(os.name == "nt", reason="needs links and pipes")
@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "pipe", "folder", "other file"])
def test_what_is_no_lock_is_neither_followed_nor_overwritten(tmp_path, kind):
    thesis, path = tmp_path / "thesis.txt", tmp_path / "venv" / LOCK
    thesis.write_text("years of work")
    path.parent.mkdir()
    {
        "link": lambda: path.symlink_to(thesis),
        "dangling link": lambda: path.symlink_to(tmp_path / "nothing"),
        "hard link": lambda: os.link(thesis, path),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "other file": lambda: path.write_bytes(b"process \xff"),
    }[kind]()
    with pytest.raises(DevError, match=r"vdot\.lock is not a lock that dev\.py wrote: move it away"):
        with locked(path.parent, "VDOT_VENV", pytest.fail):
            pass
    assert thesis.read_text() == "years of work" and not (tmp_path / "nothing").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_the_holder_is_shown_without_its_escapes(tmp_path, monkeypatch):
    (tmp_path / LOCK).write_bytes(b"process 1 on \x1b[31m\xff" + b"x" * 900)
    lines = []

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(lock, "_try_lock", lambda file: False)
    monkeypatch.setattr(lock.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt), locked(tmp_path, "VDOT_VENV", lines.append):
        pass
    assert lines[0].isprintable() and r"\x1b[31m" in lines[0] and len(lines[0]) < 400


def test_a_folder_that_cannot_be_made_names_the_variable(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DevError, match=r"cannot write to .*file/venv .*set VDOT_VENV"):
        with locked(tmp_path / "file" / "venv", "VDOT_VENV", print):
            pass
