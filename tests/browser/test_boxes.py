"""Boxes are drawn by mouse and keyboard into the text that is saved and run, and the text is followed."""

import uuid

import pytest

UNDERSTOOD = [
    "0: 8, 8, 24, 24\n-1: 30 8 46 24\n\n4: 1;2;3;4",
    "0\uff1a8\uff0c8\uff0c24\u300124",
    "10, 10\n20, 12\n\n\n5: .5, 1e1",
    '[{"x": 1, "y": 2}, {"x": 30, "y": 20}]',
    '[[{"x": 1, "y": 2}], [{"x": 3, "y": 4.5}]]',
]
REFUSED = [
    "0: 80, 200, oops",
    "1, 2, 3",
    "0: 1, 2, 3, 4\n5, 6, 7, 8",
    "0: 1, 2\n4: 1, 2, 3, 4",
    "0: 1, 2, 3, 4\n0: 1, 2, 3, 4",
    "x: 1, 2, 3, 4",
    '[{"x": 1}]',
    '[{"x": 8, "y": 8, "width": 22, "height": 22}]',
    '[[{"x": 8, "y": 8, "w": 22, "h": 22}]]',
]
READ = """async (texts) => {
    const {readBoxes, writeBoxes} = await import("/extensions/ComfyUI-VDOT/boxes_text.js")
    return texts.map((text) => {
        const things = readBoxes(text)
        return things ? [things, readBoxes(writeBoxes(things))] : null
    })
}"""
TEXT = "(id) => app.graph.getNodeById(id).widgets.find((widget) => widget.name === 'boxes').value"
BARE = {"width": 64, "height": 32, "length": 9}


@pytest.fixture
def graph(page):
    page.clear()
    return page


def test_texts_are_read_as_the_node_reads_them(server, graph):
    texts = UNDERSTOOD + REFUSED
    prompt = {}
    for number, text in enumerate(texts):
        prompt[f"{number}"] = {"class_type": "VDOTLayout", "inputs": {"boxes": text, **BARE}}
        unit = {"unit": [f"{number}", 0], "columns": 1}
        prompt[f"show{number}"] = {"class_type": "VDOTPreviewUnit", "inputs": unit}
    answer = server.post("/prompt", {"prompt": prompt, "client_id": uuid.uuid4().hex})
    refused = {number for number in range(len(texts)) if str(number) in answer["node_errors"]}
    read = graph.evaluate(READ, texts)
    assert {number for number, things in enumerate(read) if things is None} == refused
    assert refused == set(range(len(UNDERSTOOD), len(texts)))
    things, again = read[0]
    assert again == things and [len(thing["keys"]) for thing in things] == [2, 1]


SPAN = '.vdot-stage-canvas[aria-label^="The frames that are guided."]'
# Beside it a node may have another editor; the page keeps them in no fixed order.
DRAWING = f".vdot-stage-canvas:not({SPAN})"


class Drawing:
    """An editor of a node, by mouse."""

    def __init__(self, graph, node, stage: str = DRAWING):
        self.graph, self.node = graph, node
        graph.evaluate("(id) => { app.graph.getNodeById(id).pos = [0, 0] }", node)
        graph.look_at(200, 100, 1)
        graph.page.wait_for_function(
            "(name) => document.querySelector(name)?.getBoundingClientRect().width > 100", arg=stage
        )
        self.canvas = graph.page.locator(stage).first
        graph.wait_until_still(self.canvas)
        box = self.canvas.bounding_box()
        hidden = box["y"] + box["height"] - graph.page.viewport_size["height"]
        if hidden > 0:  # below the window's edge: a node may be higher than its widgets need
            graph.look_at(200, 100 - hidden - 20, 1)
            graph.wait_until_still(self.canvas)

    def drag(self, start, end, size) -> None:
        """From one point of the video to another."""
        box = self.canvas.bounding_box()
        mouse = self.graph.page.mouse
        at = [
            (box["x"] + box["width"] * x / size[0], box["y"] + box["height"] * y / size[1])
            for x, y in (start, end)
        ]
        mouse.move(*at[0])
        mouse.down()
        mouse.move(*at[1], steps=3)
        mouse.up()

    def text(self) -> str:
        return self.graph.evaluate(TEXT, self.node)

    def numbers(self) -> list:
        things = self.graph.evaluate(READ, [self.text()])[0][0]
        return [[(key["frame"], key["values"]) for key in thing["keys"]] for thing in things]


def near(values, expected) -> bool:
    return all(abs(value - other) <= 3 for value, other in zip(values, expected, strict=True))


def test_boxes_are_drawn_moved_and_kept(graph):
    node = graph.add("VDOTLayout", width=832, height=480, length=81)
    drawing, size = Drawing(graph, node), (832, 480)
    drawing.drag((100, 100), (300, 260), size)
    ((frame, values),) = drawing.numbers()[0]
    assert frame == 0 and near(values, (100, 100, 300, 260))

    slider = graph.page.locator(".vdot-slider")
    slider.focus()
    graph.page.keyboard.press("End")
    drawing.drag((200, 180), (500, 280), size)
    (thing,) = drawing.numbers()
    assert [frame for frame, _ in thing] == [0, -1] and near(thing[1][1], (400, 200, 600, 360))

    # By keyboard: a second thing, one step left, wider, and gone again from its only frame.
    drawing.canvas.focus()
    for key in ("n", "ArrowLeft", "Alt+Shift+ArrowRight"):
        graph.page.keyboard.press(key)
    first, second = drawing.numbers()
    left, top, right, bottom = second[0][1]
    assert (right - left, bottom - top) == (266, 192) and first == thing
    graph.page.keyboard.press("Delete")
    assert drawing.numbers() == [thing]
    assert graph.nodes_of("VDOTLayout") == [node], "Delete took the node"

    graph.page.keyboard.press("Control+z")
    graph.page.wait_for_function(f"(id) => ({TEXT})(id).includes('\\n\\n')", arg=node)
    saved = graph.save()
    assert "vdot_panel" not in str(saved["nodes"])
    graph.load(saved)
    assert len(drawing.numbers()) == 2
    drawing = Drawing(graph, node)
    drawing.drag((200, 180), (210, 180), size)
    assert near(drawing.numbers()[0][0][1], (110, 100, 310, 260)), "the editor of a loaded node is of no use"
    assert graph.our_problems() == []


def test_the_text_is_followed_and_an_unclear_one_is_left_alone(graph):
    node = graph.add("VDOTLayout", boxes="0: 10, 10, 40, 40", width=128, height=128, length=9)
    drawing = Drawing(graph, node)
    set_text = (
        "([id, text]) => { app.graph.getNodeById(id).widgets.find((w) => w.name === 'boxes').value = text }"
    )
    graph.evaluate(set_text, [node, "0: 60, 60, 100, oops"])
    message = graph.page.locator(".vdot-stage-message")
    message.get_by_text("not understood").wait_for()
    drawing.drag((10, 10), (50, 50), (128, 128))
    assert drawing.text() == "0: 60, 60, 100, oops"
    graph.evaluate(set_text, [node, "0: 60, 60, 100, 100"])
    message.wait_for(state="hidden")
    drawing.drag((80, 80), (70, 70), (128, 128))
    assert near(drawing.numbers()[0][0][1], (50, 50, 90, 90))


def test_the_picture_behind_gives_the_size(graph):
    node = graph.add("VDOTMove", boxes="0: 8, 8, 40, 40", length=9)
    image = graph.add("LoadImage", image="first.png")
    graph.evaluate(
        "([a, b]) => app.graph.getNodeById(a).connect(0, app.graph.getNodeById(b), 0)", [image, node]
    )
    graph.page.wait_for_function(
        "() => document.querySelector('.vdot-stage')?.style.cssText.includes(': 1;')"
    )
    drawing = Drawing(graph, node)
    drawing.drag((20, 20), (36, 28), (64, 64))
    assert near(drawing.numbers()[0][0][1], (24, 16, 56, 48))


CONNECT = """([from, to, name]) => {
    const target = app.graph.getNodeById(to)
    const slot = name ? target.inputs.findIndex((input) => input.name === name) : 0
    app.graph.getNodeById(from).connect(0, target, slot)
}"""
KEEP_VIDEOS = """() => {
    window.vdotVideos = []
    const make = Document.prototype.createElement
    document.createElement = function (name, ...rest) {
        const made = make.call(document, name, ...rest)
        if (name === "video") window.vdotVideos.push(made)
        return made
    }
}"""
TIMES = """() => window.vdotVideos.filter((video) => video.src.includes("long_clip") && !video.isConnected)
    .map((video) => video.currentTime)"""


def test_the_editor_shows_the_frames_that_the_loader_gives(graph):
    graph.evaluate(KEEP_VIDEOS)
    loader, reroute = (
        graph.add("VDOTLoadClip", file="long_clip.mp4", start=2.0, fps=8.0),
        graph.add("Reroute"),
    )
    node = graph.add("VDOTBoxMask", boxes="0: 8, 8, 24, 24")
    graph.evaluate(CONNECT, [loader, reroute, None])
    graph.evaluate(CONNECT, [reroute, node, "image"])
    try:
        graph.page.get_by_text("0 / 16", exact=True).wait_for(timeout=20_000)  # of 4.06 s, the rest at 8 fps
        times = graph.evaluate(TIMES)
        assert 2.0625 in times, "the picture behind is of another moment than the frame that the node gets"
        graph.pick(loader, "start", 3.0)
        graph.page.get_by_text("0 / 8", exact=True).wait_for(timeout=20_000)
        assert 3.0625 in graph.evaluate(TIMES)
    finally:
        graph.evaluate("() => { delete document.createElement }")


def test_numbers_that_come_over_wires_count(graph):
    length, reroute = graph.add("PrimitiveInt", value=33), graph.add("Reroute")
    graph.evaluate(CONNECT, [length, reroute, None])
    for kind, values in (
        ("VDOTLayout", {"boxes": "0: 8, 8, 24, 24"}),
        ("VDOTControl", {}),
        ("VDOTExtend", {}),
    ):
        graph.evaluate(CONNECT, [reroute, graph.add(kind, **values), "length"])
    for said in ("0 / 32", "guided from the first to the last of 33 frames", "33 in all"):
        graph.page.get_by_text(said).first.wait_for(timeout=20_000)
    assert graph.our_problems() == []
