"""Only listed picture formats are read; Pillow's other readers, one of which starts a program, are unused."""

import ast
import io
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vdot_core.pictures import FORMATS, open_picture, read_picture
from vdot_core.vcu.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("vdot_core", "nodes", "training", "tiny", "devtools", "benchmarks")
EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n"
    b"0 0 16 16 rectfill\nshowpage\n%%Trailer\n%%EOF\n"
)
# First bytes by which Pillow chooses these readers.
OTHERS = {
    "EPS": EPS,
    "WMF": b"\xd7\xcd\xc6\x9a\0\0" + bytes(60),
    "FITS": b"SIMPLE  =                    T" + b" " * 2850,
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(60),
    "GRIB": b"GRIB\0\0\0\1" + bytes(60),
    "BUFR": b"BUFR" + bytes(60),
    "MPEG": b"\0\0\1\xb3\x01\0\x10\0" + bytes(60),
    "ICO": b"\0\0\1\0\1\0" + bytes(60),
}


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A stand-in `gs` in front of all others on PATH, and the file that it writes when it is started."""
    from PIL import EpsImagePlugin

    folder, started = tmp_path / "bin", tmp_path / "started"
    folder.mkdir()
    program = folder / "gs"
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] || echo "$@" >> "{started}"\nexit 0\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # looked up once
    return started


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_the_stand_in_would_be_started(ghostscript):
    with suppress(OSError), Image.open(io.BytesIO(EPS)) as image:
        image.load()
    assert ghostscript.exists()


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_no_program_is_started_for_a_picture(tmp_path, ghostscript, caplog):
    path = tmp_path / "ref.png"
    path.write_bytes(EPS)
    for file in (path, io.BytesIO(EPS)):
        with pytest.raises(OSError, match=r"no picture in PNG, JPEG, .* or JPEG 2000, .*; save it as PNG"):
            read_picture(file)
    assert main(["preview", "--reference", str(path), "--out", str(tmp_path / "out.png")]) == 2
    assert "ref.png cannot be read: it is no picture in PNG" in caplog.text
    assert not ghostscript.exists()


@pytest.mark.parametrize("name", OTHERS)
def test_other_readers_are_not_asked(monkeypatch, name):
    Image.init()
    _, accept = Image.OPEN[name]
    if accept is not None:
        assert accept(OTHERS[name][:16]), "Pillow would choose this reader"

    def fail(*_):
        pytest.fail(f"{name} was asked")

    monkeypatch.setitem(Image.OPEN, name, (fail, accept))
    with pytest.raises(OSError, match="no picture in PNG"), open_picture(io.BytesIO(OTHERS[name])):
        pass


@pytest.mark.parametrize("name", FORMATS)
def test_each_listed_format_is_read(name):
    Image.init()
    if name not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {name}")
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:, 24:] = 255
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, name)
    assert np.abs(read_picture(data).astype(int) - pixels).max() <= 8


def test_a_phones_jpeg_of_two_pictures_is_read():
    data = io.BytesIO()
    first, second = (Image.new("RGB", (16, 16), color) for color in ("white", "black"))
    first.save(data, "MPO", save_all=True, append_images=[second])
    assert read_picture(data).min() >= 250


def test_a_pillow_without_a_format_reads_the_others(monkeypatch):
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    data = io.BytesIO()
    Image.new("RGB", (4, 4)).save(data, "PNG")
    assert read_picture(data).shape == (4, 4, 3)
    with pytest.raises(OSError) as error:
        read_picture(io.BytesIO(EPS))
    assert "AVIF" not in str(error.value) and len(str(error.value)) <= 400


def test_nothing_else_opens_pictures():
    """`Image.open` is called in vdot_core/pictures.py alone, which names the formats."""
    callers = set()
    for path in (file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            is_open = isinstance(node, ast.Attribute) and node.attr == "open"
            if is_open and isinstance(node.value, ast.Name) and node.value.id in ("Image", "PIL"):
                callers.add(path.relative_to(ROOT).as_posix())
    assert callers == {"vdot_core/pictures.py"}
