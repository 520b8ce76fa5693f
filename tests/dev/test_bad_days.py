"""Broken paths, disks and networks end in one sentence that says what to do, and nothing is lost."""

import errno
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from devtools import cli, comfyui, commands, lock
from devtools import installer as installers
from devtools import venv as environments
from devtools.errors import DevError
from devtools.install import install
from devtools.paths import ROOT, cache_dir, path_from, python_of
from devtools.pins import requirement_lines
from devtools.setup import set_up
from tests.support.packages import installed_uv, make_wheel, pin

SMALL_DISK_MIB = 96


@pytest.fixture
def small_disk(tmp_path) -> Path:
    """A separate disk that is full after some megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MIB}m", "vdot-test", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small disk needs root on Linux")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def wheels(tmp_path, monkeypatch) -> Path:
    """A folder of wheels in place of a package index."""
    folder = tmp_path / "wheels"
    make_wheel(folder, "tiny", "1.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


@pytest.mark.parametrize("program", ["uv", pytest.param("pip", marks=pytest.mark.full)])
def test_a_full_disk_is_a_sentence_and_the_next_run_succeeds(small_disk, wheels, monkeypatch, program):
    uv = installed_uv(wheels) if program == "uv" else None
    if program == "uv" and uv is None:
        pytest.skip("this environment has no uv")
    (wheels / "uv.txt").write_text(pin(uv) if uv else f"uv==1 --hash=sha256:{'0' * 64}\n")
    monkeypatch.setattr(installers, "UV", wheels / "uv.txt")
    pins = wheels / "pins.txt"
    pins.write_text(pin(make_wheel(wheels, "large", "1.0", num_bytes=SMALL_DISK_MIB << 20)))
    venv = small_disk / "venv"
    environments.create_venv(venv, 0, lambda line: None)
    (venv / "thesis.txt").write_text("years of work")
    with pytest.raises(DevError, match=rf"(?s){program} failed:.*the disk is full: make room"):
        install(venv, pins, lambda line: None)
    pins.write_text(pin(wheels / "tiny-1.0-py3-none-any.whl"))
    environments.create_venv(venv, 0, lambda line: None)
    assert install(venv, pins, lambda line: None) is True
    check = [str(python_of(venv)), "-c", "import tiny; print(tiny.version)"]
    assert subprocess.run(check, capture_output=True, text=True, cwd=venv).stdout == "1.0\n"
    assert (venv / "thesis.txt").read_text() == "years of work"


def test_without_a_network_it_says_so_at_once(tmp_path, monkeypatch):
    """pip looks for uv first: what cannot be reached then is not tried again without uv."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "1")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    pins = tmp_path / "pins.txt"
    pins.write_text(f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
    environments.create_venv(tmp_path / "venv", 0, lambda line: None)
    output, begin = [], time.monotonic()
    with pytest.raises(DevError, match="package index cannot be reached: check the network"):
        install(tmp_path / "venv", pins, output.append)
    assert time.monotonic() - begin < 240 and len(output) == 1
    assert not (tmp_path / "venv" / environments.INSTALLING).exists()


def test_relative_paths_are_those_of_the_folder_where_the_command_was_given(tmp_path, monkeypatch):
    """Programs are run in the repository's root, where the same words would name another folder."""
    folders = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "lint", lambda arguments: folders.update(os.environ) or 0)
    for name in ("VDOT_VENV", "VDOT_CACHE", "COMFYUI_PATH"):
        monkeypatch.setenv(name, f"my {name}/ü")
    assert cli.main(["lint"]) == 0
    for name in ("VDOT_VENV", "VDOT_CACHE", "COMFYUI_PATH"):
        assert folders[name] == str(tmp_path / f"my {name}" / "ü")
    monkeypatch.setenv("VDOT_CACHE", "~/somewhere")
    monkeypatch.setenv("COMFYUI_PATH", "")
    cli.main(["lint"])
    assert (os.environ["VDOT_CACHE"], os.environ["COMFYUI_PATH"]) == ("~/somewhere", "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize(
    ("name", "reason"), [("\udcff\x1b[31m", "is not in UTF-8"), ("x" * 300, "File name too long")]
)
def test_names_that_no_environment_can_have_are_a_sentence(tmp_path, monkeypatch, name, reason):
    for variable in ("VDOT_VENV", "VDOT_CACHE", "COMFYUI_PATH"):
        monkeypatch.setenv(variable, str(tmp_path / name))
        with pytest.raises(DevError, match=rf"{reason}.*: set it to (another folder|a folder of)") as error:
            path_from(variable)
        assert str(error.value).isprintable() and len(str(error.value)) < 400


def test_it_runs_from_any_folder(tmp_path):
    folder = tmp_path / "anders wo ñ"
    folder.mkdir()
    command = [sys.executable, str(ROOT / "dev.py"), "bench"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0 and "transport" in run.stdout
    assert not list(folder.iterdir())
    nonsense = subprocess.run([*command[:2], "nonsense"], cwd=folder, capture_output=True, text=True)
    assert nonsense.returncode == 2 and nonsense.stderr.count("\n") == 1


@pytest.mark.parametrize("place", ["cache", "cache/comfyui-{}", "cache/comfyui-{}/venv"])
def test_the_environment_in_the_caches_place_is_refused(tmp_path, monkeypatch, place):
    """Both have a lock of one name: dev.py would wait for itself."""
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setenv("VDOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VDOT_VENV", str(tmp_path / place.format(comfyui.VERSION)))
    with pytest.raises(DevError, match="is where ComfyUI is cached: set VDOT_VENV or VDOT_CACHE"):
        set_up(tell=pytest.fail)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="the variable is Linux's")
def test_a_relative_xdg_folder_is_ignored_and_no_home_folder_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.delenv("VDOT_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for value, expected in (
        ("relative", ".cache/vdot"),
        ("", ".cache/vdot"),
        (str(tmp_path / "x"), "x/vdot"),
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_dir() == tmp_path / expected

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(DevError, match="no home folder: set VDOT_CACHE"):
        cache_dir()


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the current folder")
def test_a_deleted_current_folder_is_a_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setenv("VDOT_CACHE", "relative")
    assert cli.main(["lint"]) == 1
    assert "which was deleted: change to another one" in capsys.readouterr().err


def test_comments_of_another_encoding_do_not_keep_a_comfyui_from_being_used(tmp_path):
    (tmp_path / "requirements.txt").write_bytes(b"\xef\xbb\xbftorch\n# gr\xf6\xdfe\nav>=1 # \xe9\n")
    assert requirement_lines(tmp_path / "requirements.txt") == ["torch", "av>=1"]


def test_a_complete_environment_on_a_read_only_disk_is_used(tmp_path, monkeypatch):
    def refuse(path, say):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(lock, "_acquire", refuse)
    with lock.locked(tmp_path, "VDOT_VENV", pytest.fail) as file:
        assert file is None
