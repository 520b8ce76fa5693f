"""The pack's names, explanations and import time."""

import ast
import inspect
import json
import subprocess
import sys
import textwrap

import pytest

from tests.support.comfy import ROOT
from tests.support.pack import submodule

PIPELINE = [
    "VDOTLoad",
    "VDOTLoadModel",
    "VDOTLoadDemo",
    "VDOTLoadClip",
    "VDOTBoxMask",
    "VDOTCrop",
    "VDOTText",
    "VDOTControl",
    "VDOTDepth",
    "VDOTLayout",
    "VDOTMask",
    "VDOTOutpaint",
    "VDOTExtend",
    "VDOTKeyframes",
    "VDOTMove",
    "VDOTReference",
    "VDOTCompose",
    "VDOTStrength",
    "VDOTStepRange",
    "VDOTPreviewUnit",
    "VDOTEncode",
    "VDOTSampler",
    "VDOTFromFrame",
    "VDOTLongVideo",
    "VDOTPasteBack",
    "VDOTStitch",
]


def all_inputs(node):
    for entry in node.GET_SCHEMA().inputs:
        yield entry
        if hasattr(entry, "template"):
            yield entry.template.input


def test_nodes_come_in_pipeline_order(node_classes):
    assert [name for name in node_classes if name in PIPELINE] == PIPELINE


def test_every_node_explains_itself(node_classes):
    for node_id, node in node_classes.items():
        schema = node.GET_SCHEMA()
        assert node_id.startswith("VDOT") and schema.category.startswith("VDOT/")
        assert schema.display_name and schema.display_name != node_id
        assert len(schema.description) > 30, node_id
        for entry in all_inputs(node):
            assert entry.tooltip and len(entry.tooltip) > 10, f"{node_id}.{entry.id} has no tooltip"
        for output in schema.outputs:
            assert output.tooltip and len(output.tooltip) > 10, f"{node_id} output {output.display_name}"


def test_execute_is_short(node_classes):
    for node_id, node in node_classes.items():
        lines, _ = inspect.getsourcelines(node.execute.__func__)
        assert len(lines) <= 26, f"{node_id}.execute has {len(lines)} lines"


def test_choices_are_those_of_the_library(node_classes):
    sampling, vcu, sample = (
        submodule(f"{name}") for name in ("vdot_core.sampling", "vdot_core.vcu", "nodes.sample_inputs")
    )
    assert set(sample.PRESETS) == {*sampling.PRESETS, "auto", "custom"}
    assert submodule("nodes.sizes").CLASSES == tuple(vcu.SIZES)


def test_saved_workflows_keep_loading(node_classes):
    """Required inputs come first, so that an input added later, at the end, is optional."""
    for node_id, node in node_classes.items():
        optional = [
            bool(entry.optional) for entry in node.GET_SCHEMA().inputs if not hasattr(entry, "template")
        ]
        assert optional == sorted(optional), f"{node_id}: a required input after an optional one"


def test_the_root_imports_nothing():
    code = """
    import importlib.util, json, sys
    before = set(sys.modules)
    from_file = importlib.util.spec_from_file_location
    spec = from_file("vdot_root", "__init__.py", submodule_search_locations=["."])
    module = importlib.util.module_from_spec(spec)
    sys.modules["vdot_root"] = module
    spec.loader.exec_module(module)
    print(json.dumps([sorted(set(sys.modules) - before - {"vdot_root"}), module.WEB_DIRECTORY]))
    """
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(out.stdout) == [[], "./js"]


def test_nothing_of_comfyui_at_the_top_of_the_root():
    tree = ast.parse((ROOT / "__init__.py").read_text())
    assert not [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets}
    assert "NODE_CLASS_MAPPINGS" not in names, "ComfyUI would never call comfy_entrypoint"


def test_entrypoint_logs_the_traceback(pack, monkeypatch, caplog):
    import asyncio

    monkeypatch.setitem(sys.modules, f"{pack.__name__}.nodes", None)
    with pytest.raises(ImportError):
        asyncio.run(pack.comfy_entrypoint())
    assert "Traceback" in caplog.text and "could not be loaded" in caplog.text


def test_the_pack_costs_nothing_until_used():
    """With ComfyUI loaded: CPU time of the import, memory, and which libraries are imported."""
    code = """
    import asyncio, json, sys, time
    sys.path.insert(0, ".")
    from tests.support.comfy import import_comfy
    begin = time.process_time()
    import_comfy()
    import aiohttp.web, nodes, psutil, comfy.sd, comfy_api.latest, latent_preview, node_helpers
    from comfy_extras import nodes_wan
    from tests.support.pack import load_nodes
    process, before = psutil.Process(), set(sys.modules)
    rss, start = process.memory_info().rss, time.process_time()
    load_nodes()
    seconds, grown = time.process_time() - start, process.memory_info().rss - rss
    heavy = {name.split(".")[0] for name in set(sys.modules) - before}
    print(json.dumps([seconds, start - begin, grown / 2**20, sorted(heavy)]))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, comfy_seconds, grown_mb, libraries = json.loads(out.stdout.splitlines()[-1])
    print(f"pack: {seconds:.3f} s of CPU, ComfyUI: {comfy_seconds:.3f} s, {grown_mb:.1f} MB, {libraries}")
    assert seconds < 0.2 and grown_mb < 10
    assert not {"diffusers", "kornia", "transformers", "einops", "cv2", "scipy"} & set(libraries)
