"""Editors count in the pixels and frames that nodes are given, not in those of the file behind them."""

import pytest

from tests.browser.test_boxes import CONNECT, Drawing
from vdot_core.vcu import SIZES, VideoSize

FITTED = """async (cases) => {
    const {fitted} = await import("/extensions/ComfyUI-VDOT/sizes.js")
    return cases.map(([name, size]) => fitted(name, size))
}"""
SAY = "([id, line]) => app.graph.getNodeById(id).onExecuted({text: [line]})"


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
