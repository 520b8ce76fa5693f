"""A run's JSON files: written in one step, and refused in words where they are damaged."""

import pytest

from training.engine.files import read_json, write_json


@pytest.mark.parametrize("value", [{"a": [1, None]}, ["python", "x.py"], "digest"])
def test_a_file_is_read_back(tmp_path, value):
    write_json(value, tmp_path / "a" / "state.json")
    assert read_json(tmp_path / "a" / "state.json", type(value), "remove it") == value


DIGITS = b'{"a": ' + b"9" * 9999 + b"}"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"5", b"[" * 100_000, b"\xff", DIGITS])
def test_a_damaged_file_is_refused_with_a_cure(tmp_path, text):
    (tmp_path / "state.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"state\.json is damaged \(.*\); remove it$") as error:
        read_json(tmp_path / "state.json", dict, "remove it")
    assert str(error.value).isprintable() and len(str(error.value)) < 400
    with pytest.raises(ValueError, match=r"missing\.json is damaged"):
        read_json(tmp_path / "missing.json", dict, "remove it")
