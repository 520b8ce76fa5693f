"""Moments and strengths are dragged on a bar that snaps to latent frames; the text that is run follows."""

import uuid

from tests.browser.page import FROZEN_MS, SET_VALUES
from tests.browser.test_boxes import CONNECT, SPAN, Drawing

TEXTS = ["0, 40, -1", "3; +5", "0: 1.0, -1: 0.5", "0:.5", "0, x", "0: 1, 0: 2", "0: 99", "1: -1"]
TEXTS += ["0\uff0c40\u3001-1", "0\uff1a1.0\uff0c-1\uff1a0.5"]  # of a Chinese keyboard
READ = """async (texts) => {
    const {CURVE, POSITIONS} = await import("/extensions/ComfyUI-VDOT/timeline_text.js")
    return texts.map((text) => [POSITIONS.read(text), CURVE.read(text)].map((points) => points ?? null))
}"""


def value(page, node, name: str) -> str:
    return page.widgets(node)[name]["value"]


def test_texts_are_read_as_the_nodes_read_them(server, page):
    page.clear()
    prompt = {"unit": {"class_type": "VDOTText", "inputs": {"width": 16, "height": 16, "length": 5}}}
    for number, text in enumerate(TEXTS):
        image = {"class_type": "LoadImage", "inputs": {"image": "first.png"}}
        keys = {"images.image0": ["image", 0], "positions": text, "length": 81, "width": 0, "height": 0}
        prompt |= {"image": image, f"0.{number}": {"class_type": "VDOTKeyframes", "inputs": keys}}
        prompt[f"1.{number}"] = {
            "class_type": "VDOTStrength",
            "inputs": {"unit": ["unit", 0], "curve": text},
        }
        for kind in (0, 1):
            unit = {"unit": [f"{kind}.{number}", 0], "columns": 1}
            prompt[f"show{kind}.{number}"] = {"class_type": "VDOTPreviewUnit", "inputs": unit}
    refused = server.post("/prompt", {"prompt": prompt, "client_id": uuid.uuid4().hex})["node_errors"]
    for number, (text, read) in enumerate(zip(TEXTS, page.evaluate(READ, TEXTS), strict=True)):
        for kind in (0, 1):
            assert (read[kind] is None) == (f"{kind}.{number}" in refused), (text, kind)


def test_a_moment_snaps_to_latent_frames(page):
    page.clear()
    node = page.add("VDOTKeyframes", positions="0, 41, -1")
    drawing = Drawing(page, node)
    # The bar is 1000 x 190, frames 0 to 80 lie from 34 to 966.
    drawing.drag((34 + 932 * 41 / 80, 80), (34 + 932 * 61.4 / 80, 80), (1000, 190))
    assert value(page, node, "positions") == "0, 60, -1"
    for key, expected in (("ArrowLeft", 56), ("Shift+ArrowRight", 57), ("End", 57)):
        page.page.keyboard.press(key)
        assert value(page, node, "positions") == f"0, {expected}, -1", key
    page.page.keyboard.press("Delete")
    assert page.nodes_of("VDOTKeyframes") == [node]
    assert page.our_problems() == []


def test_a_curve_gains_moves_and_loses_points(page):
    page.clear()
    node = page.add("VDOTStrength", curve="0: 1.0, -1: 0.5")
    drawing = Drawing(page, node)
    drawing.drag((34 + 932 / 2, 190), (34 + 932 / 2, 60), (1000, 260))
    text = value(page, node, "curve")
    first, middle, last = text.split(", ")
    assert (first, last, middle.split(": ")[0]) == ("0: 1.0", "-1: 0.5", "40")
    strength = float(middle.split(": ")[1])
    assert 0.6 < strength < 1.2
    page.page.keyboard.press("ArrowDown")
    assert value(page, node, "curve").split(", ")[1] in {
        f"40: {strength - 0.05:.2f}",
        f"40: {strength - 0.05:.1f}",
    }
    page.page.keyboard.press("Delete")
    assert value(page, node, "curve") == "0: 1.0, -1: 0.5"
    assert page.our_problems() == []


def test_a_click_in_the_column_of_a_point_takes_that_point(page):
    page.clear()
    node = page.add("VDOTStrength", curve="0: 1.0, 40: 0.1, -1: 0.5")
    drawing = Drawing(page, node)
    drawing.drag((34 + 932 / 2, 60), (34 + 932 / 2, 60), (1000, 260))
    first, middle, last = value(page, node, "curve").split(", ")
    assert (first, last, middle.split(": ")[0]) == ("0: 1.0", "-1: 0.5", "40")
    assert float(middle.split(": ")[1]) > 0.6


def test_points_and_boxes_that_are_not_touched_keep_their_numbers(page):
    page.clear()
    node = page.add("VDOTStrength", curve="0: 0.125, 40: 0.5, -1: 0.0000004")
    drawing = Drawing(page, node)
    drawing.canvas.focus()
    for key in ("Enter", "Enter", "ArrowRight"):
        page.page.keyboard.press(key)
    first, middle, last = value(page, node, "curve").split(", ")
    assert (first, middle) == ("0: 0.125", "44: 0.5") and float(last.removeprefix("-1: ")) == 4e-7
    page.clear()
    boxes = "0: 10.5, 10.25, 50.5, 50.4\n\n0: 300, 300, 400, 400"
    node = page.add("VDOTLayout", width=832, height=480, length=81, boxes=boxes)
    Drawing(page, node).drag((350, 350), (370, 350), (832, 480))
    touched, moved = value(page, node, "boxes").split("\n\n")
    assert touched == "0: 10.5, 10.25, 50.5, 50.4" and moved != "0: 300, 300, 400, 400"


def test_a_picture_of_any_size_does_not_freeze_the_page(page):
    page.clear()
    node = page.add("VDOTLayout")
    Drawing(page, node)
    page.evaluate(SET_VALUES, [node, {"width": 1e8, "height": 1e8}])
    assert page.evaluate(TIME, [node, "boxes", "0: 1, 1, 20, 20"]) < FROZEN_MS


TIME = """async ([id, name, text]) => {
    const widget = app.graph.getNodeById(id).widgets.find((widget) => widget.name === name)
    const frame = () => new Promise(requestAnimationFrame)
    const begin = performance.now()
    widget.value = text
    widget.callback?.(text)
    for (let count = 0; count < 3; count++) await frame()
    return performance.now() - begin
}"""


def test_texts_of_any_size_and_numbers_do_not_freeze_the_page(page):
    page.clear()
    strength, layout = page.add("VDOTStrength"), page.add("VDOTLayout")
    texts = [
        (strength, "curve", "0: 1, 999999999: 0.5"),
        (strength, "curve", ", ".join(f"{frame}: 1" for frame in range(60_000))),
        (layout, "boxes", "\n".join(f"{frame}: 1, 1, 20, 20" for frame in range(30_000))),
        (layout, "boxes", "\n\n".join("0: 1, 1, 20, 20" for _ in range(30_000))),
    ]
    for node, name, text in texts:
        assert page.evaluate(TIME, [node, name, text]) < FROZEN_MS, text[:30]


def test_the_end_of_an_extended_clip_is_dragged(page):
    page.clear()
    clip, node = page.add("VDOTLoadClip", file="start.mp4", length=5), page.add("VDOTExtend", length=81)
    page.evaluate(
        "([a, b]) => app.graph.getNodeById(a).connect(0, app.graph.getNodeById(b), 0)", [clip, node]
    )
    page.page.get_by_text("5 frames kept, 76 generated, 81 in all").wait_for()
    drawing = Drawing(page, node)
    # The bar is 1000 x 170, its 105 frames lie from 34 to 966.
    drawing.drag((34 + 932 * 80 / 104, 80), (34 + 932 * 60 / 104, 80), (1000, 170))
    assert value(page, node, "length") == 61
    page.page.get_by_text("5 frames kept, 56 generated, 61 in all").wait_for()
    for key, expected in (("ArrowRight", 65), ("ArrowLeft", 61), ("Delete", 61)):
        page.page.keyboard.press(key)
        assert value(page, node, "length") == expected, key
    assert page.our_problems() == []


def test_the_span_of_a_control_is_dragged(page):
    page.clear()
    node = page.add("VDOTControl", length=81)
    page.page.get_by_text("guided from the first to the last of 81 frames").wait_for()
    drawing = Drawing(page, node, SPAN)
    # The bar is 1000 x 230, its 81 frames lie from 34 to 966.
    drawing.drag((34, 60), (34 + 932 * 20.4 / 81, 60), (1000, 230))
    drawing.drag((966, 60), (34 + 932 * 60.4 / 81, 60), (1000, 230))
    span = [value(page, node, name) for name in ("start_frame", "end_frame")]
    assert span == [21, 61]
    page.page.get_by_text("frames 21 to 60 of 81 are guided").wait_for()
    expected = {"ArrowRight": [21, 65], "End": [21, 65], "Enter": [21, 65], "ArrowLeft": [17, 65]}
    for key, span in expected.items():
        page.page.keyboard.press(key)
        assert [value(page, node, name) for name in ("start_frame", "end_frame")] == span, key
    drawing.drag((34 + 932 * 65 / 81, 60), (966, 60), (1000, 230))
    drawing.drag((34 + 932 * 17 / 81, 60), (0, 60), (1000, 230))
    assert [value(page, node, name) for name in ("start_frame", "end_frame")] == [0, 0]

    # An end that a wire gives is shown, and stays.
    start = page.add("PrimitiveInt", value=17)
    page.evaluate(CONNECT, [start, node, "start_frame"])
    page.page.get_by_text("frames 17 to 80 of 81 are guided").wait_for()
    drawing.drag((34 + 932 * 17 / 81, 60), (34 + 932 * 41 / 81, 60), (1000, 230))
    drawing.canvas.press("ArrowRight")
    assert value(page, node, "start_frame") == 0
    assert page.our_problems() == []


def test_a_curve_lies_over_the_frames_of_its_unit(page):
    page.clear()
    unit, node = page.add("VDOTText", length=17), page.add("VDOTStrength", curve="0: 1.0")
    connect = "([a, b]) => app.graph.getNodeById(a).connect(0, app.graph.getNodeById(b), 0)"
    page.evaluate(connect, [unit, node])
    drawing = Drawing(page, node)
    # The bar is 1000 x 260, its 17 frames lie from 34 to 966.
    drawing.drag((34 + 932 / 2, 60), (34 + 932 / 2, 61), (1000, 260))
    assert [point.split(":")[0] for point in value(page, node, "curve").split(", ")] == ["0", "8"]
    assert page.our_problems() == []
