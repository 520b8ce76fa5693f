"""Loads the node pack inside the test process as ComfyUI does: by file location, under its own name."""

import asyncio
import importlib.util
import sys
from types import ModuleType

from tests.support.comfy import ROOT, import_comfy

PACK = "vdot_pack_under_test"


def load_pack() -> ModuleType:
    """Import the repository as a package named `PACK`, with the real ComfyUI importable too.

    The package holds its own copy of `vdot_core`, as it does inside ComfyUI: values handed to nodes must be
    made from that copy (`submodule("vdot_core.vcu")`).
    """
    if PACK not in sys.modules:
        import_comfy()
        spec = importlib.util.spec_from_file_location(
            PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules[PACK] = module
        spec.loader.exec_module(module)
    return sys.modules[PACK]


def load_nodes() -> dict[str, type]:
    """The pack's node classes by node id, through its real entry point."""
    extension = asyncio.run(load_pack().comfy_entrypoint())
    asyncio.run(extension.on_load())
    return {node.GET_SCHEMA().node_id: node for node in asyncio.run(extension.get_node_list())}


def submodule(name: str) -> ModuleType:
    """A module of the pack by dotted name, e.g. `nodes.comfy_bridge`."""
    load_pack()
    return importlib.import_module(f"{PACK}.{name}")


def run_node(node: type, **inputs):
    """Call a node's `execute` as ComfyUI does, in inference mode on a prepared clone of the class."""
    import torch

    with torch.inference_mode():
        return node.PREPARE_CLASS_CLONE({"hidden_inputs": {}}).execute(**inputs)
