"""Damaged JSON files of dev.py end in one sentence that says what to do."""

import os

import pytest

from devtools import gpu
from devtools.demo import flags
from devtools.demo import options as demo
from devtools.documents import read_json
from devtools.errors import DevError
from tests.dev.test_gpu import measure

DAMAGED = {
    "empty": b"",
    "cut off": b'{"parts": {"machine": {',
    "no text": b"\xff\xfe\x00",
    "a list": b"[]",
    "a number": b"5",
    "endless nesting": b"[" * 100_000,
    "a long number": b'{"a": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_named_with_a_cure(tmp_path, kind):
    path = tmp_path / "state.json"
    path.write_bytes(DAMAGED[kind])
    with pytest.raises(DevError, match=r"state\.json is damaged \(.*\); remove it$"):
        read_json(path, "remove it")


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX pipes")
def test_what_is_no_file_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "missing", "."):
        with pytest.raises(DevError, match="is damaged"):
            read_json(tmp_path / name, "remove it")


@pytest.mark.parametrize("text", [*DAMAGED.values(), b"{}", b'{"parts": []}', b'{"parts": {"machine": 5}}'])
def test_damaged_figures_are_not_overwritten(tmp_path, text):
    figures = gpu.Figures(tmp_path, {"name": None, "torch": "2.11.0", "cuda": None}, "cpu")
    figures.path.write_bytes(text)
    with pytest.raises(DevError, match=r"figures\.json is damaged .*move it away to measure"):
        measure(tmp_path, "machine")
    assert figures.path.read_bytes() == text


@pytest.mark.parametrize("text", [*DAMAGED.values(), b"{}", b'{"nodes": [{}], "links": []}', b'{"nodes": 5}'])
def test_a_damaged_workflow_is_found_before_anything_is_started(tmp_path, monkeypatch, text):
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    monkeypatch.setattr(demo, "WORKFLOWS", tmp_path)
    (tmp_path / "02 Depth to video.json").write_bytes(text)
    cure = r"video\.json is damaged .*restore it: git checkout .02 Depth to video\.json"
    with pytest.raises(DevError, match=cure):
        flags.parse(["--out", str(tmp_path / "out")])
