"""One real server for all tests of workflows."""

import pytest

from tests.support.server import ComfyServer


@pytest.fixture(scope="package")
def server(comfy, tmp_path_factory):
    """A server of an ordinary install, without any file: the pack puts its examples into the input folder."""
    with ComfyServer(tmp_path_factory.mktemp("comfyui")) as server:
        yield server


@pytest.fixture(scope="package")
def info(server):
    """The server's description of its nodes."""
    return server.get("/object_info")
