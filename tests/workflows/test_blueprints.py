"""Blueprints: a real server lists them, and each runs with the demo when it stands in a graph."""

import json
from urllib.parse import quote

import pytest

from tests.support.comfy import ROOT
from tests.workflows.prompts import widgets

PATHS = sorted((ROOT / "subgraphs").glob("*.json"))
DEFAULT = "VDOT Inpaint"  # --full: all
INPUT_NODE, OUTPUT_NODE = -10, -20
# Inputs of the blueprints -> the node outside that gives them.
SOURCES = {
    "depth": ["clip", 0],
    "frames": ["clip", 0],
    "first": ["clip", 0],
    "image": ["picture", 0],
    "mask": ["mask", 0],
    **{name: ["load", slot] for slot, name in enumerate(("model", "clip", "vae", "size"))},
}


def parts(path) -> tuple[dict, dict]:
    """The node that stands for the blueprint, and the graph inside."""
    file = json.loads(path.read_text("utf-8"))
    (node,), (graph,) = file["nodes"], file["definitions"]["subgraphs"]
    assert node["type"] == graph["id"]
    return node, graph


def expanded(path, info: dict) -> tuple[dict, list]:
    """API prompt of the graph inside, with SOURCES and the node's own widgets; and what it gives out."""
    node, graph = parts(path)
    names = [entry["name"] for entry in graph["inputs"]]
    typed = dict(
        zip((name for _, name in node["properties"]["proxyWidgets"]), node["widgets_values"], strict=True)
    )
    outside = {**SOURCES, **typed}
    links = {link["id"]: link for link in graph["links"]}

    def source(number: int):
        link = links[number]
        inside = link["origin_id"] != INPUT_NODE
        return (
            [str(link["origin_id"]), link["origin_slot"]] if inside else outside[names[link["origin_slot"]]]
        )

    prompt = {}
    for inner in graph["nodes"]:
        linked = {i["name"]: source(i["link"]) for i in inner["inputs"] if i["link"] is not None}
        prompt[str(inner["id"])] = {"class_type": inner["type"], "inputs": {**widgets(inner, info), **linked}}
    (result,) = (link["id"] for link in links.values() if link["target_id"] == OUTPUT_NODE)
    return prompt, source(result)


def test_the_server_lists_them(server):
    listed = server.get("/global_subgraphs")
    ours = {entry["name"]: key for key, entry in listed.items() if "VDOT" in entry["info"]["node_pack"]}
    assert set(ours) == {path.stem for path in PATHS} and len(ours) == 4
    for path in PATHS:
        data = server.get(f"/global_subgraphs/{quote(ours[path.stem])}")["data"]
        assert json.loads(data) == json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_sockets_and_links_fit(path, info):
    node, graph = parts(path)
    outside = [(entry["name"], entry["type"]) for entry in node["inputs"]]
    assert outside == [(entry["name"], entry["type"]) for entry in graph["inputs"]]
    ends = {(INPUT_NODE, slot): entry["type"] for slot, entry in enumerate(graph["inputs"])}
    inner = {entry["id"]: entry for entry in graph["nodes"]}
    for link in graph["links"]:
        kind = ends.get((link["origin_id"], link["origin_slot"]))
        kind = kind or inner[link["origin_id"]]["outputs"][link["origin_slot"]]["type"]
        assert kind == link["type"]
        if link["target_id"] != OUTPUT_NODE:
            assert inner[link["target_id"]]["inputs"][link["target_slot"]]["link"] == link["id"]
    for entry in graph["nodes"]:
        assert [output["type"] for output in entry["outputs"]] == info[entry["type"]]["output"]
    for slot, entry in enumerate(graph["inputs"]):
        used = {
            link["id"]
            for link in graph["links"]
            if (link["origin_id"], link["origin_slot"]) == (INPUT_NODE, slot)
        }
        assert used == set(entry["linkIds"]) and used


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=() if "Inpaint" in path.stem else pytest.mark.full)
        for path in PATHS
    ],
)
def test_it_runs_with_the_demo(path, server, info):
    prompt, result = expanded(path, info)
    files = {"VDOT Depth to video": "depth.mp4", "VDOT Extend a clip": "start.mp4"}
    demo = dict.fromkeys(("model", "text_encoder", "vae"), "bundled demo")
    clip = {
        "file": files.get(path.stem, "clip.mp4"),
        "start": 0.0,
        "length": 5,
        "resolution": "auto",
        "fps": 16.0,
    }
    prompt |= {
        "load": {"class_type": "VDOTLoad", "inputs": demo},
        "clip": {"class_type": "VDOTLoadClip", "inputs": {**clip, "fps": 16.0, "size": ["load", 3]}},
        "picture": {"class_type": "LoadImage", "inputs": {"image": "subject.png"}},
        "mask": {"class_type": "LoadImageMask", "inputs": {"image": "mask.png", "channel": "red"}},
        "save": {"class_type": "SaveImage", "inputs": {"images": result, "filename_prefix": "blueprint"}},
    }
    run = server.run(prompt)
    assert run.status == "success", run.error
    expected = 5 if "size" not in [entry["name"] for entry in parts(path)[1]["inputs"]] else 17
    assert len(run.outputs["save"]["images"]) == expected
