"""The path of someone new, by mouse and by keyboard: template, video, clip, boxes, borders, copies."""

import base64

import pytest

from devtools.demo.options import read_workflow
from tests.browser.test_boxes import Drawing, near
from tests.browser.test_copy import BUILD, CASES, READ, wires_of
from tests.browser.test_outpaint import sides
from tests.support.comfy import ROOT

TEMPLATE, TEMPLATE_NAME = "02 Depth to video", "vdot_depth"
CARDS = "[data-testid^='template-workflow-']"
VIEW = "() => ({scale: app.canvas.ds.scale, offset: [...app.canvas.ds.offset]})"
OPENED = "() => app.graph._nodes.some((node) => node.type === 'VDOTDepth')"
# A video that the browser has decoded, of a file in one of ComfyUI's folders.
VIDEO = """([folder, name]) => [...document.querySelectorAll("video")].some((video) =>
    video.src.includes(`type=${folder}`) && video.src.includes(`filename=${name}`) && video.videoWidth > 0)"""
# Drops a file onto a node's title, as from the desktop.
DROP = """async ([id, name, bytes]) => {
    const node = app.graph.getNodeById(id), {scale, offset} = app.canvas.ds
    const {left, top} = app.canvas.canvas.getBoundingClientRect()
    const at = [left + (node.pos[0] + 60 + offset[0]) * scale, top + (node.pos[1] - 15 + offset[1]) * scale]
    const dataTransfer = new DataTransfer()
    const content = Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0))
    dataTransfer.items.add(new File([content], name, {type: "video/mp4"}))
    const place = {clientX: at[0], clientY: at[1], bubbles: true, cancelable: true}
    const target = document.elementFromPoint(...at)
    for (const kind of ["dragenter", "dragover", "drop"]) {
        target.dispatchEvent(new DragEvent(kind, {...place, dataTransfer}))
    }
}"""
FOCUSED = "() => document.activeElement.className"
SELECTED = "() => app.canvas.selectedItems.size"
# What a reload must keep: type, values and wires of every node.
KEPT = """() => app.graph._nodes.map((node) => [
    String(node.id), node.type, node.serialize().widgets_values ?? [],
    (node.inputs ?? []).filter((input) => input.link != null).map((input) => {
        const link = app.graph.getLink(input.link)
        return [input.name, String(link.origin_id), link.origin_slot]
    })]).sort()"""


# ComfyUI has a draft of the graph that is open, with so many nodes.
STORED = """([id, count]) => Object.values({...localStorage, ...sessionStorage}).some((text) =>
    text.includes(id) && text.split("properties").length > count)"""


@pytest.fixture(params=["mouse", pytest.param("keyboard", marks=pytest.mark.full)])
def hand(request) -> str:
    """Mouse or keyboard, where both are possible."""
    return request.param


def press(page, locator, hand: str) -> None:
    """Click, or focus and press Enter."""
    locator.wait_for()
    if hand == "mouse":
        locator.click()
    else:
        locator.focus()
        page.page.keyboard.press("Enter")


def open_template(page, hand: str) -> None:
    """Choose a template in ComfyUI's browser, where cards take clicks alone."""
    press(page, page.page.get_by_role("button", name="Templates").first, hand)
    dialog = page.page.get_by_role("dialog")
    dialog.get_by_text("ComfyUI-VDOT", exact=True).click()
    card = dialog.get_by_test_id(f"template-workflow-{TEMPLATE}")
    card.wait_for()
    titles = [shown.inner_text().splitlines()[0] for shown in dialog.locator(CARDS).all()]
    assert len(titles) > 20 and titles == sorted(titles), "not in the order that teaches"
    card.click()
    page.page.wait_for_function(OPENED)
    dialog.wait_for(state="detached")
    shipped = read_workflow(TEMPLATE_NAME)["extra"]["ds"]
    page.page.wait_for_function(f"(scale) => ({VIEW})().scale === scale", arg=shipped["scale"])
    assert page.evaluate(VIEW) == shipped, "the note is not where it can be read"


def run(page, hand: str) -> None:
    if hand == "mouse":
        page.page.get_by_test_id("queue-button").click()
    else:
        page.page.locator("body").press("Control+Enter")
    page.page.wait_for_function(VIDEO, arg=["output", "vdot_depth"])


def bring_a_clip(page) -> None:
    """Drop a clip of one's own onto VDOT Load Clip, which shows it."""
    (loader,) = page.nodes_of("VDOTLoadClip")
    x, y = page.evaluate("(id) => [...app.graph.getNodeById(id).pos]", loader)
    page.look_at(300 - x, 200 - y, 0.8)
    content = base64.b64encode((ROOT / "assets" / "examples" / "clip.mp4").read_bytes()).decode()
    page.evaluate(DROP, [loader, "own.mp4", content])
    page.page.wait_for_function(VIDEO, arg=["input", "own"])
    assert page.widgets(loader)["file"]["value"].startswith("own")


def draw_two_boxes(page, hand: str) -> None:
    page.clear()
    drawing = Drawing(page, page.add("VDOTLayout", width=832, height=480, length=81))
    if hand == "mouse":
        drawing.drag((100, 100), (300, 260), (832, 480))
        drawing.drag((500, 200), (700, 400), (832, 480))
        (first,), (second,) = drawing.numbers()
        assert near(first[1], (100, 100, 300, 260)) and near(second[1], (500, 200, 700, 400))
        return
    walk_by_tab(page, [".vdot-fold", "vdot-tool", "vdot-tool", "vdot-stage-canvas"])
    for key in ("n", "ArrowLeft", "n", "ArrowRight"):
        page.page.keyboard.press(key)
    (first,), (second,) = drawing.numbers()
    assert first[1][0] < second[1][0]
    page.page.keyboard.press("Tab")
    page.page.keyboard.press("End")
    assert page.page.locator(".vdot-slider").input_value() == "80"


def walk_by_tab(page, stops: list[str]) -> None:
    """Focus the first of the elements; Tab reaches those of the other classes, in order."""
    page.page.locator(stops[0]).first.focus()
    for stop in stops[1:]:
        page.page.keyboard.press("Tab")
        assert stop in page.evaluate(FOCUSED).split(), stop


def widen(page, hand: str) -> None:
    """VDOT Outpaint by its right border: 30 pixels by mouse, 16 by an arrow key."""
    page.clear()
    image, task = page.add("LoadImage", image="first.png"), page.add("VDOTOutpaint")
    page.evaluate(
        "([a, b]) => app.graph.getNodeById(a).connect(0, app.graph.getNodeById(b), 0)", [image, task]
    )
    page.page.get_by_text("64 x 64 \u2192 Drag a border").wait_for()
    drawing = Drawing(page, task)
    if hand == "mouse":
        height = 64 * 1.24
        width, middle = 1.6 * height, height / 2
        drawing.drag((width / 2 + 32, middle), (width / 2 + 62, middle), (width, height))
    else:
        walk_by_tab(page, [".vdot-select", "vdot-stage-canvas"])
        page.page.keyboard.press("ArrowRight")
    left, right, top, bottom = sides(page, task)
    assert abs(right - (30 if hand == "mouse" else 16)) <= 1 and [left, top, bottom] == [0, 0, 0]


def copy_growing_nodes(page) -> None:
    """Every node with growing inputs, and what they come from, by the keys of ComfyUI."""
    page.clear()
    for case in CASES.items():
        page.evaluate(BUILD, list(case))
    built = {kind: page.evaluate(READ, kind) for kind in CASES}
    num_nodes = page.evaluate("() => app.graph._nodes.length")
    page.page.locator("#graph-canvas").focus()
    page.page.keyboard.press("Control+a")
    page.page.wait_for_function(f"(count) => ({SELECTED})() === count", arg=num_nodes)
    for key in ("Control+c", "Control+v"):
        page.page.keyboard.press(key)
    page.page.wait_for_function("(count) => app.graph._nodes.length === count", arg=2 * num_nodes)
    for kind, (original,) in built.items():
        page.page.wait_for_function(f"(kind) => ({READ})(kind).length === 2", arg=kind)
        assert [wires_of(inputs) for inputs in page.evaluate(READ, kind)] == [wires_of(original)] * 2, kind


def reload(page) -> None:
    """The page comes back with the graph that was open."""
    before = page.evaluate(KEPT)
    page.page.wait_for_function(STORED, arg=[page.evaluate("() => app.graph.id"), len(before)])
    page.open()
    page.page.wait_for_function("(count) => app.graph._nodes.length === count", arg=len(before))
    assert page.evaluate(KEPT) == before


def test_the_path_of_someone_new(page, hand):
    page.clear()
    open_template(page, hand)
    run(page, hand)
    bring_a_clip(page)
    draw_two_boxes(page, hand)
    widen(page, hand)
    copy_growing_nodes(page)
    reload(page)
    assert page.our_problems() == []
