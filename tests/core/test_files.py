"""Only regular files are opened, and a file that is written is complete or not there."""

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.watch import watchdog
from vdot_core import files
from vdot_core.checkpoints import inspect
from vdot_core.files import atomic_write, file_size, open_file, read_file, remove_abandoned, sha256_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def irregular(tmp_path) -> dict[str, Path]:
    """All kinds of non-files, by their name in errors."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link to a pipe").symlink_to(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    return {
        "a pipe": tmp_path / "pipe",
        "but a pipe": tmp_path / "link to a pipe",
        "a device": tmp_path / "device",
        "a socket": tmp_path / "socket",
        "a folder": tmp_path,
        "symbolic links": tmp_path / "loop",
        "No such file": tmp_path / "nothing",
        "null byte": tmp_path / "a\0b",
        "File name too long": tmp_path / ("x" * 300),
    }


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX's kinds of files")
@pytest.mark.parametrize("reader", [file_size, open_file, sha256_of, lambda path: read_file(path, 10)])
def test_what_is_no_file_is_refused_at_once(irregular, reader):
    for kind, path in irregular.items():
        with pytest.raises(ValueError, match=rf"is not a file.*{kind}.*check the path") as error:
            reader(path)
        assert len(str(error.value)) < 400


@pytest.mark.skipif(sys.platform != "linux", reason="the watchdog needs Linux")
def test_a_pipe_that_takes_a_files_place_does_not_block(tmp_path, monkeypatch):
    """Between checking the name and opening it."""
    path, os_open = tmp_path / "x", os.open
    path.write_bytes(b"x")

    def swap(name, flags, *more):
        path.unlink()
        os.mkfifo(path)
        return os_open(name, flags, *more)

    monkeypatch.setattr(os, "open", swap)
    with watchdog(seconds=5), pytest.raises(ValueError, match="a pipe"):
        open_file(path)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file whose first byte cannot be read")
def test_an_error_of_the_disk_names_the_file():
    path = "/proc/self/mem"
    readers = (
        lambda: open_file(path).read(64),
        lambda: open_file(path).read(),
        lambda: open_file(path).readinto(bytearray(1 << 16)),
        lambda: sha256_of(path),
        lambda: inspect(path),
    )
    for read in readers:
        with pytest.raises(ValueError, match=r"/proc/self/mem cannot be read.*; check the disk"):
            read()


def test_files_are_replaced_in_one_place():
    """Folders are exceptions: a checkpoint of several files. devtools may use only the standard library."""
    callers = {
        path.relative_to(ROOT).as_posix()
        for folder in ("vdot_core", "nodes", "training", "tiny", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if "os.replace(" in path.read_text(encoding="utf-8")
    }
    assert callers == {"vdot_core/files.py", "training/engine/checkpoint.py"}


def test_files_are_read_up_to_a_size(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    assert read_file(path, 10) == b"0123456789" and file_size(path) == 10
    assert read_file(path, 1 << 60) == b"0123456789", "memory follows the file's size, not the limit"
    with pytest.raises(ValueError, match="x has 10 bytes, expected at most 9"):
        read_file(path, 9)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("old")
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), atomic_write(path) as partial:
            partial.write_text("half")
            raise error
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "none" / "x"):
        pass
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["x.json"]


def test_a_write_appears_at_its_end_and_is_readable_by_all(tmp_path):
    path = tmp_path / ("x" * 240 + ".safetensors")  # near the limit of a name
    with atomic_write(path) as partial:
        save_file({"a": torch.ones(2)}, partial)
        assert not path.exists() and partial.parent == tmp_path
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    assert torch.equal(load_file(path)["a"], torch.ones(2)) and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("name", ["x" * 240, "視" * 80])
def test_names_near_the_limit_are_written(tmp_path, name):
    """Limits are in bytes, of which a letter can have four."""
    with atomic_write(tmp_path / name) as partial:
        partial.write_text("text")
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("has_links", [True, False])
def test_of_writers_that_may_not_overwrite_one_succeeds(tmp_path, monkeypatch, has_links):
    def no_links(*paths):
        raise PermissionError("this file system has no hard links")

    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "x"
    with pytest.raises(FileExistsError), atomic_write(path, overwrite=False) as late:
        late.write_text("late")
        with atomic_write(path, overwrite=False) as early:
            early.write_text("early")
    assert path.read_text() == "early" and os.listdir(tmp_path) == ["x"]


@pytest.mark.skipif(os.name == "nt", reason="processes cannot be asked for on Windows")
def test_what_killed_writers_left_is_removed(tmp_path):
    path = tmp_path / "x"
    script = """
import os, sys
from pathlib import Path
from vdot_core.files import atomic_write
with atomic_write(Path(sys.argv[1])): os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT).returncode == 9
    (rest,) = os.listdir(tmp_path)
    elsewhere = tmp_path / rest.replace(files._host(), "0" * 8)  # of another machine that shares the folder
    elsewhere.touch()
    with atomic_write(path) as partial:
        remove_abandoned(tmp_path / "y")
        assert (tmp_path / rest).exists()
        remove_abandoned(path)
        assert set(tmp_path.iterdir()) == {partial, elsewhere}


def test_writers_of_one_file_do_not_meet(tmp_path):
    path, barrier = tmp_path / "x", threading.Barrier(4)

    def write(text):
        with atomic_write(path) as partial:
            partial.write_text(text)
            barrier.wait()

    threads = [threading.Thread(target=write, args=[str(n) * 1000]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = path.read_text()
    assert len(text) == 1000 and len(set(text)) == 1 and os.listdir(tmp_path) == ["x"]


def test_the_data_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    """Otherwise a power cut can leave an empty file under the final name."""
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append(os.fstat(fd).st_ino), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append("rename"), replace(a, b)))
    with atomic_write(tmp_path / "x") as partial:
        partial.write_text("text")
    assert steps == [(tmp_path / "x").stat().st_ino, "rename", tmp_path.stat().st_ino]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux alone has a device that is always full")
def test_numpy_s_word_for_a_full_disk_becomes_the_system_s():
    with pytest.raises(OSError, match="requested") as error:
        np.zeros(9999).tofile("/dev/full")
    assert files.reason_of(error.value) == "No space left on device; make room, or give another folder"


@pytest.mark.parametrize("obstacle", ["a folder of that name", "no folder"])
def test_what_cannot_be_written_is_named_as_it_was_asked_for(tmp_path, obstacle):
    """Not by the passing name that it is written under."""
    path = tmp_path / "sub" / "table.md"
    if obstacle == "a folder of that name":
        path.mkdir(parents=True)
    with pytest.raises(OSError) as error, files.atomic_write(path) as partial:
        partial.write_text("a")
    assert error.value.filename == str(path) and error.value.errno
