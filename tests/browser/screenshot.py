"""Takes docs/images/depth_graph.png: the depth workflow in ComfyUI's page, after a run with the demo model.

python -m tests.browser.screenshot [--workflow NAME] [--renderer vue] [--out docs/images/depth_graph.png]
python -m tests.browser.screenshot --all outputs/page    # some templates in two sizes and both themes
python -m tests.browser.screenshot --nodes               # nodes whose help pages show themselves
"""

import argparse
import io
import logging
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from devtools.demo.options import read_workflow
from tests.browser.page import CHROMIUM_ARGS, GraphPage, find_chromium, frontend_arguments
from tests.support.comfy import ROOT
from tests.support.server import ComfyServer

log = logging.getLogger("vdot")

MAX_BYTES = 300 * 1024
NUM_COLORS = 128
SHOWN = ("vdot_depth", "vdot_layout", "vdot_outpaint")
SIZES = ((1440, 900), (1920, 1080))
# Picture of a help page: the node as it is added.
NODES = {"load": "VDOTLoad", "load_model": "VDOTLoadModel", "load_demo": "VDOTLoadDemo"}
HELP = ROOT / "js" / "docs" / "images"
NODE_MARGIN_PX, MODEL_FILE = 10, "models/diffusion_models/vdot_14b_fp8_scaled.safetensors"
# Widgets that hide themselves leave their room.
_FIT = "(id) => { const node = app.graph.getNodeById(id); node.setSize([280, 0]) }"
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


def shoot_page(page: GraphPage, workflow: dict, size: tuple[int, int]) -> Image.Image:
    """The view of a person who opens a template in a window of `size` and runs it."""
    page.page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    page.load(workflow)
    state = page.run(300)
    if state != "execution_success":
        raise RuntimeError(f"the workflow did not run: {state}")
    page.page.wait_for_timeout(2500)
    return Image.open(io.BytesIO(page.page.screenshot())).convert("RGB")


def shoot_all(page: GraphPage, server: ComfyServer, folder: Path) -> None:
    """Write the page with SHOWN, in both themes and SIZES."""
    for theme in ("dark", "light"):
        server.post("/settings", {"Comfy.ColorPalette": theme})
        page.open()
        for name in SHOWN:
            for size in SIZES:
                path = folder / f"{name}_{size[0]}_{theme}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                shoot_page(page, read_workflow(name), size).save(path)  # in true colors, to be judged
                log.info("%s", path)


def shoot_nodes(page: GraphPage) -> None:
    """Write the pictures of NODES into HELP."""
    for name, kind in NODES.items():
        page.clear()
        number = page.add(kind)
        page.look_at(200, 200, 1.0)
        page.evaluate(_FIT, number)
        node = page.page.locator(f'[data-node-id="{number}"]')
        page.wait_until_still(node)
        box = node.bounding_box()
        clip = {
            **{side: box[side] - NODE_MARGIN_PX for side in ("x", "y")},
            **{side: box[side] + 2 * NODE_MARGIN_PX for side in ("width", "height")},
        }
        picture = Image.open(io.BytesIO(page.page.screenshot(clip=clip))).convert("RGB")
        log.info("%s: %.0f KB", name, save(picture, HELP / f"{name}.png") / 1024)


def main() -> None:
    """Start a server and a browser, take the pictures and end both."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workflow", default="vdot_depth")
    parser.add_argument("--renderer", choices=("vue", "litegraph"), default="vue")
    parser.add_argument("--scale", type=float, default=0.8)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "depth_graph.png")
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="the page with some templates, instead")
    parser.add_argument("--nodes", action="store_true", help="loaders for the help pages, instead")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "assets" / "examples", Path(folder) / "input")
        if options.nodes:
            Path(folder, MODEL_FILE).parent.mkdir(parents=True)
            Path(folder, MODEL_FILE).touch()
        with (
            ComfyServer(Path(folder), *frontend_arguments()) as server,
            sync_playwright() as playwright,
        ):
            vue = options.renderer == "vue"
            settings = {
                "Comfy.TutorialCompleted": True,
                "Comfy.VueNodes.Enabled": vue,
                "Comfy.Minimap.Visible": False,
            }
            server.post("/settings", settings)
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(CHROMIUM_ARGS))
            page = GraphPage(browser, server.port)
            if options.all:
                shoot_all(page, server, options.all)
            elif options.nodes:
                shoot_nodes(page)
            else:
                picture = shoot(page, read_workflow(options.workflow), options.scale)
                size_kb = save(picture, options.out) / 1024
                log.info("%s: %d x %d, %.0f KB", options.out, *picture.size, size_kb)
            browser.close()


if __name__ == "__main__":
    main()
