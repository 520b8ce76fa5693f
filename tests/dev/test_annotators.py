"""Models are taken out of wheels by hash, and nothing of it is run."""

import hashlib
import json
import subprocess
import sys
import zipfile

import pytest

from devtools.paths import ROOT, cache_dir
from vdot_core.annotators import fetch

WHEELS = {
    "mediapipe": {"one.tflite": b"one" * 100, "two.tflite": b"two" * 100},
    "other": {"three.tflite": b"three" * 100},
}
FILES = {name: data for files in WHEELS.values() for name, data in files.items()}


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder instead of PyPI with two wheels of models, and the list of their hashes."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheels = []
    for package, files in WHEELS.items():
        wheel, info = folder / f"{package}-0.10.21-py3-none-any.whl", f"{package}-0.10.21.dist-info"
        about = f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.10.21\n"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, data in files.items():
                archive.writestr(f"{package}/{name}", data)
            archive.writestr(f"{info}/METADATA", about)
            archive.writestr(
                f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr(f"{info}/RECORD", "")
        listed = {
            name: {"path": f"{package}/{name}", "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
        }
        wheels.append(
            {
                "package": f"{package}==0.10.21",
                "wheel_sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
                "license": "Apache-2.0",
                "files": listed,
            }
        )
    path = tmp_path / "files.json"
    path.write_text(json.dumps({"wheels": wheels}))
    monkeypatch.setattr(fetch, "LIST", path)
    monkeypatch.setenv("VDOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    return path


def test_models_are_fetched_once_and_a_damaged_one_again(index, capsys):
    assert fetch.main() == 0 and fetch.model_folder() == index.parent / "cache" / "annotators"
    target = fetch.model_folder()
    assert {path.name: path.read_bytes() for path in target.glob("*.tflite")} == FILES
    assert capsys.readouterr().out.splitlines() == [
        "took one.tflite, two.tflite out of mediapipe==0.10.21 (Apache-2.0)",
        "took three.tflite out of other==0.10.21 (Apache-2.0)",
        f"3 files of annotators are in {target}",
    ]
    (target / "two.tflite").write_bytes(b"half")
    assert fetch.fetch_models() == {"mediapipe==0.10.21 (Apache-2.0)": ["two.tflite"]}
    assert (target / "two.tflite").read_bytes() == FILES["two.tflite"]
    assert fetch.fetch_models() == {}
    assert [path.name for path in target.iterdir() if path.suffix != ".tflite"] == []


def test_another_wheel_or_file_is_refused(index, capsys):
    values = json.loads(index.read_text())
    (wheel, _) = values["wheels"]
    wheel["files"]["two.tflite"]["sha256"] = "0" * 64
    index.write_text(json.dumps(values))
    assert fetch.main() == 1
    assert (
        "two.tflite in mediapipe-0.10.21-py3-none-any.whl does not have the pinned" in capsys.readouterr().err
    )
    wheel["wheel_sha256"] = "0" * 64
    index.write_text(json.dumps(values))
    with pytest.raises(fetch.FetchError, match=r"pip could not download mediapipe==0\.10\.21: ERROR"):
        fetch.fetch_models()


def test_a_folder_that_cannot_be_made_is_named(index, monkeypatch):
    monkeypatch.setenv("VDOT_CACHE", str(index))
    with pytest.raises(fetch.FetchError, match=r"cannot be written .* set VDOT_CACHE to another folder"):
        fetch.fetch_models()


def test_the_file_runs_with_a_python_that_finds_nothing_of_ours(tmp_path):
    """As the embedded Python of ComfyUI's portable version."""
    program = ROOT / "vdot_core" / "annotators" / "fetch.py"
    code = f"import runpy; print(sorted(runpy.run_path({str(program)!r})['model_files']()))"
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0 and "pose_detection.tflite" in run.stdout, run.stderr


def test_the_list_is_of_the_files_that_annotators_read():
    from training.preparation import niqe
    from vdot_core.annotators import detectors, matte, people, pose

    used = {detectors.PERSON, detectors.FACE, people.LANDMARKS, pose.MESH, matte.SEGMENTATION, niqe.MODEL}
    assert {*fetch.model_files()} == used


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
@pytest.mark.parametrize("variable", [None, "VDOT_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"])
def test_the_library_looks_where_dev_py_puts_them(platform, variable, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    for name in ("VDOT_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path))
    assert fetch.model_folder() == cache_dir() / fetch.FOLDER
