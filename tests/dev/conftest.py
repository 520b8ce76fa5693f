"""One real ComfyUI server for the demo's tests, with the demo's tap."""

import asyncio
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.comfy import comfyui_path


@pytest.fixture(scope="session")
def comfyui() -> Path:
    return comfyui_path()


@pytest.fixture(scope="session")
def server(comfyui, tmp_path_factory):
    from devtools.demo.run import TAP_NODE
    from devtools.server import ComfyServer

    base = tmp_path_factory.mktemp("comfy")
    running = ComfyServer(Path(sys.executable), comfyui, base)
    shutil.copy(TAP_NODE, base / "custom_nodes" / "vdot_demo_tap.py")
    with running:
        yield running


@pytest.fixture(scope="session")
def object_info(server) -> dict:
    from devtools.demo.client import ComfyClient

    async def ask():
        async with ComfyClient(server.url) as client:
            return await client.object_info()

    return asyncio.run(ask())
