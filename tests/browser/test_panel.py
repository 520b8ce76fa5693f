"""The strip of a task, notes, and errors in words on nodes."""

import pytest

from tests.browser.page import FROZEN_MS

BAD = "0: 80, 200, oops"
GOOD = "0: 8, 8, 24, 24"
OUTSIDE = "0: 900, 900, 920, 920"
CONNECT = "([a, b]) => app.graph.getNodeById(a).connect(0, app.graph.getNodeById(b), 0)"
SECTION = """([id, name]) => {
    const panel = app.graph.getNodeById(id).widgets.find((widget) => widget.name === "vdot_panel")
    const section = panel?.element.querySelector(".vdot-" + name)
    return section && !section.hidden ? section.innerText : null
}"""
# The next prompt's answer only.
ANSWER_LATE = """async () => {
    const {api} = await import("/scripts/api.js")
    const fetchApi = api.fetchApi
    api.fetchApi = async function (route, ...rest) {
        const answer = await fetchApi.call(this, route, ...rest)
        if (route === "/prompt") {
            api.fetchApi = fetchApi
            await new Promise((done) => setTimeout(done, 1500))
        }
        return answer
    }
}"""
# WCAG's contrast of the notes' text to the color behind it, in a palette of ComfyUI.
CONTRAST = """async (palette) => {
    await app.extensionManager.setting.set("Comfy.ColorPalette", palette)
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))
    const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true })
    const light = (color) => {
        context.fillStyle = color
        context.fillRect(0, 0, 1, 1)
        const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map((part) => part / 255)
            .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }
    const notes = getComputedStyle(document.querySelector(".vdot-notes"))
    const [low, high] = [light(notes.color), light(notes.backgroundColor)].sort((a, b) => a - b)
    return (high + 0.05) / (low + 0.05)
}"""
PALETTES = ["arc", "nord", "solarized", "github", "light", "dark"]
SET_SETTING = "(on) => app.extensionManager.setting.set('VDOT.ShowStrip', on)"


@pytest.fixture
def layout(page):
    """The open page with a small layout task that is looked at, and the task's id."""
    page.clear()
    task = page.add("VDOTLayout", boxes=GOOD, width=64, height=32, length=9)
    page.evaluate(CONNECT, [task, page.add("VDOTPreviewUnit")])
    yield page, task
    page.evaluate(SET_SETTING, True)


def shown(page, node, name: str) -> str | None:
    return page.evaluate(SECTION, [node, name])


def wait_for(page, node, name: str, text: str | None) -> None:
    """Wait until a section of a node's panel holds a text; None: until it is hidden."""
    script = f"([id, name, text]) => {{ const said = ({SECTION})([id, name]); " + (
        "return text === null ? said === null : said?.includes(text) }"
    )
    page.page.wait_for_function(script, arg=[node, name, text])


def set_boxes(page, node, text: str) -> None:
    page.evaluate(
        "([id, text]) => { app.graph.getNodeById(id).widgets.find((w) => w.name === 'boxes').value = text }",
        [node, text],
    )


@pytest.mark.parametrize("answer", ["soon", "late"])
def test_a_fresh_page_hears_of_cached_nodes_although_the_run_fails(layout, answer):
    """Notes and strips of a run before the page was opened, beside the sentence of the node that fails.

    A run can fail before the answer to its queueing has come.
    """
    page, task = layout
    page.evaluate(CONNECT, [task, page.add("VDOTStrength", curve="0: 1")])
    (fade,) = page.nodes_of("VDOTStrength")
    page.evaluate(CONNECT, [fade, page.add("VDOTPreviewUnit")])
    assert page.run() == "execution_success"
    wait_for(page, task, "notes", "64x32")
    said, graph = shown(page, task, "notes"), page.save()
    page.open()
    page.load(graph)
    assert shown(page, task, "notes") is None
    if answer == "late":
        page.evaluate(ANSWER_LATE)
    page.evaluate(
        "([id, text]) => { app.graph.getNodeById(id).widgets.find((w) => w.name === 'curve').value = text }",
        [fade, "99: 1"],
    )
    assert "execution_error" in page.run()
    wait_for(page, fade, "error", "curve")
    wait_for(page, task, "notes", said)
    wait_for(page, task, "strip", "")
    assert not page.our_problems()


def test_a_refused_text_and_a_failed_run_are_sentences_on_the_node(layout):
    page, task = layout
    set_boxes(page, task, BAD)
    assert "refused" in page.run()
    wait_for(page, task, "error", f"line '{BAD}' of boxes is not understood; write one line")
    assert shown(page, task, "error").startswith("line '"), "ComfyUI's own words before the sentence"

    set_boxes(page, task, OUTSIDE)
    assert "execution_error" in page.run()
    wait_for(page, task, "error", "lies outside the canvas of 64x32; move it in")
    assert "ValueError" not in shown(page, task, "error")

    set_boxes(page, task, GOOD)
    assert page.run() == "execution_success"
    wait_for(page, task, "error", None)
    assert page.our_problems() == []


def test_a_missing_input_is_named_on_the_node(page):
    page.clear()
    strength = page.add("VDOTStrength")
    page.evaluate(CONNECT, [strength, page.add("VDOTPreviewUnit")])
    assert "refused" in page.run()
    wait_for(page, strength, "error", "unit is not connected; connect it")


def test_a_task_shows_its_strip_which_folds_and_can_be_switched_off(layout):
    page, task = layout
    assert page.run() == "execution_success"
    wait_for(page, task, "strip", "guided")
    wait_for(page, task, "notes", "control 64x32, 9 frames")
    picture = page.page.locator(".vdot-strip-picture")
    picture.wait_for()
    assert 0 < picture.evaluate("(image) => image.decode().then(() => image.naturalWidth)") <= 482

    fold = page.page.locator(".vdot-strip .vdot-fold")
    fold.focus()
    page.page.keyboard.press("Enter")
    picture.wait_for(state="hidden")
    assert fold.get_attribute("aria-expanded") == "false"
    saved = page.save()
    assert "vdot_panel" not in str(saved["nodes"]) and "base64" not in str(saved)
    page.load(saved)
    assert page.run() == "execution_success"
    wait_for(page, task, "strip", "")
    assert picture.is_hidden()
    fold.click()
    picture.wait_for()

    contrasts = {palette: page.evaluate(CONTRAST, palette) for palette in PALETTES}  # dark is ComfyUI's own
    assert min(contrasts.values()) >= 4.5 and len(set(contrasts.values())) > 2, contrasts

    page.evaluate(SET_SETTING, False)
    wait_for(page, task, "strip", None)
    page.evaluate(SET_SETTING, True)
    wait_for(page, task, "strip", "kept")
    assert page.our_problems() == []


SIGN = """async (levels) => {
    const {Signatures} = await import("/extensions/ComfyUI-VDOT/restore.js")
    const chain = (end) => {
        const prompt = {0: {class_type: "A", inputs: {value: end}}}
        for (let id = 1; id <= levels; id++) {
            prompt[id] = {class_type: "B", inputs: {a: [String(id - 1), 0], b: [String(id - 1), 0]}}
        }
        return prompt
    }
    const signatures = new Signatures()
    const [one, same, other] = [1, 1, 2].map((end) => signatures.of(chain(end), String(levels)))
    return [one === same, one === other]
}"""
BATCHES = """(levels) => {
    let last = LiteGraph.createNode("EmptyImage")
    app.graph.add(last)
    for (let level = 0; level < levels; level++) {
        const next = LiteGraph.createNode("BatchImagesNode")
        app.graph.add(next)
        for (let index = 0; index < 4; index++) {
            last.connect(0, next, next.inputs.findIndex((input) => input.name === `images.image${index}`))
        }
        last = next
    }
    const layout = LiteGraph.createNode("VDOTLayout")
    app.graph.add(layout)
    const begin = performance.now()
    last.connect(0, layout, layout.inputs.findIndex((input) => input.name === "picture"))
    return performance.now() - begin
}"""


def test_many_ways_through_a_graph_cost_no_time(page):
    """Chains whose every node takes the one before it twice, as LoRA loaders do (model and text encoder)."""
    assert page.evaluate(SIGN, 60) == [True, False]
    page.clear()
    assert page.evaluate(BATCHES, 13) < FROZEN_MS


PREVIEW = """async ([id, workflow, step]) => {
    const {api} = await import("/scripts/api.js")
    const {rememberPrompt} = await import("/extensions/ComfyUI-VDOT/restore.js")
    rememberPrompt(`run of ${workflow}`, {}, workflow ?? app.graph.id)
    const canvas = Object.assign(document.createElement("canvas"), {width: 16, height: 16})
    const frames = [canvas.toDataURL("image/jpeg").split(",")[1]]
    const where = {node_id: String(id), display_node_id: String(id), prompt_id: `run of ${workflow}`}
    const message = {version: 1, step, num_steps: 4, fps: 16, frames, mime: "image/jpeg"}
    api.dispatchEvent(new CustomEvent("vdot.preview", {detail: {...where, ...message}}))
}"""


def test_a_video_of_one_workflow_is_not_shown_on_another(page):
    page.clear()
    node = page.add("VDOTSampler")
    page.evaluate(PREVIEW, [node, "5f0c5d0e-5b7a-4a31-9a55-0d3c7a1e0001", 1])
    page.evaluate(PREVIEW, [node, None, 2])
    # Steps are shown in order: the second is there once the first would be.
    page.page.wait_for_function("() => document.querySelector('.vdot-preview').dataset.step === '2'")
    assert page.page.locator(".vdot-prediction").count() == 1


ODD = """(id) => {
    const node = app.graph.getNodeById(id)
    const image = "data:image/webp;base64,AA"
    const strips = ["{", "null", "5", "{}", JSON.stringify({version: 1, image, frames: null, references: 0}),
        JSON.stringify({version: 1, image, frames: [0], references: 1e9}),
        JSON.stringify({version: 1, frames: []})]
    for (const strip of strips) node.onExecuted({vdot_strip: [strip]})
    for (const text of [null, "one line", 5, []]) node.onExecuted({text})
    for (const message of [null, undefined, {}, {vdot_strip: null}, {vdot_strip: 5}]) node.onExecuted(message)
    node.onExecuted({text: "one line"})
}"""


def test_what_is_no_strip_or_no_list_of_notes_breaks_no_node(page):
    page.clear()
    node = page.add("VDOTText")
    page.evaluate(ODD, node)
    assert shown(page, node, "strip") is None and shown(page, node, "notes") == "one line"


SAY = """async ([id, workflow]) => {
    const {api} = await import("/scripts/api.js")
    const {rememberPrompt} = await import("/extensions/ComfyUI-VDOT/restore.js")
    rememberPrompt(`run of ${workflow}`, {}, workflow ?? app.graph.id)
    const output = {text: [`said in ${workflow}`]}
    const detail = {node: String(id), display_node: String(id), prompt_id: `run of ${workflow}`, output}
    api.dispatchEvent(new CustomEvent("executed", {detail}))
    return app.nodeOutputs[id]?.text ?? null
}"""


def test_what_a_run_of_one_workflow_says_is_not_shown_on_another(page):
    """Neither at once, nor when the other one is opened again, which shows what ComfyUI has noted of it."""
    page.clear()
    node = page.add("VDOTText")
    assert page.evaluate(SAY, [node, "5f0c5d0e-5b7a-4a31-9a55-0d3c7a1e0001"]) is None
    assert shown(page, node, "notes") is None
    assert page.evaluate(SAY, [node, None]) == ["said in null"]
    assert shown(page, node, "notes") == "said in null"


WAIT_FOR_ERROR = """async () => {
    const {api} = await import("/scripts/api.js")
    window.vdotFailed = false
    api.addEventListener("execution_error", () => { window.vdotFailed = true }, {once: true})
}"""
OPEN_ANOTHER = """async ([kind, id]) => {
    await app.queuePrompt(0)
    const place = {pos: [0, 0], size: [300, 200], flags: {}, order: 0, mode: 0}
    const node = {id, type: kind, inputs: [], outputs: [], properties: {}, widgets_values: [], ...place}
    const workflow = {version: 0.4, nodes: [node], links: [], groups: [], config: {}, extra: {}}
    await app.loadGraphData({...workflow, id: "5f0c5d0e-5b7a-4a31-9a55-0d3c7a1e0001"})
}"""


@pytest.mark.parametrize("kind", ["VDOTText", "VDOTLayout"])
def test_an_error_of_one_workflow_is_not_shown_on_another(layout, kind):
    """Numbers of nodes begin at 1 in every workflow, and a run goes on when another one is opened."""
    page, task = layout
    set_boxes(page, task, OUTSIDE)
    page.evaluate(WAIT_FOR_ERROR)
    page.evaluate(OPEN_ANOTHER, [kind, task])
    page.page.wait_for_function("() => window.vdotFailed")
    page.page.wait_for_timeout(200)
    assert page.evaluate("(id) => app.graph.getNodeById(id).type", task) == kind
    assert shown(page, task, "error") is None
