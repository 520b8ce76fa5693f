"""A ComfyUI server and a browser, shared by the tests of this folder; one open page per renderer."""

import json
import shutil

import pytest

from devtools.demo.options import workflow_file
from tests.browser.page import GraphPage, frontend_arguments, open_chromium
from tests.support.comfy import ROOT
from tests.support.server import ComfyServer

RENDERERS = ("litegraph", pytest.param("vue", marks=pytest.mark.full))


@pytest.fixture(scope="package")
def server(tmp_path_factory):
    """A ComfyUI with the pack and its example inputs, which does not greet with the template browser."""
    base = tmp_path_factory.mktemp("browser")
    shutil.copytree(ROOT / "assets" / "examples", base / "input")
    # ComfyUI's own still previews on: they must not appear next to the moving one.
    with ComfyServer(base, "--preview-method", "latent2rgb", *frontend_arguments()) as running:
        running.post("/settings", {"Comfy.TutorialCompleted": True})
        yield running


@pytest.fixture(scope="package")
def browser():
    """Chromium without a window. Skips where Playwright or a browser is not installed."""
    with open_chromium() as running:
        yield running


@pytest.fixture(scope="package", params=RENDERERS)
def page(request, server, browser):
    """An open page; with --full, both renderers of ComfyUI's front end in turn."""
    server.post("/settings", {"Comfy.VueNodes.Enabled": request.param == "vue", "Comfy.Locale": "en"})
    opened = GraphPage(browser, server.port)
    opened.renderer = request.param
    yield opened
    opened.close()


@pytest.fixture(scope="package")
def demo_workflow() -> dict:
    """The shipped depth workflow, which runs on the bundled demo model."""
    return json.loads(workflow_file("vdot_depth").read_text("utf-8"))
