"""Names and values from outside can be shown anywhere."""

from pathlib import Path

import pytest
import torch

from vdot_core.text import listed, shown

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
