"""Undo makes all nodes of a graph again: their editors, notes and previews are those of the new nodes."""

import time

from tests.browser.test_boxes import Drawing, near

EDITED = (
    "VDOTLayout",
    "VDOTMove",
    "VDOTOutpaint",
    "VDOTKeyframes",
    "VDOTStrength",
    "VDOTExtend",
    "VDOTDepth",
)
RECORD_HEIGHTS = """() => {
    const {prototype} = LiteGraph.LGraphNode
    const setSize = prototype.setSize
    window.vdotHeights = {}
    window.vdotStop = () => { prototype.setSize = setSize }
    prototype.setSize = function (size) {
        setSize.call(this, size)
        window.vdotHeights[this.id] = Math.max(window.vdotHeights[this.id] ?? 0, this.size[1])
    }
}"""
# ComfyUI's front end makes one step of changes that follow each other within 50 ms.
MERGED_MS = 200
# As it is drawn: Vue nodes are as high as their content, whatever their size says.
HEIGHT = """(id) => {
    const drawn = document.querySelector(`[data-node-id="${id}"]`)?.getBoundingClientRect().height
    return drawn ? Math.round(drawn / app.canvas.ds.scale) : app.graph.getNodeById(id).size[1]
}"""
SETTLE = """async () => {
    const heights = () => app.graph._nodes.map((node) => node.size[1]).join()
    for (let last = "", still = 0; still < 10; ) {
        await new Promise(requestAnimationFrame)
        still = heights() === last ? still + 1 : 0
        last = heights()
    }
}"""
RENAME = """async (title) => {
    app.graph._nodes[0].title = title
    ;(await import("/extensions/ComfyUI-VDOT/graph.js")).rememberForUndo()
}"""


def test_nodes_with_editors_keep_their_height_at_an_undo(page):
    """Not even for a moment: a workflow that is saved then would stay too high."""
    heights = {}
    page.evaluate(RECORD_HEIGHTS)
    try:
        for kind in EDITED:
            page.clear()
            node = page.add(kind)
            page.look_at(100, 50, 1)
            page.evaluate(SETTLE)
            before = page.evaluate(HEIGHT, node)
            for title in ("first", "second"):
                page.evaluate(RENAME, title)
                page.page.wait_for_timeout(MERGED_MS)
            page.evaluate("() => { window.vdotHeights = {} }")
            page.page.keyboard.press("Control+z")
            page.page.wait_for_function("() => app.graph._nodes[0]?.title === 'first'")
            page.evaluate(SETTLE)
            after = page.evaluate(HEIGHT, node)
            highest = page.evaluate("(id) => window.vdotHeights[id]", node)
            heights[kind] = (before, after if page.renderer == "vue" else highest, after)
    finally:
        page.evaluate("() => window.vdotStop()")
    assert {kind: seen for kind, seen in heights.items() if len(set(seen)) > 1} == {}


# Elements of the pack's widgets that are not in the page, by node.
LOST = """() => app.graph._nodes.flatMap((node) => (node.widgets ?? [])
    .filter(({element}) => element?.classList?.contains("vdot-widget") && !element.isConnected)
    .map(({name}) => `${node.type} ${name}`))"""
STEP = "(step) => document.querySelector('.vdot-preview')?.dataset.step === step"
PICTURES = "() => document.querySelectorAll('.vdot-prediction').length"


def undo(page) -> None:
    """By the key, and until the page has drawn what it brings back."""
    page.page.locator("#graph-canvas").focus()
    page.page.keyboard.press("Control+z")


def test_an_editor_edits_its_node_after_an_undo(page):
    """Nodes 2.0 puts the elements of a node of some number into the page once."""
    page.clear()
    node = page.add("VDOTLayout", width=832, height=480, length=81)
    drawing, size = Drawing(page, node), (832, 480)
    drawing.drag((100, 100), (300, 260), size)
    drawing.drag((400, 300), (600, 400), size)
    page.page.keyboard.press("Control+z")
    page.page.wait_for_function("() => !app.graph._nodes[0]?.widgets[0].value.includes('\\n\\n')")
    page.wait_for_value(LOST, None, [])

    drawing = Drawing(page, node)
    drawing.drag((200, 180), (250, 180), size)
    ((_, values),) = drawing.numbers()[0]
    assert near(values, (150, 100, 350, 260))
    assert page.our_problems() == []


def test_the_video_of_the_last_run_stays_at_an_undo(page, demo_workflow):
    page.clear()
    page.load(demo_workflow)
    (sampler,) = page.nodes_of("VDOTSampler")
    page.set_seed(sampler, time.time_ns() % 2**32)
    page.evaluate(RENAME, "first")
    assert page.run() == "execution_success"
    page.page.wait_for_function(STEP, arg="4")
    page.evaluate(RENAME, "second")
    undo(page)
    page.page.wait_for_function("() => app.graph._nodes[0]?.title === 'first'")
    page.wait_for_value(LOST, None, [])
    page.page.wait_for_function(STEP, arg="4")
    page.wait_for_value(PICTURES, None, 4)

    page.set_seed(sampler, time.time_ns() % 2**32)
    assert page.run() == "execution_success"
    page.page.wait_for_function(
        "() => !document.querySelector('.vdot-preview')?.innerText.includes('Starting')"
    )
    assert page.our_problems() == []
    page.clear()
    page.wait_for_open_bitmaps(0)
