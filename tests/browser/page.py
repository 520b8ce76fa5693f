"""ComfyUI's page in a real browser, and the few things the tests do with it."""

import json
import os
import re
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

from tests.support.comfy import unavailable

REGISTRY_URL = "https://api.comfy.org/comfy-nodes/"
PACK_URL = "/extensions/ComfyUI-VDOT/"
# How long anything may take on a slow, busy machine before it counts as never coming.
DEADLINE_S = 240
# A page that stands still for so long is frozen, not slow: what the tests look for takes minutes.
FROZEN_MS = 20_000
CHROMIUM_ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_READY = """() => window.app?.vueAppReady && window.LiteGraph && app.graph && app.extensionManager
    && LiteGraph.registered_node_types.VDOTSampler !== undefined && !app.configuringGraph"""
_RECORD_BITMAPS = """
    window.vdotBitmaps = []
    const real = window.createImageBitmap
    window.createImageBitmap = async (...args) => {
        const bitmap = await real(...args)
        window.vdotBitmaps.push(bitmap)
        return bitmap
    }"""

_CLEAR = """() => app.loadGraphData({
    version: 0.4, nodes: [], links: [], groups: [], config: {}, extra: {ds: {scale: 0.8, offset: [90, 130]}},
})"""
# Widgets of the graph before stay in the page until the next drawing: they are marked, to be told apart.
_LOAD = """async (graph) => {
    for (const widget of document.querySelectorAll(".vdot-widget")) widget.dataset.earlier = ""
    await app.loadGraphData(graph)
}"""
_ADD_NODE = """([type, values]) => {
    const node = LiteGraph.createNode(type)
    app.graph.add(node)
    for (const [name, value] of Object.entries(values)) {
        node.widgets.find((widget) => widget.name === name).value = value
    }
    return node.id
}"""
SET_VALUES = """([id, values]) => {
    const {widgets} = app.graph.getNodeById(id)
    for (const [name, value] of Object.entries(values)) {
        widgets.find((widget) => widget.name === name).value = value
    }
}"""
_PICK = """([id, name, value]) => {
    const node = app.graph.getNodeById(id)
    const widget = node.widgets.find((candidate) => candidate.name === name)
    widget.value = value
    widget.callback?.(value, app.canvas, node)
}"""
# Widgets made of HTML lie where they were until the graph has been drawn and the page laid out again, and a
# workflow that has just been opened may move the view once more.
_LOOK_AT = """async ([left, top, scale]) => {
    const {ds} = app.canvas
    const isThere = () => ds.offset[0] === left && ds.offset[1] === top && ds.scale === scale
    for (let still = 0; still < 3; still++) {
        if (!isThere()) {
            ds.offset = [left, top]
            ds.scale = scale
            still = 0
        }
        app.canvas.setDirty(true, true)
        await new Promise(requestAnimationFrame)
    }
}"""
# Resolves once an element has lain in the same place for five frames.
_LIES_STILL = """async (element) => {
    const place = () => {
        const {x, y, width, height} = element.getBoundingClientRect()
        return [x, y, width, height].join()
    }
    for (let last = "", still = 0; still < 5; ) {
        await new Promise(requestAnimationFrame)
        still = place() === last ? still + 1 : 0
        last = place()
    }
}"""
_WATCH_STEPS = """async () => {
    const {api} = await import("/scripts/api.js")
    window.vdotSteps = []
    window.vdotNumFrames = 0
    window.vdotNumStills = 0
    if (window.vdotWatching) return
    window.vdotWatching = true
    api.addEventListener("vdot.preview", ({detail}) => {
        window.vdotSteps.push(detail.step)
        window.vdotNumFrames = detail.frames.length
    })
    api.addEventListener("b_preview_with_metadata", () => { window.vdotNumStills += 1 })
}"""
_READ_WIDGETS = """(id) => app.graph.getNodeById(id).widgets.map(
    (widget) => [widget.name, {value: widget.value, disabled: !!widget.disabled}]
)"""
_RUN = """async () => {
    const {api} = await import("/scripts/api.js")
    window.vdotEnd = null
    for (const name of ["execution_success", "execution_error", "execution_interrupted"]) {
        const note = ({detail}) => { window.vdotEnd = [name, detail.exception_message ?? ""] }
        api.addEventListener(name, note, {once: true})
    }
    if (!(await app.queuePrompt(0))) window.vdotEnd = ["refused", JSON.stringify(app.lastNodeErrors)]
}"""


def find_chromium() -> str | None:
    """A Chromium to launch: $CHROMIUM_PATH, else one on the PATH, else None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM_PATH") or next(filter(None, map(shutil.which, names)), None)


@contextmanager
def open_chromium():
    """Chromium without a window. Skips where Playwright or a browser is not installed."""
    try:
        from playwright import sync_api
    except ImportError:
        unavailable("Playwright is not installed: pip install playwright")
    path = find_chromium()
    if path is None:
        unavailable("no Chromium here: apt-get install chromium, or set CHROMIUM_PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=list(CHROMIUM_ARGS))
        yield browser
        browser.close()


def frontend_arguments() -> list[str]:
    """ComfyUI's arguments for the frontend in $VDOT_FRONTEND; none where it is not set.

    Raises:
        FileNotFoundError: there is no index.html in the folder or its `static`.
    """
    folder = os.environ.get("VDOT_FRONTEND")
    if not folder:
        return []
    for root in (Path(folder), Path(folder, "static")):
        if (root / "index.html").is_file():
            return ["--front-end-root", str(root.resolve())]
    raise FileNotFoundError(
        f"VDOT_FRONTEND is {folder}, where no index.html is; give the package's static folder"
    )


class GraphPage:
    """One open ComfyUI page.

    Attributes:
        page: the Playwright page.
        problems: console errors and uncaught exceptions so far, as text with the address they came from.
    """

    def __init__(self, browser, port: int):
        self.page = browser.new_page(viewport={"width": 1400, "height": 900})
        self.page.set_default_timeout(DEADLINE_S * 1000)
        self.problems: list[str] = []
        self.page.on("console", self._note_console)
        self.page.on("pageerror", lambda error: self.problems.append(f"uncaught: {error.stack or error}"))
        self.page.add_init_script(_RECORD_BITMAPS)
        self.address = f"http://127.0.0.1:{port}"
        self.open()

    def open(self) -> None:
        """Load the page, again where it was open."""
        self.page.goto(self.address, wait_until="domcontentloaded")
        # The first look at app.graph must come after its making: ComfyUI logs an error for an earlier one.
        self.page.wait_for_function("() => window.app?.vueAppReady")
        self.page.wait_for_function(_READY)
        self.page.wait_for_selector("#graph-canvas, canvas", state="attached")

    def _note_console(self, message) -> None:
        if message.type == "error":
            self.problems.append(f"{message.text} at {message.location.get('url', '')}")

    def our_problems(self) -> list[str]:
        """The problems that the pack's own code or files caused, and every uncaught exception.

        ComfyUI's list of errors asks its registry about every node in it, which its own policy forbids.
        """
        marks = (PACK_URL.lower(), "vdot", "uncaught: ")
        ours = [text for text in self.problems if any(mark in text.lower() for mark in marks)]
        return [text for text in ours if REGISTRY_URL not in text]

    def close(self) -> None:
        self.page.close()

    def evaluate(self, script: str, argument=None):
        return self.page.evaluate(script, argument)

    def wait_for_value(self, script: str, argument, expected) -> None:
        """Wait until a script's value is the expected one.

        Args:
            script: a function of one argument whose value is JSON.

        Raises:
            AssertionError: it has not been within DEADLINE_S; names the last value.
        """
        deadline = time.monotonic() + DEADLINE_S
        while (value := self.evaluate(script, argument)) != expected and time.monotonic() < deadline:
            self.page.wait_for_timeout(50)
        assert value == expected

    def wait_until_still(self, locator) -> None:
        """Wait until one visible element keeps its place: the mouse can aim at it."""
        locator.wait_for()
        locator.evaluate(_LIES_STILL)

    def clear(self) -> None:
        """An empty graph, seen from its upper left, without the widgets of the one before."""
        self.evaluate(_CLEAR)
        self.page.wait_for_function(
            "() => app.graph._nodes.length === 0 && !document.querySelector('.vdot-widget')"
        )

    def look_at(self, left: float, top: float, scale: float) -> None:
        """Move the view: the graph's point (-left, -top) comes to the canvas's corner, drawn on return."""
        self.evaluate(_LOOK_AT, [left, top, scale])

    def add(self, node_id: str, **values) -> int:
        """Add a node through the graph API, with widget values; returns its id."""
        return self.evaluate(_ADD_NODE, [node_id, values])

    def add_by_search(self, title: str) -> None:
        """Add a node as a person does: double click on the canvas, type its name, choose it, put it down.

        A busy page takes two clicks that reach it late for something else than a double click, so the gesture
        is made again until the dialog is there.

        Args:
            title: the node's display name.

        Raises:
            AssertionError: no dialog has come within DEADLINE_S.
        """
        canvas, dialog = self.page.locator("#graph-canvas"), self.page.get_by_role("dialog")
        deadline, patience_s = time.monotonic() + DEADLINE_S, 2.0
        while not dialog.count():
            assert time.monotonic() < deadline, f"no double click opened the dialog in {DEADLINE_S} s"
            canvas.dblclick(position={"x": 700, "y": 450})
            wait_end = time.monotonic() + patience_s
            while not dialog.count() and time.monotonic() < wait_end:
                self.page.wait_for_timeout(100)
            patience_s *= 1.5  # on a machine so slow, another gesture too early would close the dialog again
        dialog.get_by_role("combobox").fill(title)
        dialog.get_by_role("option").filter(has_text=re.compile(rf"^\W*{re.escape(title)}")).first.click()
        dialog.wait_for(state="detached")
        canvas.click(position={"x": 700, "y": 600})  # the new node hangs on the pointer until it is put down

    def load(self, workflow: dict | Path) -> None:
        """Open a workflow as the page's menu does; widgets of the one before are gone on return."""
        graph = json.loads(workflow.read_text("utf-8")) if isinstance(workflow, Path) else workflow
        self.evaluate(_LOAD, graph)
        self.page.wait_for_function(
            "(count) => app.graph._nodes.length === count && !document.querySelector('[data-earlier]')",
            arg=len(graph["nodes"]),
        )

    def save(self) -> dict:
        """The open workflow, as the page would save it."""
        return self.evaluate("() => JSON.parse(JSON.stringify(app.graph.serialize()))")

    def widgets(self, node_id) -> dict[str, dict]:
        """Value and disabled state of a node's widgets, by name."""
        return dict(self.evaluate(_READ_WIDGETS, node_id))

    def pick(self, node_id, name: str, value) -> None:
        """Choose a combo's value as a click on it does."""
        self.evaluate(_PICK, [node_id, name, value])

    def set_seed(self, node_id, seed: int) -> None:
        """Give a sampler a seed and keep it there."""
        self.evaluate(SET_VALUES, [node_id, {"seed": seed, "control_after_generate": "fixed"}])

    def watch_steps(self) -> None:
        """From now on, record the steps of arriving previews in window.vdotSteps, and count stills."""
        self.evaluate(_WATCH_STEPS)

    def nodes_of(self, node_type: str) -> list:
        """Ids of the nodes of one type."""
        return self.evaluate(
            "(type) => app.graph._nodes.filter((n) => n.type === type).map((n) => n.id)", node_type
        )

    def run(self, timeout_s: float = DEADLINE_S) -> str:
        """Press Run and wait for the end; returns the last execution event's name."""
        self.evaluate(_RUN)
        self.page.wait_for_function("() => window.vdotEnd", timeout=timeout_s * 1000)
        name, detail = self.evaluate("() => window.vdotEnd")
        return name if name == "execution_success" else f"{name}: {detail}"

    def wait_for_open_bitmaps(self, count: int) -> None:
        """Wait until so many of the pictures decoded so far hold memory; a timeout says that never were."""
        script = "(count) => window.vdotBitmaps.filter((bitmap) => bitmap.width > 0).length === count"
        self.page.wait_for_function(script, arg=count)
