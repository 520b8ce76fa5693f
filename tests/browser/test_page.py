"""The pack in ComfyUI's page: nodes, workflows, presets, and the preview of a real run, in both renderers."""

import json
import re
import time

import pytest

from devtools.demo.options import workflow_file
from devtools.demo.titles import TITLES
from tests.browser.page import DEADLINE_S, GraphPage
from tests.support.comfy import ROOT

# One of each kind of graph; --full opens all.
REPRESENTATIVE = {
    "vdot_depth",
    "vdot_swap",
    "vdot_keyframes",
    "vdot_reference_pose",
    "vdot_crop",
    "native_sdpose",
}
WORKFLOWS = {name: workflow_file(name) for name in TITLES}
PRESET_VALUES = "import('/extensions/ComfyUI-VDOT/presets.js').then((module) => module.PRESETS)"
# Two steps for a node that is removed at once, then one, of two frames, for a node that stays.
WAITING_STEPS = """async () => {
    const {previewOf} = await import("/extensions/ComfyUI-VDOT/preview.js")
    const canvas = Object.assign(document.createElement("canvas"), {width: 8, height: 8})
    canvas.getContext("2d")
    const frame = canvas.toDataURL("image/jpeg").split(",")[1]
    const step = (number) => (
        {version: 1, frames: [frame, frame], mime: "image/jpeg", fps: 8, step: number, num_steps: 4})
    const [gone, stays] = [0, 1].map(() => {
        const node = LiteGraph.createNode("VDOTSampler")
        app.graph.add(node)
        return node
    })
    for (const number of [1, 2]) previewOf(gone).show(step(number))
    app.graph.remove(gone)
    previewOf(stays).show(step(1))
}"""


# Connects the first output of each node to the first input of the next.
CHAIN = """(ids) => {
    const nodes = ids.map((id) => app.graph.getNodeById(id))
    nodes.slice(1).forEach((node, index) => nodes[index].connect(0, node, 0))
}"""


@pytest.fixture(scope="module")
def node_ids(server) -> list[str]:
    info = server.get("/object_info")
    return [name for name, node in info.items() if node["python_module"].endswith("ComfyUI-VDOT")]


@pytest.fixture
def graph(page) -> GraphPage:
    """The open page with an empty graph."""
    page.clear()
    return page


def test_page_loads_without_an_error_of_ours(page):
    assert page.our_problems() == []


def test_every_node_can_be_added(graph, node_ids):
    for node_id in node_ids:
        added = graph.add(node_id)
        assert graph.nodes_of(node_id) == [added]
        width = graph.evaluate("(id) => app.graph.getNodeById(id).size[0]", added)
        assert width >= 210, f"the title of {node_id} is cut off"
    assert graph.our_problems() == []


def test_search_dialog_adds_a_node(graph):
    graph.add_by_search("VDOT Sampler")
    graph.page.wait_for_function("() => app.graph._nodes.some((node) => node.type === 'VDOTSampler')")
    assert len(graph.nodes_of("VDOTSampler")) == 1


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=name, marks=() if name in REPRESENTATIVE else pytest.mark.full)
        for name, path in WORKFLOWS.items()
    ],
)
def test_shipped_workflow_opens_and_keeps_its_values(graph, path):
    shipped = json.loads(path.read_text("utf-8"))
    graph.load(shipped)
    missing = graph.evaluate(
        "() => app.graph._nodes.filter((n) => !LiteGraph.registered_node_types[n.type]).map((n) => n.type)"
    )
    assert missing == []
    before = {node["id"]: node.get("widgets_values", []) for node in shipped["nodes"]}
    saved = graph.save()
    graph.clear()
    graph.load(saved)
    again = {node["id"]: node.get("widgets_values", []) for node in graph.save()["nodes"]}
    assert {int(key): values for key, values in again.items()} == before
    assert len(saved["links"]) == len(shipped["links"])
    assert graph.our_problems() == []


def test_preset_grays_out_what_it_governs(graph):
    sampler = graph.add("VDOTSampler")
    governed = ("steps", "shift", "solver")
    assert graph.widgets(sampler)["preset"]["value"] == "auto"
    hidden = "(id) => app.graph.getNodeById(id).widgets.filter((w) => w.hidden).map((w) => w.name)"
    assert set(governed) <= set(graph.evaluate(hidden, sampler)), "nothing is known before the model is"
    graph.pick(sampler, "preset", "vace")
    assert graph.widgets(sampler)["cfg"] == {"value": 5, "disabled": True}
    graph.pick(sampler, "preset", "released")
    assert graph.widgets(sampler)["cfg"] == {"value": 1, "disabled": False}
    shown = (
        "(id) => app.graph.getNodeById(id).widgets.find((w) => w.name === 'preset').options.getOptionLabel"
    )
    label = graph.evaluate(f"(id) => ({shown})(id)('released')", sampler)
    assert label == "released: 4 steps, shift 16, unipc", "the canvas draws no number of a grayed-out widget"
    assert all(graph.widgets(sampler)[name]["disabled"] for name in governed)
    assert not graph.evaluate(hidden, sampler)
    graph.pick(sampler, "preset", "custom")
    assert not any(graph.widgets(sampler)[name]["disabled"] for name in governed)
    graph.evaluate(
        "(id) => { app.graph.getNodeById(id).widgets.find((w) => w.name === 'shift').value = 5.5 }", sampler
    )
    graph.pick(sampler, "preset", "sharp")
    widgets = graph.widgets(sampler)
    assert widgets["shift"] == {"value": 3.75, "disabled": True}
    graph.pick(sampler, "preset", "custom")
    assert graph.widgets(sampler)["shift"] == {"value": 5.5, "disabled": False}


def test_a_clip_is_uploaded_and_seen_on_its_node(graph):
    loader = graph.add("VDOTLoadClip", file="clip.mp4")
    read = "(id) => app.graph.getNodeById(id).widgets.map((widget) => widget.name)"
    assert "upload" in graph.evaluate(read, loader)
    graph.pick(loader, "file", "depth.mp4")
    graph.page.wait_for_function("() => document.querySelector('video')?.src.includes('depth.mp4')")


def test_preset_numbers_are_the_samplers_own(graph):
    from vdot_core import sampling

    presets = graph.evaluate(PRESET_VALUES)
    assert set(presets) == set(sampling.PRESETS)
    for name, (factory, solver, guidance) in sampling.PRESETS.items():
        assert presets[name].get("cfg", 1) == guidance
        labels = "exact" if solver == "renoise" else "wan"
        same = sampling.Schedule.shifted(presets[name]["steps"], presets[name]["shift"], labels=labels)
        assert (presets[name]["solver"], same) == (solver, factory()), name


def test_saved_workflow_opens_as_it_was_saved(graph):
    sampler = graph.add("VDOTSampler", preset="released", steps=7, shift=5.5, seed=123)
    graph.add("VDOTSampler", preset="custom", steps=9, shift=2.5)
    saved = graph.save()
    assert "vdot_preview" not in json.dumps(saved)
    graph.clear()
    graph.load(saved)
    widgets = graph.widgets(sampler)
    read = {name: widgets[name]["value"] for name in ("preset", "steps", "shift", "seed")}
    assert read == {"preset": "released", "steps": 7, "shift": 5.5, "seed": 123}
    assert widgets["steps"]["disabled"]
    other = next(node for node in graph.nodes_of("VDOTSampler") if str(node) != str(sampler))
    assert not graph.widgets(other)["steps"]["disabled"]
    assert graph.widgets(other)["steps"]["value"] == 9


@pytest.fixture
def finished(graph, demo_workflow) -> GraphPage:
    """The page after a run of the depth workflow with a seed that no earlier run had."""
    graph.load(demo_workflow)
    (sampler,) = graph.nodes_of("VDOTSampler")
    graph.set_seed(sampler, time.time_ns() % 2**32)
    graph.watch_steps()
    assert graph.run() == "execution_success"
    return graph


def test_run_shows_the_moving_video_and_lets_go_of_it(finished):
    page = finished.page
    page.wait_for_function("() => document.querySelector('.vdot-preview')?.dataset.step === '4'")
    assert finished.evaluate("() => window.vdotSteps") == [1, 2, 3, 4]
    label = page.locator(".vdot-preview").inner_text()
    assert re.match(r"Step 4 of 4 · sigma [\d.]+ · [\d.]+ s", label), label
    pictures = set()
    deadline = time.monotonic() + DEADLINE_S
    while len(pictures) < 3 and time.monotonic() < deadline:
        pictures.add(finished.evaluate("() => document.querySelector('.vdot-preview canvas').toDataURL()"))
        page.wait_for_timeout(120)
    assert len(pictures) >= 3, "the preview stands still"
    assert finished.evaluate("() => window.vdotNumStills") > 0, "this server was to send stills too"
    assert page.locator('[data-testid^="node-body"]:has(.vdot-preview) img:visible').count() == 0
    assert finished.our_problems() == []

    (sampler,) = finished.nodes_of("VDOTSampler")
    assert not [name for name in finished.widgets(sampler) if name.startswith("$$")], (
        "a still next to the video"
    )
    notes = finished.evaluate(
        "(id) => app.graph.getNodeById(id).widgets.find((w) => w.name === 'vdot_panel').element.textContent",
        sampler,
    )
    assert "timesteps" in notes
    assert "vdot_panel" not in json.dumps(finished.save()["nodes"])

    # One step's pictures are held; those of a step that a later one overtook go once they are decoded.
    finished.wait_for_open_bitmaps(finished.evaluate("() => window.vdotNumFrames"))
    finished.clear()
    finished.wait_for_open_bitmaps(0)


def test_steps_that_wait_when_their_node_goes_leave_nothing_behind(graph):
    """Steps are decoded one after the other; the node may go before the last one's turn."""
    graph.evaluate(WAITING_STEPS)
    graph.page.wait_for_function("() => document.querySelector('.vdot-preview')?.dataset.step === '1'")
    graph.page.wait_for_timeout(300)
    assert graph.evaluate("() => window.vdotBitmaps.filter((bitmap) => bitmap.width > 0).length") == 2
    graph.clear()
    graph.wait_for_open_bitmaps(0)
    assert graph.our_problems() == []


WIRE_SEED = """async ([number, sampler]) => {
    const {setWidget} = await import("/extensions/ComfyUI-VDOT/graph.js")
    const {valueOf} = await import("/extensions/ComfyUI-VDOT/wires.js")
    const [from, to] = [number, sampler].map((id) => window.app.graph.getNodeById(id))
    from.connect(0, to, to.inputs.findIndex((input) => input.name === "seed"))
    setWidget(to, "end_step", 1)
    return valueOf(to, "seed")
}"""


def test_a_prediction_is_held_and_its_composition_finished(finished):
    page = finished.page
    (sampler,) = finished.nodes_of("VDOTSampler")
    page.wait_for_function("() => document.querySelectorAll('.vdot-prediction').length === 4")

    def settings():
        widgets = finished.widgets(sampler)
        names = ("seed", "end_step", "leftover_noise")
        return tuple(widgets[name]["value"] for name in names)

    def press(selector, number=0):
        page.evaluate(
            "([selector, number]) => document.querySelectorAll(selector)[number].click()", [selector, number]
        )

    seed = settings()[0]
    assert not page.locator(".vdot-stop").is_visible()
    press(".vdot-prediction", 0)
    page.wait_for_function("() => document.querySelector('.vdot-preview').dataset.step === '1'")
    press(".vdot-stop")
    assert settings() == (seed, 1, False)
    finished.watch_steps()
    assert finished.run() == "execution_success"
    page.wait_for_function("() => document.querySelector('.vdot-stop').textContent === 'Finish this video'")
    assert finished.evaluate("() => window.vdotSteps") == [1]
    finished.set_seed(sampler, seed + 1)
    press(".vdot-stop")
    assert settings() == (seed, 0, True)

    # A seed that comes by a wire is set where it comes from.
    number = finished.add("PrimitiveInt", value=seed + 2)
    assert finished.evaluate(WIRE_SEED, [number, sampler]) == seed + 2
    press(".vdot-stop")
    assert finished.widgets(number)["value"]["value"] == seed
    assert settings()[1:] == (0, True)
    finished.evaluate("([id]) => window.app.graph.remove(window.app.graph.getNodeById(id))", [number])
    assert finished.our_problems() == []


def see_sentences(page, sentences: dict[str, str], workflow: dict) -> None:
    """An error, and notes of a run, in the language of the page."""
    page.clear()
    nodes = [page.add("LoadImage", image="first.png"), page.add("VDOTBoxMask"), page.add("MaskPreview")]
    page.evaluate(CHAIN, nodes)
    assert page.run().startswith("execution_error")
    page.page.get_by_role("alert").get_by_text(sentences["no_box"]).wait_for()
    page.load(workflow)
    assert page.run() == "execution_success"
    for key in ("encoded", "sampled"):
        words = re.split(r"\{\w+\}", sentences[key])
        pattern = re.compile(".+".join(map(re.escape, words)))
        page.page.get_by_role("status").filter(has_text=pattern).first.wait_for(state="attached")


TRANSLATED = """async (lines) => {
    const {translated} = await import("/extensions/ComfyUI-VDOT/strings.js")
    return lines.map(translated)
}"""


def see_parts(page: GraphPage, sentences: dict) -> None:
    """A sentence whose part has no translation stays English: none is half translated."""
    known, unknown = (
        "steps is 0, expected a whole number from 1 to 9",
        "steps is 0, expected some other thing",
    )
    part = sentences["expected_whole"].format(low=1, high=9)
    whole = sentences["other_value"].format(name="steps", value=0, expected=part)
    assert page.evaluate(TRANSLATED, [known, unknown]) == [whole, unknown]


def test_page_in_chinese(server, browser, demo_workflow):
    server.post("/settings", {"Comfy.Locale": "zh", "Comfy.VueNodes.Enabled": True})
    page = GraphPage(browser, server.port)
    try:
        page.clear()
        sampler = page.add("VDOTSampler")
        chinese = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text("utf-8"))["VDOTSampler"]
        own = json.loads((ROOT / "locales" / "zh" / "main.json").read_text("utf-8"))["vdot"]
        page.page.get_by_text(own["preview_idle"]).wait_for()
        labels = page.evaluate(
            "(id) => app.graph.getNodeById(id).widgets.map((w) => [w.name, w.label])", sampler
        )
        assert dict(labels)["steps"] == chinese["inputs"]["steps"]["name"]
        depth = page.add("VDOTDepth")
        page.page.get_by_text(own["choices"]["frame"]).wait_for()
        assert page.widgets(depth)["normalization"]["value"] == "frame"
        assert page.our_problems() == []
        see_parts(page, own["sentences"])
        see_sentences(page, own["sentences"], demo_workflow)
    finally:
        page.close()
        server.post("/settings", {"Comfy.Locale": "en"})
