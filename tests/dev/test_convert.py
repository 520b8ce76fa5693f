"""UI workflow -> API prompt: small graphs here, every template that ComfyUI ships in test_demo.py."""

import json

import pytest

from devtools.demo.convert import to_prompt
from devtools.demo.options import WORKFLOWS
from devtools.demo.titles import TITLES, name_of
from devtools.errors import DevError

FLOAT = ["FLOAT", {"default": 1.5}]
RESIZE = [
    "COMFY_DYNAMICCOMBO_V3",
    {
        "options": [
            {
                "key": "by size",
                "inputs": {"required": {"width": ["INT", {"default": 8}], "height": ["INT", {}]}},
            },
            {
                "key": "by factor",
                "inputs": {
                    "required": {"factor": FLOAT},
                    "optional": {
                        "mode": [
                            "COMFY_DYNAMICCOMBO_V3",
                            {
                                "options": [
                                    {"key": "a", "inputs": {}},
                                    {"key": "b", "inputs": {"required": {"x": FLOAT}}},
                                ]
                            },
                        ]
                    },
                },
            },
        ]
    },
]
INFO = {
    "Load": {
        "input": {"required": {"image": [["a.png", "b.png"], {"image_upload": True}]}},
        "output": ["IMAGE", "MASK"],
    },
    "Resize": {
        "input": {"required": {"image": ["IMAGE"], "how": RESIZE, "method": [["area", "cubic"]]}},
        "output": ["IMAGE"],
    },
    "Sample": {
        "input": {
            "required": {
                "image": ["IMAGE", {}],
                "seed": ["INT", {"control_after_generate": True}],
                "steps": ["INT", {"default": 4}],
                "sockets": ["INT", {"forceInput": True}],
                "preset": ["COMBO", {"options": ["released", "sharp"]}],
            },
            "optional": {"cfg": FLOAT, "note": ["STRING", {"default": ""}]},
        },
        "output": ["LATENT"],
    },
    "Batch": {
        "input": {
            "required": {
                "images": ["COMFY_AUTOGROW_V3", {"template": {"input": {"required": {"image": ["IMAGE"]}}}}]
            }
        },
        "output": ["IMAGE"],
    },
    "Save": {"input": {"required": {"images": ["*"]}}, "output": []},
}


class Workflow:
    """Builds a workflow as the front end saves it."""

    def __init__(self):
        self.nodes, self.links = [], []

    def node(self, kind, values=None, mode=0, outputs=("IMAGE",), **links):
        """Add a node; each keyword is an input: a node id, (node id, slot) or None for nothing connected."""
        number = len(self.nodes) + 1
        entries = []
        for name, source in links.items():
            link = None
            if source is not None:
                origin, slot = source if isinstance(source, tuple) else (source, 0)
                link = len(self.links) + 100
                self.links.append([link, origin, slot, number, len(entries), "IMAGE"])
            entries.append({"name": name.replace("__", "."), "type": "IMAGE", "link": link})
        outputs = [{"type": kind_of_output} for kind_of_output in outputs]
        self.nodes.append(
            {
                "id": number,
                "type": kind,
                "mode": mode,
                "widgets_values": values,
                "inputs": entries,
                "outputs": outputs,
            }
        )
        return number

    def convert(self):
        return to_prompt({"nodes": self.nodes, "links": self.links}, INFO)


@pytest.fixture
def flow():
    return Workflow()


def test_widgets_get_their_names_and_the_seeds_button_is_passed_over(flow):
    load = flow.node("Load", ["b.png", "image"])
    flow.node("Sample", [7, "randomize", 5, "sharp", 2.0, "fixed"], image=load)
    prompt = flow.convert()
    assert prompt["1"]["inputs"] == {"image": "b.png"}
    expected = {"image": ["1", 0], "seed": 7, "steps": 5, "preset": "sharp", "cfg": 2.0, "note": "fixed"}
    assert prompt["2"]["inputs"] == expected


def test_a_seed_saved_without_its_button_is_read_too(flow):
    flow.node("Sample", [7, 5, "sharp"])
    assert flow.convert()["1"]["inputs"] == {"seed": 7, "steps": 5, "preset": "sharp", "cfg": 1.5, "note": ""}


def test_values_that_an_old_file_lacks_are_the_defaults(flow):
    flow.node("Sample", [7, "fixed"])
    assert flow.convert()["1"]["inputs"] == {
        "seed": 7,
        "steps": 4,
        "preset": "released",
        "cfg": 1.5,
        "note": "",
    }


def test_a_connected_widget_takes_the_link_and_still_uses_up_its_value(flow):
    load = flow.node("Load", ["a.png"])
    flow.node("Sample", [7, "fixed", 5, "sharp", 2.0, "n"], steps=load)
    inputs = flow.convert()["2"]["inputs"]
    assert inputs["steps"] == ["1", 0]
    assert (inputs["preset"], inputs["cfg"]) == ("sharp", 2.0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            ["by size", 64, 32, "cubic"],
            {"how": "by size", "how.width": 64, "how.height": 32, "method": "cubic"},
        ),
        (
            ["by factor", 2.0, "a", "area"],
            {"how": "by factor", "how.factor": 2.0, "how.mode": "a", "method": "area"},
        ),
        (
            ["by factor", 2.0, "b", 0.5, "area"],
            {"how": "by factor", "how.factor": 2.0, "how.mode": "b", "how.mode.x": 0.5, "method": "area"},
        ),
    ],
)
def test_dynamic_combos_bring_the_inputs_of_their_choice(flow, values, expected):
    flow.node("Resize", values)
    assert flow.convert()["1"]["inputs"] == expected


def test_growing_inputs_keep_their_full_names(flow):
    load = flow.node("Load", ["a.png"])
    flow.node("Batch", None, images__image0=load, images__image1=(load, 0), images__image2=None)
    assert flow.convert()["2"]["inputs"] == {"images.image0": ["1", 0], "images.image1": ["1", 0]}


def test_muted_nodes_and_what_comes_from_them_are_left_out(flow):
    load = flow.node("Load", ["a.png"], mode=2)
    flow.node("Save", None, images=load)
    assert flow.convert() == {"2": {"class_type": "Save", "inputs": {}, "_meta": {"title": "Save"}}}


def test_bypassed_nodes_pass_on_the_input_of_the_same_type(flow):
    load = flow.node("Load", ["a.png"], outputs=("IMAGE", "MASK"))
    middle = flow.node("Resize", ["by factor", 2.0, "a", "area"], mode=4, image=(load, 1))
    again = flow.node("Resize", ["by factor", 2.0, "a", "area"], mode=4, image=middle)
    flow.node("Save", None, images=again)
    prompt = flow.convert()
    assert set(prompt) == {"1", "4"}
    assert prompt["4"]["inputs"] == {"images": ["1", 1]}


def test_a_bypassed_node_without_a_fitting_input_gives_nothing(flow):
    load = flow.node("Load", ["a.png"])
    middle = flow.node("Sample", [1], mode=4, outputs=("LATENT",), image=load)
    flow.node("Save", None, images=middle)
    assert flow.convert()["3"]["inputs"] == {}


def test_notes_reroutes_and_primitives_vanish(flow):
    flow.node("MarkdownNote", ["# hello"])
    load = flow.node("Load", ["a.png"])
    one = flow.node("Reroute", None, x=load)
    two = flow.node("Reroute", None, x=one)
    number = flow.node("PrimitiveNode", [9, "fixed"])
    flow.node("Sample", [7, "fixed", 5, "sharp"], image=two, steps=number)
    prompt = flow.convert()
    assert set(prompt) == {"2", "6"}
    assert prompt["6"]["inputs"]["image"] == ["2", 0]
    assert prompt["6"]["inputs"]["steps"] == 9


def test_links_saved_as_objects_are_read(flow):
    load = flow.node("Load", ["a.png"])
    flow.node("Save", None, images=load)
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    flow.links = [dict(zip(names, link, strict=True)) for link in flow.links]
    assert flow.convert()["2"]["inputs"] == {"images": ["1", 0]}


def test_values_saved_by_name_are_read(flow):
    flow.node("Sample", {"seed": 3, "preset": "sharp", "videopreview": {"hidden": False}})
    assert flow.convert()["1"]["inputs"] == {"seed": 3, "preset": "sharp"}


def test_a_list_is_not_mistaken_for_a_link(flow):
    flow.node("Sample", [7, "fixed", 5, "sharp", 1.0, ["a", 0]])
    assert flow.convert()["1"]["inputs"]["note"] == {"__value__": ["a", 0]}


def test_a_choice_among_no_files_is_kept_as_saved(flow):
    """A loader on a server whose input folder is empty."""
    info = {
        **INFO,
        "Load": {"input": {"required": {"image": [[], {"image_upload": True}]}}, "output": ["IMAGE"]},
    }
    flow.node("Load", ["b.png", "image"])
    flow.node("Load", [])
    prompt = to_prompt({"nodes": flow.nodes, "links": []}, info)
    assert [node["inputs"] for node in prompt.values()] == [{"image": "b.png"}, {}]


def test_what_cannot_be_converted_is_named(flow):
    flow.node("SomebodysNode")
    with pytest.raises(DevError, match="node 1 is a SomebodysNode"):
        flow.convert()
    with pytest.raises(DevError, match="subgraphs"):
        to_prompt({"nodes": [], "links": [], "definitions": {"subgraphs": [{}]}}, INFO)


def test_shipped_workflows_are_there_and_need_no_subgraphs():
    paths = sorted(WORKFLOWS.glob("*.json"))
    assert {name_of(path.stem) for path in paths} == set(TITLES)
    for path in paths:
        assert not (json.loads(path.read_text(encoding="utf-8")).get("definitions") or {}).get("subgraphs"), (
            path.name
        )
