"""One real server for all tests of workflows."""

import shutil

import pytest

from tests.support.comfy import ROOT
from tests.support.server import ComfyServer


@pytest.fixture(scope="package")
def server(comfy, tmp_path_factory):
    """A server with the examples in its input folder and no model files at all."""
    base = tmp_path_factory.mktemp("comfyui")
    server = ComfyServer(base)
    for file in (ROOT / "assets/examples").iterdir():
        shutil.copy(file, base / "input" / file.name)
    with server:
        yield server


@pytest.fixture(scope="package")
def info(server):
    """The server's description of its nodes."""
    return server.get("/object_info")
