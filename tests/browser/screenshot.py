"""Takes docs/images/depth_graph.png: the depth workflow in ComfyUI's page, after a run with the demo model.

python -m tests.browser.screenshot [--workflow NAME] [--renderer vue] [--out docs/images/depth_graph.png]
"""

import argparse
import io
import json
import logging
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser.page import CHROMIUM_ARGS, GraphPage, find_chromium
from tests.support.comfy import ROOT
from tests.support.server import ComfyServer

log = logging.getLogger("vdot")

MAX_BYTES = 300 * 1024
NUM_COLORS = 128
CHROME_LEFT_PX, CHROME_TOP_PX, MARGIN_PX = 60, 100, 16
# Lays the graph out next to the menus at `scale` and answers its size on the screen.
_FRAME = """([left, top, scale]) => {
    const boxes = [...app.graph._nodes.map((n) => [n.pos[0], n.pos[1] - 30, n.size[0], n.size[1] + 30]),
                   ...app.graph._groups.map((g) => [g.pos[0], g.pos[1], g.size[0], g.size[1]])]
    const x = Math.min(...boxes.map((box) => box[0])), y = Math.min(...boxes.map((box) => box[1]))
    app.canvas.ds.scale = scale
    app.canvas.ds.offset = [left / scale - x, top / scale - y]
    app.canvas.setDirty(true, true)
    return [(Math.max(...boxes.map((box) => box[0] + box[2])) - x) * scale,
            (Math.max(...boxes.map((box) => box[1] + box[3])) - y) * scale]
}"""
_HIDE_CHROME = (
    ".p-toast, .graph-canvas-panel > *:not(canvas), [class*=toast] { visibility: hidden !important }"
)


def shoot(page: GraphPage, workflow: dict, scale: float) -> Image.Image:
    """Open a workflow, run it and return a picture of its graph."""
    page.load(workflow)
    state = page.run(300)
    if state != "execution_success":
        raise RuntimeError(f"the workflow did not run: {state}")
    page.page.wait_for_timeout(3000)
    place = [CHROME_LEFT_PX + MARGIN_PX, CHROME_TOP_PX + MARGIN_PX, scale]
    width, height = (round(side) for side in page.evaluate(_FRAME, place))
    clip = {
        "x": CHROME_LEFT_PX,
        "y": CHROME_TOP_PX,
        "width": width + 2 * MARGIN_PX,
        "height": height + 2 * MARGIN_PX,
    }
    page.page.set_viewport_size(
        {"width": CHROME_LEFT_PX + clip["width"], "height": CHROME_TOP_PX + clip["height"] + 80}
    )
    page.evaluate(_FRAME, place)
    page.page.add_style_tag(content=_HIDE_CHROME)
    page.page.wait_for_timeout(1500)
    return Image.open(io.BytesIO(page.page.screenshot(clip=clip))).convert("RGB")


def save(picture: Image.Image, path: Path) -> int:
    """Write a PNG of at most MAX_BYTES; returns its size in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        buffer = io.BytesIO()
        picture.quantize(NUM_COLORS).save(buffer, "PNG", optimize=True)
        if buffer.tell() <= MAX_BYTES:
            path.write_bytes(buffer.getvalue())
            return buffer.tell()
        size = (picture.width * 19 // 20, picture.height * 19 // 20)
        picture = picture.resize(size, Image.Resampling.LANCZOS)


def main() -> None:
    """Start a server and a browser, take the picture and end both."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workflow", default="vdot_depth")
    parser.add_argument("--renderer", choices=("vue", "litegraph"), default="vue")
    parser.add_argument("--scale", type=float, default=0.8)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "depth_graph.png")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    workflow = json.loads((ROOT / "workflows" / f"{options.workflow}.json").read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "assets" / "examples", Path(folder) / "input")
        with ComfyServer(Path(folder)) as server, sync_playwright() as playwright:
            vue = options.renderer == "vue"
            settings = {
                "Comfy.TutorialCompleted": True,
                "Comfy.VueNodes.Enabled": vue,
                "Comfy.Minimap.Visible": False,
            }
            server.post("/settings", settings)
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(CHROMIUM_ARGS))
            picture = shoot(GraphPage(browser, server.port), workflow, options.scale)
            browser.close()
    log.info("%s: %d x %d, %.0f KB", options.out, *picture.size, save(picture, options.out) / 1024)


if __name__ == "__main__":
    main()
