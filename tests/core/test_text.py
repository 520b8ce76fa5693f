"""Names and values from outside can be shown anywhere."""

from pathlib import Path

import pytest
import torch

from vdot_core.text import MAX_JSON_BYTES, described, listed, parse_json, shown

HOSTILE = [
    "mod\udce8le",
    "a\x1b[2Jb",
    "a\nb\r\x00\x07",
    "\u202egpj.exe",
    "\u2066a\u2069",
    "\ud800",
    "a\u2028b",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_text_is_one_printable_line(value):
    for text in (
        shown(value),
        shown(Path(value.replace("\0", ""))),
        shown(ValueError(value)),
        listed([value]),
    ):
        assert text.isprintable() and text.encode()
    assert shown("mod\udce8le.safetensors") == "mod\\udce8le.safetensors"


def test_ordinary_text_stays_as_it_is():
    for value in ("model 14B.safetensors", "模型/模型.pt", "C:\\models\\vdot.pt", "é", ""):
        assert shown(value) == value
    assert shown(Path("/models/x.pt")) == str(Path("/models/x.pt"))
    assert shown(torch.bfloat16) == "torch.bfloat16" and shown(None) == "None" and shown([1, 2]) == "[1, 2]"


def test_long_and_deep_values_are_short():
    text = shown("start" + "x" * 10**6 + "end.pt")
    assert len(text) <= 300 and text.startswith("start") and text.endswith("end.pt") and "..." in text
    nested = ()
    for _ in range(40):
        nested = (nested, nested)  # 2**40 parts when printed
    for value in (nested, 10**6000, {"a" * 10**6: 1}, ["[" * 10**6], b"x" * 10**6):
        assert len(shown(value)) <= 300
    assert listed(range(12), 3) == "0, 1, 2 and 9 more"


def test_json_from_outside():
    assert parse_json('{"a": [1, 2.5, "x", null, true], "seed": 18446744073709551615}') == {
        "a": [1, 2.5, "x", None, True],
        "seed": 2**64 - 1,
    }
    assert parse_json(b'"\xc3\xa9"') == "é"
    assert parse_json("[NaN]", allow_nan=True)[0] != 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("9" * 400, "a number of 400 digits"),
        ("9" * 100_000, "a number of 100000 digits"),
        ("1e999", "the number 1e999, expected a finite one"),
        ("-" + "9" * 400 + ".5", "expected a finite one"),
        ("NaN", "the number NaN"),
        ("[-Infinity]", "the number -Infinity"),
        (b"\xff", "codec can't decode"),
        (b"\xff\xfe[\x00", "codec can't decode"),
        ("", "Expecting value"),
        ("x" * 100, "Expecting value"),
        (" " * (MAX_JSON_BYTES + 1), "expected at most 8000000"),
    ],
    ids=lambda value: str(value[:12]),
)
def test_json_that_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason) as error:
        parse_json(text)
    assert len(str(error.value)) <= 150 and str(error.value).isprintable()


def test_lists_fit_a_width():
    assert listed(["x" * 200, "b"], width=40) == "x" * 18 + "..." + "x" * 18 + " and 1 more"
    assert len(listed(["name"] * 1000, 100, width=50)) < 70


def test_a_value_of_the_wrong_type_shows_its_type():
    values = [24, "24", True, "true", None, "None", "", [1], ["1"], "[1]"]
    texts = [described(value) for value in values]
    assert len(set(texts)) == len(values), texts
    assert texts[:2] == ["24", "'24'"] and described(None) == "missing"
    for value in ("x" * 10**6, "\x1b[2J", {"a" * 10**6: "\u202e"}):
        assert len(described(value, 60)) <= 80 and described(value).isprintable()
