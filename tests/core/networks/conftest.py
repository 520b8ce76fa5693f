"""ComfyUI's side of the network, loaded once."""

import pytest

from tests.core.networks.comfy_pairs import make_pair
from tests.support.pack import submodule


@pytest.fixture(scope="session")
def module(comfy):
    """The pack's `nodes.comfy_network`, loaded as ComfyUI loads it."""
    return submodule("nodes.comfy_network")


@pytest.fixture(scope="session")
def networks(module):
    """(ours, ComfyUI's own) with the same random weights, both with ComfyUI's layers."""
    import comfy.ops

    return make_pair(module, comfy.ops.disable_weight_init)
