"""Refusals name inputs as the node shows them, not arguments of the functions behind it."""

import pytest
import torch

from tests.nodes.names import foreign_names, inputs_of, parameters
from tests.support.pack import load_nodes, run_node, submodule

CLIP, MASK = torch.rand(9, 32, 48, 3), torch.ones(9, 32, 48)
SAME = {"width": 0, "height": 0, "length": 0}
REPAINT = {"mask_shape": "original", "expand": 0.0, **SAME}
CASES = {
    "curve, a moment twice": ("VDOTStrength", {"unit": 9, "curve": "0: 1, -9: 0.5"}, "curve"),
    "curve, a frame beyond": ("VDOTStrength", {"unit": 9, "curve": "20: 1"}, "curve"),
    "curve, a product": ("VDOTStrength", {"unit": 9, "curve": "0: 10", "times": 50}, "curve times"),
    "strength, a product": ("VDOTEncode", {"unit": 9, "strength": 10.0, "times": 50}, "strength times"),
    "percents": ("VDOTStepRange", {"unit": 9, "start_percent": 0.5, "end_percent": 0.5}, "start_percent"),
    "control's values": ("VDOTControl", {"frames": CLIP * 255, **SAME}, "frames ranges"),
    "control's region": ("VDOTControl", {"frames": CLIP, **SAME, "region": MASK[:2]}, "clip in frames"),
    "depth's region": (
        "VDOTDepth",
        {"depth": CLIP[..., :1], "normalization": "frame", "invert": False, **SAME, "region": MASK[:2]},
        "clip in depth",
    ),
    "mask's length": ("VDOTMask", {"frames": CLIP, "mask": MASK[:2], **REPAINT}, "clip in frames"),
    "mask's size": ("VDOTMask", {"frames": CLIP, "mask": MASK[:, :16], **REPAINT}, "clip in frames"),
    "crop's values": (
        "VDOTCrop",
        {"frames": CLIP * 255, "mask": MASK, "margin": 0.5, "width": 0, "height": 0},
        "frames ranges",
    ),
    "made clip's values": ("VDOTPasteBack", {"images": CLIP * 255, "unit": 9, "feather_px": 8}, "images"),
    "a path's moment": (
        "VDOTMove",
        {"image": CLIP[:1], "boxes": "20: 5, 5", "length": 9, "width": 0, "height": 0},
        "boxes",
    ),
}


@pytest.fixture(scope="module")
def nodes(pack):
    return load_nodes()


@pytest.fixture(scope="module")
def known(nodes):
    return parameters().union(*map(inputs_of, nodes.values()))


def refusal(nodes, node_id, values):
    vcu = submodule("vdot_core.vcu")
    values, times = dict(values), values.get("times", 1)
    values.pop("times", None)
    if isinstance(values.get("unit"), int):
        values["unit"] = vcu.control(CLIP).scaled(times)
    if node_id == "VDOTEncode":
        _, clip, vae = submodule("nodes.comfy_demo").load_demo()
        values |= {"positive": clip.encode_from_tokens_scheduled(clip.tokenize("a")), "vae": vae}
    with pytest.raises(ValueError) as error:
        run_node(nodes[node_id], **values)
    return str(error.value)


@pytest.mark.parametrize("case", CASES)
def test_a_refusal_names_the_nodes_own_input(nodes, known, case):
    node_id, values, name = CASES[case]
    text = refusal(nodes, node_id, values)
    assert name in text and not foreign_names(text, nodes[node_id], known), text


def test_units_that_differ_are_named_by_their_inputs(nodes):
    """The third unit is not the second, though the second input is free."""
    other = submodule("vdot_core.vcu").control(torch.rand(9, 64, 64, 3))
    text = refusal(nodes, "VDOTEncode", {"unit": 9, "strength": 1.0, "unit_3": other})
    assert "unit (" in text and "unit_3 (" in text and "unit_2" not in text


def test_the_watch_knows_a_foreign_name(nodes, known):
    node = nodes["VDOTStrength"]
    for text in ("strength is 5, expected less", "num_frames is 5; give more", "curve is 5, strength has 6"):
        assert foreign_names(text, node, known), text
    assert not foreign_names("curve is 5, expected text; look at umt5_xxl.safetensors", node, known)
