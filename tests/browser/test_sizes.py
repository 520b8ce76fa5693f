"""Editors count in the pixels and frames that nodes are given, not in those of the file behind them."""

import pytest

from tests.browser.page import SET_VALUES
from tests.browser.test_boxes import CONNECT, SPAN, Drawing
from vdot_core.vcu import SIZES, VideoSize

FITTED = """async (cases) => {
    const {fitted} = await import("/extensions/ComfyUI-VDOT/sizes.js")
    return cases.map(([name, size]) => fitted(name, size))
}"""
SAY = "([id, line]) => app.graph.getNodeById(id).onExecuted({text: [line]})"
CONNECT_SIZE = """([from, to]) => {
    const [load, node] = [from, to].map((id) => app.graph.getNodeById(id))
    load.connect("size", node, "size")
}"""


@pytest.fixture
def graph(page):
    page.clear()
    return page


def test_classes_are_fitted_as_the_nodes_fit_them(page):
    classes = {**SIZES, "demo": VideoSize("demo", 64, 64, most_frames=17)}
    sides = [16, 64, 100, 479, 480, 720, 832, 1080, 1920, 4096]
    cases = [(name, [width, height]) for name in classes for width in sides for height in sides]
    expected = [list(classes[name].fit(*size)) for name, size in cases]
    assert page.evaluate(FITTED, cases) == expected


def test_boxes_are_in_pixels_of_the_picture_that_the_node_is_given(graph):
    loader, node = graph.add("VDOTLoadClip", file="clip.mp4", resolution="480p"), graph.add("VDOTBoxMask")
    graph.evaluate(CONNECT, [loader, node, "image"])
    graph.page.get_by_text("0 / 16", exact=True).wait_for(timeout=20_000)
    drawing = Drawing(graph, node)
    drawing.drag((200, 200), (360, 280), (624, 624))
    assert drawing.numbers()[0][0][1] == pytest.approx([200, 200, 360, 280], abs=8)
    assert graph.our_problems() == []


def test_margins_are_in_pixels_of_the_clip_that_the_node_is_given(graph):
    image, scale, task = (
        graph.add("LoadImage", image="first.png"),
        graph.add("ImageScale"),
        graph.add("VDOTOutpaint"),
    )
    graph.evaluate(CONNECT, [image, scale, "image"])
    graph.evaluate(CONNECT, [scale, task, "frames"])
    graph.page.get_by_text("512 x 512 \u2192 Drag a border").wait_for(timeout=20_000)
    graph.pick(scale, "width", 256)
    graph.page.get_by_text("256 x 512 \u2192 Drag a border").wait_for(timeout=20_000)


def test_a_wired_video_is_shown_in_the_place_of_the_file(graph):
    video, loader = graph.add("LoadVideo", file="depth.mp4"), graph.add("VDOTLoadClip", file="start.mp4")
    node = graph.add("VDOTControl")
    graph.evaluate(CONNECT, [video, loader, "video"])
    graph.evaluate(CONNECT, [loader, node, "frames"])
    graph.page.get_by_text("guided from the first to the last of 17 frames").wait_for(timeout=20_000)
    graph.pick(loader, "length", 9)
    graph.page.get_by_text("guided from the first to the last of 9 frames").wait_for(timeout=20_000)


def test_the_settings_follow_a_preset_that_comes_over_a_wire(graph):
    preset, sampler = graph.add("PrimitiveNode"), graph.add("VDOTSampler", preset="released")
    shown = """([id, names]) => names.join() === app.graph.getNodeById(id).widgets
        .filter(({name}) => ["steps", "shift", "solver"].includes(name))
        .filter(({hidden, disabled}) => !hidden && !disabled).map(({name}) => name).join()"""
    graph.evaluate(CONNECT, [preset, sampler, "preset"])
    for value, names in (
        ("custom", ["steps", "shift", "solver"]),
        ("trained", []),
        ("custom", ["steps", "shift", "solver"]),
    ):
        graph.evaluate(
            "([id, value]) => { app.graph.getNodeById(id).widgets[0].value = value }", [preset, value]
        )
        graph.page.wait_for_function(shown, arg=[sampler, names], timeout=30_000)
    graph.evaluate("(id) => app.graph.getNodeById(id).disconnectInput('preset')", sampler)
    graph.page.wait_for_function(shown, arg=[sampler, []], timeout=30_000)
    assert graph.our_problems() == []


def test_comfyui_s_primitive_gives_its_value(graph):
    """Its widget is named as what it is wired to."""
    number, node = graph.add("PrimitiveNode"), graph.add("VDOTExtend")
    graph.evaluate(CONNECT, [number, node, "length"])
    for length in (33, 49):
        graph.evaluate(
            "([id, value]) => { app.graph.getNodeById(id).widgets[0].value = value }", [number, length]
        )
        graph.page.get_by_text(f"{length} in all").wait_for(timeout=30_000)


def test_a_typed_strength_above_the_border_is_kept(graph):
    node = graph.add("VDOTStrength", curve="0: 3.0, 80: 1.0")
    drawing = Drawing(graph, node)
    drawing.canvas.focus()
    graph.page.keyboard.press("Enter")
    for key, curve in (("ArrowRight", "4: 3.0, 80: 1.0"), ("ArrowUp", "4: 3.0, 80: 1.0")):
        graph.page.keyboard.press(key)
        written = graph.widgets(node)["curve"]["value"]
        assert written.replace("-1", "80") == curve


def test_what_a_run_said_is_forgotten_with_another_clip(graph):
    loader, node, task = (
        graph.add("VDOTLoadClip", file="clip.mp4"),
        graph.add("VDOTControl"),
        graph.add("VDOTStrength"),
    )
    graph.evaluate(CONNECT, [loader, node, "frames"])
    graph.evaluate(CONNECT, [node, task, "unit"])
    said = "guided from the first to the last of {} frames"
    graph.page.get_by_text(said.format(17)).wait_for(timeout=20_000)
    graph.evaluate(SAY, [node, "control 64x64, 33 frames"])
    graph.page.get_by_text(said.format(33)).wait_for(timeout=20_000)
    graph.pick(loader, "file", "start.mp4")
    graph.page.get_by_text(said.format(5)).wait_for(timeout=20_000)
    assert graph.our_problems() == []


def sized(graph, kind: str, **values) -> tuple[int, int]:
    """VDOT Load with the bundled demo, whose videos have 17 frames, and a node that takes its size."""
    load, node = graph.add("VDOTLoad"), graph.add(kind, **values)
    graph.evaluate(CONNECT_SIZE, [load, node])
    return load, node


def test_the_size_shortens_an_extended_clip(graph):
    image, (load, node) = graph.add("LoadImage", image="first.png"), sized(graph, "VDOTExtend", length=81)
    graph.evaluate(CONNECT, [image, node, "first"])
    graph.page.get_by_text("1 frame kept, 16 generated, 17 in all").wait_for(timeout=20_000)
    drawing = Drawing(graph, node)
    drawing.canvas.focus()
    for key, length in (("ArrowRight", 17), ("ArrowLeft", 13), ("ArrowRight", 17)):
        graph.page.keyboard.press(key)
        assert graph.widgets(node)["length"]["value"] == length, key
    # A file may be a small model's: what a run said counts, until the class is chosen.
    graph.evaluate(SET_VALUES, [node, {"length": 81}])
    graph.evaluate(SET_VALUES, [load, {"model": "other.safetensors"}])
    graph.page.get_by_text("1 frame kept, 80 generated, 81 in all").wait_for(timeout=20_000)
    graph.evaluate(SAY, [node, "extension 64x64, 33 frames"])
    graph.page.get_by_text("1 frame kept, 32 generated, 33 in all").wait_for(timeout=20_000)
    graph.evaluate(SET_VALUES, [load, {"size_class": "480p"}])
    graph.page.get_by_text("1 frame kept, 80 generated, 81 in all").wait_for(timeout=20_000)
    assert graph.our_problems() == []


def test_a_strength_lasts_as_long_as_the_unit_that_the_size_shortens(graph):
    _, unit = sized(graph, "VDOTText", length=81)
    node = graph.add("VDOTStrength", curve="0: 1.0, 8: 0.5, -1: 1.0")
    graph.evaluate(CONNECT, [unit, node, "unit"])
    drawing = Drawing(graph, node)
    height = 239 - 0.5 / 1.2 * 215
    drawing.drag((34 + 932 * 8 / 16, height), (34 + 932 * 12 / 16, height), (1000, 260))
    frames = [part.split(":")[0] for part in graph.widgets(node)["curve"]["value"].split(", ")]
    assert frames == ["0", "12", "-1"]
    graph.evaluate(SAY, [node, "generate 64x64, 33 frames"])  # an earlier run's: the graph is sure
    drawing.drag((34 + 932 * 12 / 16, height), (34 + 932 * 4 / 16, height), (1000, 260))
    assert graph.widgets(node)["curve"]["value"].split(", ")[1].startswith("4: ")


def test_a_point_past_the_end_is_named_until_it_is_moved(graph):
    _, unit = sized(graph, "VDOTText", length=81)
    node = graph.add("VDOTStrength", curve="0: 1.0, 40: 0.5")
    graph.evaluate(CONNECT, [unit, node, "unit"])
    said = graph.page.get_by_text(
        "frame 40 is outside the video, which ends at frame 16; move it", exact=True
    )
    said.wait_for(timeout=20_000)
    Drawing(graph, node).canvas.focus()
    for key in ("Enter", "Enter", "ArrowLeft"):
        graph.page.keyboard.press(key)
    assert graph.widgets(node)["curve"]["value"] == "0: 1.0, 12: 0.5"
    said.wait_for(state="hidden", timeout=20_000)


def test_a_composed_unit_s_first_length_counts(graph):
    _, unit = sized(graph, "VDOTText", length=81)
    reference, node = graph.add("VDOTReference", length=49), graph.add("VDOTStrength", curve="8: 0.5")
    graph.evaluate(CONNECT, [unit, reference, "unit"])
    graph.evaluate(CONNECT, [reference, node, "unit"])
    drawing = Drawing(graph, node)
    height = 239 - 0.5 / 1.2 * 215
    drawing.drag((500, height), (34 + 932 * 12 / 16, height), (1000, 260))
    assert graph.widgets(node)["curve"]["value"].startswith("12: ")


def test_positions_that_are_moved_along_count_in_the_length_that_is_set(graph):
    _, node = sized(graph, "VDOTLayout", length=81, start_frame=21, end_frame=61)
    graph.page.get_by_text("0 / 80, moved along to 17 frames", exact=True).wait_for(timeout=20_000)
    said = graph.page.get_by_text("frames 21 to 60 of 81 are guided, moved along to 17 frames", exact=True)
    said.wait_for(timeout=20_000)
    graph.evaluate(SAY, [node, "control 64x64, 17 frames"])
    drawing = Drawing(graph, node, SPAN)
    drawing.drag((34 + 932 * 61 / 81, 80), (34 + 932 * 41 / 81, 80), (1000, 230))
    values = graph.widgets(node)
    assert (values["start_frame"]["value"], values["end_frame"]["value"]) == (21, 41)
    graph.clear()
    sized(graph, "VDOTKeyframes", length=81)
    graph.page.get_by_text("moved along to 17 frames", exact=True).wait_for(timeout=20_000)
    graph.clear()
    sized(graph, "VDOTMove", length=9)
    graph.page.get_by_text("0 / 8", exact=True).wait_for(timeout=20_000)
    assert graph.our_problems() == []


COUNTED = """async () => {
    const {text} = await import("/extensions/ComfyUI-VDOT/strings.js")
    return [
        text("span_all", {frames: 1}), text("span_all", {frames: 21}),
        text("preset_numbers", {name: "custom", steps: 1, shift: 5, solver: "euler"}),
    ]
}"""


def test_one_of_a_thing_is_singular(graph):
    assert graph.evaluate(COUNTED) == [
        "guided from the first to the last of 1 frame",
        "guided from the first to the last of 21 frames",
        "custom: 1 step, shift 5, euler",
    ]
    graph.add("VDOTControl", length=17, start_frame=0, end_frame=1)
    graph.page.get_by_text("frame 0 of 17 is guided", exact=True).wait_for(timeout=20_000)
