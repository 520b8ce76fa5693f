"""Text inputs of nodes: every documented form, and errors that name the wrong part."""

import json
import time

import pytest
import torch

from tests.support.pack import submodule

SIZE = (10, 20)


@pytest.fixture(scope="module")
def tracks(pack):
    return submodule("nodes.tracks")


def test_keyed_boxes_of_two_things(tracks):
    text = "0: 8, 20, 28, 40\n-1: 36.5 20 56 40\n\n\n  1, 2, 3, 4 \n"
    assert tracks.boxes_from_text(text, SIZE, 17) == [
        {0: [8, 20, 28, 40], -1: [36.5, 20, 56, 40]},
        [[1, 2, 3, 4]],
    ]


@pytest.mark.parametrize("length", [17, 18])
def test_two_numbers_are_the_middle_of_a_box(tracks, length):
    (keyed,) = tracks.boxes_from_text("0: 10, 30\n16: 42, 30", SIZE, length)
    assert keyed.shape == (17, 4)
    torch.testing.assert_close(keyed[0], torch.tensor([5.0, 20, 15, 40]))
    torch.testing.assert_close(keyed[8], torch.tensor([21.0, 20, 31, 40]))


def test_paths_from_a_drawing_node(tracks):
    points = [{"x": 10, "y": 30}, {"x": 42, "y": 30}]
    (json_boxes,) = tracks.boxes_from_text(json.dumps(points), SIZE, 17)
    (text_boxes,) = tracks.boxes_from_text("10, 30\n42, 30", SIZE, 17)
    assert torch.equal(json_boxes, text_boxes)
    assert len(tracks.boxes_from_text(json.dumps([points, points]), SIZE, 17)) == 2
    assert torch.equal(tracks.boxes_from_text(str(points), SIZE, 17)[0], text_boxes), "in single quotes"
    named = json.dumps([{**point, "label": "a cat's paw"} for point in points])
    assert torch.equal(tracks.boxes_from_text(named, SIZE, 17)[0], text_boxes), "an apostrophe stays"
    with pytest.raises(ValueError, match="no list of"):  # a detector's box: x and y are its corner
        tracks.boxes_from_text(json.dumps([{"x": 8, "y": 8, "width": 22, "height": 22}]), SIZE, 17)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "boxes is empty; write one line"),
        ("0: 1, 2, 3", r"line '0: 1, 2, 3' of boxes is not understood"),
        ("first: 1, 2, 3, 4", "line 'first: 1, 2, 3, 4' of boxes is not understood"),
        ("0: 1, 2, 3, 4\n5, 6, 7, 8", "with and without a frame number"),
        ("0: 1, 2, 3, 4\n4: 5, 6", "two and of four numbers"),
        ("0: 1, 2, 3, 4\n0: 1, 2, 3, 4", "frame 0 twice"),
        ("[1, 2]", "connect a path-drawing node"),
        ("[{'x': 1}]", "connect a path-drawing node"),
    ],
)
def test_what_is_not_understood_is_named(tracks, text, message):
    with pytest.raises(ValueError, match=message):
        tracks.boxes_from_text(text, SIZE, 17)


HOSTILE = {
    "brackets": "[" * 100_000,
    "objects": '[{"a":' * 50_000,
    "digits": '[{"x": ' + "9" * 400 + ', "y": 1}]',
    "more digits": '[{"x": ' + "9" * 5000 + ', "y": 1}]',
    "infinity": '[{"x": 1e999, "y": 1}]',
    "nan": '[{"x": NaN, "y": 1}]',
    "nan as text": '[{"x": "nan", "y": 1}]',
    "no table": '[{"x": {"x": 1}, "y": []}]',
    "long line": "0: " + "1, " * 100_000,
    "long number": "0: 1, 2, 3, " + "9" * 400,
    "long frame": "9" * 5000 + ": 1, 2, 3, 4",
    "infinite box": "0: 1, 2, 3, inf",
    "control characters": "0: 1, 2, \x1b[31m, \udce8",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_is_refused_in_a_short_sentence(tracks, kind):
    text = HOSTILE[kind]
    with pytest.raises(ValueError, match="boxes") as error:
        tracks.boxes_from_text(text, SIZE, 17)
    errors = [error.value]
    others = (tracks.curve_from_text,), (tracks.numbers_from_text,), (tracks.colors_from_text, 1)
    for reader, *more in others:
        with pytest.raises(ValueError) as error:
            reader(text, *more)
        errors.append(error.value)
    assert all(len(str(error)) <= 400 and str(error).isprintable() for error in errors)


def test_colors(tracks):
    assert tracks.colors_from_text("", 3) is None
    assert tracks.colors_from_text("red", 2) == [(1, 0, 0)] * 2
    assert tracks.colors_from_text("#0000ff, White", 2) == [(0, 0, 1), (1, 1, 1)]
    with pytest.raises(ValueError, match="2 colors for 3 things"):
        tracks.colors_from_text("red, blue", 3)
    with pytest.raises(ValueError, match="'rde'; give names or #rrggbb"):
        tracks.colors_from_text("rde", 1)


def test_curves(tracks):
    assert tracks.curve_from_text("0: 1.0, 8:.5\n-1: 0") == {0: 1.0, 8: 0.5, -1: 0.0}
    for text, message in (
        ("", "empty"),
        ("0.5", "not understood"),
        ("0: 1, 0: 2", "twice"),
        ("0: 100", "0 to 10"),
    ):
        with pytest.raises(ValueError, match=message):
            tracks.curve_from_text(text)


def test_signs_of_a_chinese_keyboard_are_read(tracks):
    (box,) = tracks.boxes_from_text("0\uff1a8\uff0c20\u300128\uff0c\uff14\uff10", SIZE, 17)
    assert box == {0: [8, 20, 28, 40]}
    assert tracks.curve_from_text("0\uff1a1.0\uff0c\uff0d1\uff1a0\uff0e5") == {0: 1.0, -1: 0.5}
    assert tracks.numbers_from_text("0\uff0c40\uff1b-1") == [0, 40, -1]
    assert tracks.colors_from_text("red\uff0c\uff030000ff", 2) == [(1, 0, 0), (0, 0, 1)]


ABSURD = {
    "deep lists": "[" * 100_000,
    "deep objects": '[{"x":' * 50_000,
    "no point": "[1, 2]",
    "400 digits": "0: " + "9" * 400 + ", 1, 2, 3, 4",
    "5000 digits as a frame": "9" * 5000 + ": 1, 2, 3, 4",
    "5000 digits in JSON": '[{"x": ' + "9" * 5000 + ', "y": 1}]',
    "digits without end": "1" * 200_000 + "x",
    "a megabyte": "x" * 1_000_000,
    "spaces": "0" + " " * 500_000 + "x",
    "lines": "\n" * 500_000,
    "many things": "1, 2, 3, 4\n\n" * 50_000,
    "a lone surrogate": "\ud800: 1, 2, 3, 4",
    "an escape": "\x1b[31m\u202e",
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_text_is_refused_shortly_and_soon(tracks, name):
    """Each of the texts that nodes read."""
    text = ABSURD[name]
    start = time.process_time()
    readers = (
        lambda: tracks.boxes_from_text(text, SIZE, 17),
        lambda: tracks.curve_from_text(text),
        lambda: tracks.numbers_from_text(text + "x"),
        lambda: tracks.colors_from_text(text + "x", 1),
    )
    for number, read in enumerate(readers):
        with pytest.raises(ValueError) as error:
            read()
        message = str(error.value)
        assert len(message) <= 400 and message.isprintable(), (number, message[:500])
        assert any(word in message for word in ("give", "write", "connect")), message
    assert time.process_time() - start < 5


def test_absurd_numbers_are_refused_by_the_builders(tracks):
    vcu = submodule("vdot_core.vcu")
    for text in ("nan, 1, 2, 3", "0: inf, 1, 2, 3", "0: 1e999, 1, 2, 3", "999999999: 1, 2, 3, 4"):
        with pytest.raises(ValueError, match=r"expected|not understood") as error:
            vcu.layout(tracks.boxes_from_text(text, SIZE, 17), width=64, height=64, num_frames=17)
        assert len(str(error.value)) <= 400
    with pytest.raises(ValueError, match=r"index 1 is .*expected") as error:
        vcu.keyframes([torch.rand(16, 16, 3)], [int("9" * 400)], num_frames=17)
    assert len(str(error.value)) <= 400
