"""The identity of the drawing code: it changes with what decides what is drawn, and with nothing else."""

import re
import shutil
from pathlib import Path

import pytest

from tiny.clips import digest

FOLDER = Path(digest.__file__).parent


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The digest of a copy of the modules, read anew at each call."""
    for path in FOLDER.glob("*.py"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(digest, "__file__", str(tmp_path / "digest.py"))
    return tmp_path, digest.drawing_digest.__wrapped__


def test_it_is_sixteen_digits_and_the_same_wherever_the_code_lies(copied):
    _, read = copied
    assert re.fullmatch("[0-9a-f]{16}", digest.drawing_digest()) and read() == digest.drawing_digest()


def test_a_change_of_any_module_that_draws_changes_it(copied):
    folder, read = copied
    seen = {read()}
    for name in (
        "objects",
        "captions",
        "backgrounds",
        "sdf",
        "shapes",
        "figure",
        "textures",
        "units",
        "regions",
    ):
        path = folder / f"{name}.py"
        path.write_text(path.read_text().replace("0.", "1.", 1) + "# changed\n")
        seen.add(read())
    assert len(seen) == 10
    (folder / "another.py").write_text("SIZES = {}\n")
    assert read() not in seen, "a new module counts by itself"


def test_what_only_shows_clips_and_line_endings_change_nothing(copied):
    folder, read = copied
    before = read()
    for name in digest.SHOWING:
        (folder / name).write_text("# another\n")
    path = folder / "shapes.py"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read() == before


def test_nothing_that_draws_imports_what_is_left_out():
    left_out = {name.removesuffix(".py") for name in digest.SHOWING} - {"__init__"}
    for path in digest.drawing_sources():
        imported = re.findall(r"^\s*from \.(\w*) import|^\s*from \. import (.*)$", path.read_text(), re.M)
        assert not left_out & {
            name.strip() for pair in imported for names in pair for name in names.split(",")
        }
