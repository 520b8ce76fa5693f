"""Margins are dragged on the picture, and what it says of the result is what the node makes."""

import pytest
import torch

from tests.browser.page import SET_VALUES
from tests.browser.test_boxes import CONNECT, Drawing
from vdot_core import vcu

NONE = {"left": 0, "right": 0, "top": 0, "bottom": 0}
# The node's settings, for clips of 80 x 48.
SETTINGS = [
    {"left": 16, "bottom": 5},
    {"right": 7, "top": 33, "width": 160, "height": 96},
    {"left": 25, "top": 50, "mode": "percent"},
    {"mode": "aspect", "aspect": "16:9", "anchor": [0.25, 0.5]},
    {"mode": "aspect", "aspect": "2,39", "anchor": [0.0, 0.5]},
    {"mode": "aspect", "aspect": "16\uff1a9", "anchor": [0.5, 0.5]},
    {"mode": "aspect", "aspect": "9x16", "anchor": [0.5, 0.9]},
    {"width": 128, "height": 112, "anchor": [1.0, 0.3]},
    {"width": 136},
    {"left": 40, "width": 96},
    {"right": 40, "height": 97},
]
MATH = """async ([clip, all]) => {
    const {padsOf, resultSize} = await import("/extensions/ComfyUI-VDOT/outpaint_math.js")
    return all.map((settings) => {
        const pads = padsOf(clip, settings)
        return [pads, resultSize(clip, pads, settings.size)]
    })
}"""
CLIP = (80, 48)


def complete(settings: dict) -> dict:
    """Settings as the page reads them from the node."""
    sides = {side: settings.get(side, 0) for side in NONE}
    size = [settings.get("width", 0), settings.get("height", 0)]
    defaults = {"mode": "pixels", "aspect": "16:9", "anchor": [0.5, 0.5]}
    return {**defaults, **settings, "sides": sides, "size": size}


def made(settings: dict):
    """The unit that the library makes of them."""
    divisor = 100.0 if settings["mode"] == "percent" else 1
    return vcu.outpaint(
        torch.rand(1, CLIP[1], CLIP[0], 3),
        **{side: value / divisor if divisor > 1 else value for side, value in settings["sides"].items()},
        width=settings["size"][0] or None,
        height=settings["size"][1] or None,
        aspect=settings["aspect"] if settings["mode"] == "aspect" else None,
        anchor=tuple(settings["anchor"]),
    )


def test_the_picture_says_what_the_node_makes(page):
    settings = [complete(entry) for entry in SETTINGS]
    for entry, (pads, size) in zip(settings, page.evaluate(MATH, [CLIP, settings]), strict=True):
        unit = made(entry)
        assert [unit.width, unit.height] == size, entry
        if any(entry["sides"].values()) and any(size for size in entry["size"]):
            continue  # the canvas crops clip and margins
        rows, columns = (unit.masks[0] < 0.5).any(1).nonzero(), (unit.masks[0] < 0.5).any(0).nonzero()
        scale = unit.width / (CLIP[0] + pads["left"] + pads["right"])
        # The margins share the pixels that make the canvas a multiple of 16.
        assert abs(int(columns[0]) - pads["left"] * scale) <= 16, entry
        assert abs(int(rows[0]) - pads["top"] * scale) <= 16, entry
        assert [bool(rows[0]), bool(columns[0])] == [bool(pads["top"]), bool(pads["left"])], entry


@pytest.fixture
def outpaint(page):
    """The open page with a clip of 64 x 64 to widen, and the task's id."""
    page.clear()
    image, task = page.add("LoadImage", image="first.png"), page.add("VDOTOutpaint")
    page.evaluate(
        "([a, b]) => app.graph.getNodeById(a).connect(0, app.graph.getNodeById(b), 0)", [image, task]
    )
    page.page.get_by_text("64 x 64 \u2192 Drag a border").wait_for()
    return page, task


def sides(page, node) -> list[int]:
    widgets = page.widgets(node)
    return [widgets[side]["value"] for side in NONE]


def test_borders_are_dragged_and_a_ratio_is_kept(outpaint):
    page, task = outpaint
    drawing = Drawing(page, task)
    # The view is 1.6 times as wide as high, with a margin of 12 % around the clip of 64 x 64.
    height = 64 * 1.24
    width, middle = 1.6 * height, height / 2
    border = width / 2 + 32
    drawing.drag((border, middle), (border + 30, middle), (width, height))
    left, right, top, bottom = sides(page, task)
    assert abs(right - 30) <= 1 and [left, top, bottom] == [0, 0, 0]
    page.page.get_by_text("64 x 64 \u2192 96 x 64").wait_for()

    page.page.locator(".vdot-select").select_option("16:9")
    widgets = page.widgets(task)
    assert (widgets["mode"]["value"], widgets["aspect"]["value"], sides(page, task)) == (
        "aspect",
        "16:9",
        [0] * 4,
    )
    drawing.canvas.focus()
    page.page.keyboard.press("ArrowUp")
    left, right, top, bottom = sides(page, task)
    assert (top, bottom) == (16, 0) and left + right == round(80 * 16 / 9) - 64
    assert page.widgets(task)["mode"]["value"] == "pixels"

    page.page.keyboard.press("Control+z")
    page.page.wait_for_function(
        "(id) => app.graph.getNodeById(id).widgets.find((w) => w.name === 'mode').value === 'aspect'",
        arg=task,
    )
    assert page.our_problems() == []


def test_a_side_that_comes_over_a_wire_is_shown_and_not_dragged(outpaint):
    page, task = outpaint
    length, ratio = page.add("PrimitiveInt", value=32), page.add("PrimitiveString", value="2:1")
    page.evaluate(CONNECT, [length, task, "right"])
    page.page.get_by_text("64 x 64 \u2192 96 x 64").wait_for()
    drawing = Drawing(page, task)
    # The view is 1.6 times as wide as high, with a margin of 12 % of the clip's side.
    height = 64 * 1.24
    border = 0.8 * height + 48
    drawing.drag((border, height / 2), (border + 20, height / 2), (1.6 * height, height))
    drawing.canvas.press("ArrowUp")
    assert sides(page, task) == [0] * 4 and page.page.locator(".vdot-select").is_disabled()

    page.evaluate("(id) => app.graph.getNodeById(id).disconnectInput('right')", task)
    page.evaluate(SET_VALUES, [task, {"mode": "aspect"}])
    page.evaluate(CONNECT, [ratio, task, "aspect"])
    page.page.get_by_text("64 x 64 \u2192 128 x 64").wait_for()
    assert page.our_problems() == []
