"""The bundled workflows: complete, laid out, and run to a video by a real server with the demo model."""

import json
import shutil

import av
import pytest

from tests.support.comfy import ROOT, comfyui_path
from tests.support.server import ComfyServer

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
NAMES = {"vdot_text.json", "vdot_depth.json", "vdot_inpaint.json"}
NATIVE_TAIL = {"CLIPTextEncode", "VAEDecode", "CreateVideo", "SaveVideo"}
FRONTEND_ONLY = {"MarkdownNote"}


@pytest.fixture(scope="module")
def server(comfy, tmp_path_factory):
    """A server with the examples in its input folder and no model files at all."""
    base = tmp_path_factory.mktemp("comfyui")
    server = ComfyServer(base)
    for file in (ROOT / "assets/examples").iterdir():
        shutil.copy(file, base / "input" / file.name)
    with server:
        yield server


@pytest.fixture(scope="module")
def info(server):
    return server.get("/object_info")


def to_prompt(workflow: dict, info: dict) -> dict:
    """API prompt of a flat workflow: linked inputs by name, widgets in the order of /object_info."""
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in FRONTEND_ONLY:
            continue
        linked = {i["name"]: sources[i["link"]] for i in node["inputs"] if i["link"] is not None}
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": {**widgets(node, info), **linked}}
    return prompt


def widgets(node: dict, info: dict) -> dict:
    values, named, num_uploads = list(node.get("widgets_values", [])), {}, 0
    entry = info[node["type"]]["input"]
    for name, (kind, *options) in {**entry.get("required", {}), **entry.get("optional", {})}.items():
        options = options[0] if options else {}
        is_widget = isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
        if not (is_widget or kind == "COMFY_DYNAMICCOMBO_V3") or options.get("forceInput"):
            continue
        assert values, f"{node['type']}: no value for {name}"
        named[name] = values.pop(0)
        if options.get("control_after_generate"):
            assert values.pop(0) in ("fixed", "randomize", "increment", "decrement")
        num_uploads += bool(options.get("image_upload") or options.get("video_upload"))
    # The page puts upload buttons after all other widgets.
    assert values == ["image"] * num_uploads, f"{node['type']}: {values} belong to no widget"
    return named


def load(path) -> dict:
    return json.loads(path.read_text())


def test_the_three_are_there():
    assert {path.name for path in WORKFLOWS} >= NAMES


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_node_matches_the_server(path, info):
    workflow = load(path)
    types = {node["type"] for node in workflow["nodes"]}
    assert {"VDOTLoadDemo", "VDOTEncode", "VDOTSampler", "MarkdownNote"} | NATIVE_TAIL <= types
    assert types - FRONTEND_ONLY <= set(info), "nodes that a bare ComfyUI with this pack does not have"
    outputs = {node["id"]: node["outputs"] for node in workflow["nodes"]}
    for link_id, source, slot, target, place, kind in workflow["links"]:
        assert outputs[source][slot]["type"] == kind and link_id in outputs[source][slot]["links"]
        node = next(node for node in workflow["nodes"] if node["id"] == target)
        assert node["inputs"][place]["link"] == link_id and node["inputs"][place]["type"] == kind
    for node in workflow["nodes"]:
        if node["type"] not in FRONTEND_ONLY:
            shown = [output["type"] for output in node["outputs"]]
            assert shown == info[node["type"]]["output"], node["type"]
            entry = info[node["type"]]["input"]
            names = {*entry.get("required", {}), *entry.get("optional", {})}
            assert {i["name"] for i in node["inputs"]} <= names, node["type"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_layout_has_no_overlaps_and_groups_hold_everything(path):
    workflow = load(path)
    boxes = [(node["id"], *node["pos"], *node["size"]) for node in workflow["nodes"]]
    for index, (a, x, y, w, h) in enumerate(boxes):
        for b, x2, y2, w2, h2 in boxes[index + 1 :]:
            title = 30
            apart = x + w <= x2 or x2 + w2 <= x or y + h <= y2 - title or y2 + h2 <= y - title
            assert apart, f"nodes {a} and {b} overlap"
    for node in workflow["nodes"]:
        if node["type"] in FRONTEND_ONLY:
            continue
        inside = [
            group["title"]
            for group in workflow["groups"]
            if group["bounding"][0] <= node["pos"][0]
            and node["pos"][0] + node["size"][0] <= group["bounding"][0] + group["bounding"][2]
            and group["bounding"][1] <= node["pos"][1]
            and node["pos"][1] + node["size"][1] <= group["bounding"][1] + group["bounding"][3]
        ]
        assert len(inside) == 1, node["type"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_note_tells_how_to_use_the_large_model(path):
    notes = [node for node in load(path)["nodes"] if node["type"] == "MarkdownNote"]
    text = notes[0]["widgets_values"][0]
    for word in ("VDOT Load Model", "Load CLIP", "Load VAE", "14B", "832 x 480"):
        assert word in text


def test_examples_are_small():
    for file in (ROOT / "assets/examples").iterdir():
        assert file.stat().st_size < 100_000


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_runs_to_a_video(path, server, info):
    prompt = to_prompt(load(path), info)
    run = server.run(prompt)
    assert run.status == "success", run.error
    (video,) = [output["images"][0] for output in run.outputs.values() if "images" in output]
    file = server.base / "output" / video["subfolder"] / video["filename"]
    with av.open(str(file)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert float(container.streams.video[0].average_rate) == 16
    assert len(frames) == 17 and frames[0].shape == (64, 64, 3)
    assert max(frame.std() for frame in frames) > 5, "a flat picture"
    assert len(run.of_type("vdot.preview")) == 4


def test_no_copy_of_comfyui_s_templates():
    for folder in ("example_workflows", "templates"):
        assert not (ROOT / folder).exists(), "one template folder only, or ComfyUI lists each twice"
    assert comfyui_path()
