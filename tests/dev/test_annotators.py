"""Models are taken out of a wheel by hash, and nothing of it is run."""

import hashlib
import json
import sys
import zipfile
from pathlib import Path

import pytest

from devtools import annotators
from devtools.errors import DevError
from devtools.paths import cache_dir

FILES = {"one.tflite": b"one" * 100, "two.tflite": b"two" * 100}


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder instead of PyPI with a wheel of two models, and the list of its hashes."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel = folder / "mediapipe-0.10.21-py3-none-any.whl"
    info = "mediapipe-0.10.21.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in FILES.items():
            archive.writestr(f"mediapipe/{name}", data)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: mediapipe\nVersion: 0.10.21\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    files = {
        name: {"path": f"mediapipe/{name}", "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in FILES.items()
    }
    values = {
        "package": "mediapipe==0.10.21",
        "wheel_sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "license": "Apache-2.0",
        "files": files,
    }
    path = tmp_path / "files.json"
    path.write_text(json.dumps(values))
    monkeypatch.setattr(annotators, "LIST", path)
    monkeypatch.setenv("VDOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    return path


def test_models_are_fetched_once_and_a_damaged_one_again(index):
    lines = []
    target = annotators.ensure_models(Path(sys.executable), lines.append)
    assert {path.name: path.read_bytes() for path in target.glob("*.tflite")} == FILES
    assert [line.startswith("getting one.tflite, two.tflite") for line in lines] == [True, False]
    (target / "two.tflite").write_bytes(b"half")
    lines.clear()
    annotators.ensure_models(Path(sys.executable), lines.append)
    assert (
        lines[0].startswith("getting two.tflite")
        and (target / "two.tflite").read_bytes() == FILES["two.tflite"]
    )
    lines.clear()
    annotators.ensure_models(Path(sys.executable), lines.append)
    assert len(lines) == 1
    assert not list(target.glob(".fetching-*"))


def test_another_wheel_or_file_is_refused(index):
    values = json.loads(index.read_text())
    values["files"]["two.tflite"]["sha256"] = "0" * 64
    index.write_text(json.dumps(values))
    with pytest.raises(DevError, match=r"two\.tflite in .* does not have the pinned SHA-256"):
        annotators.ensure_models(Path(sys.executable), lambda line: None)
    values["wheel_sha256"] = "0" * 64
    index.write_text(json.dumps(values))
    with pytest.raises(DevError, match="pip could not download mediapipe"):
        annotators.ensure_models(Path(sys.executable), lambda line: None)


def test_the_list_is_of_the_files_that_annotators_read():
    from vdot_core.annotators import detectors, matte, pose

    values = json.loads(annotators.LIST.read_text())
    used = {detectors.PERSON, detectors.FACE, pose.LANDMARKS, pose.MESH, matte.SEGMENTATION}
    assert {*values["files"]} == used


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
@pytest.mark.parametrize("variable", [None, "VDOT_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"])
def test_the_library_looks_where_dev_py_puts_them(platform, variable, tmp_path, monkeypatch):
    from vdot_core.annotators.models import model_folder

    monkeypatch.setattr(sys, "platform", platform)
    for name in ("VDOT_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path))
    assert model_folder() == cache_dir() / annotators.FOLDER
