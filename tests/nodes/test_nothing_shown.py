"""Inputs that show or keep nothing are noted; parts of a picture in place of pixels are refused."""

import pytest
import torch

FIT = {"width": 0, "height": 0, "length": 0}
WHITE = torch.ones(5, 32, 48, 3)


@pytest.mark.parametrize(
    ("node", "inputs", "line"),
    [
        ("VDOTControl", {"frames": WHITE, **FIT}, "frames shows one color in every frame"),
        (
            "VDOTDepth",
            {"depth": WHITE / 2, "normalization": "frame", "invert": False, **FIT},
            "depth shows one color in every frame",
        ),
        (
            "VDOTReference",
            {"images": {"image0": WHITE[:1]}, "width": 48, "height": 32, "length": 5},
            "image0 shows one color everywhere",
        ),
        (
            "VDOTMask",
            {"frames": WHITE, "mask": torch.ones(1, 32, 48), "mask_shape": "original", "expand": 0.0, **FIT},
            "mask is white everywhere: nothing of the clip is kept",
        ),
        (
            "VDOTNormalizeDepth",
            {"depth": WHITE / 2, "mode": "stable", "values": "disparity"},
            "no depth in 5 of 5 frames",
        ),
    ],
)
def test_what_shows_nothing_is_noted(run, node, inputs, line):
    assert any(line in text for text in run(node, **inputs).ui["text"])


def test_what_keeps_nothing_is_noted_where_pixels_are_restored(run):
    unit = run("VDOTText", width=48, height=32, length=5).args[0]
    outcome = run("VDOTPasteBack", images=WHITE, unit=unit, feather_px=8)
    assert outcome.ui["text"][0].startswith("unit keeps no pixels")
    mask = torch.zeros(1, 32, 48)
    mask[:, :8, :8] = 1
    frames = torch.rand(5, 32, 48, 3)
    kept = run("VDOTMask", frames=frames, mask=mask, mask_shape="original", expand=0.0, **FIT)
    assert not any("one color" in text or "white everywhere" in text for text in kept.ui["text"])
    outcome = run("VDOTPasteBack", images=WHITE, unit=kept.args[0], feather_px=8)
    assert not (outcome.ui or {}).get("text")


@pytest.mark.parametrize(
    "boxes",
    ["0: 0.1, 0.2, 0.5, 0.6\n-1: 0.3, 0.3, 0.9, 0.9", "0.1, 0.2\n0.9, 0.9", '[{"x": 0.1, "y": 0.2}]'],
)
@pytest.mark.parametrize("node", ["VDOTLayout", "VDOTMove", "VDOTBoxMask"])
def test_parts_of_the_picture_are_no_boxes_in_pixels(run, node_classes, node, boxes):
    inputs = {
        "VDOTLayout": {"width": 64, "height": 64, "length": 9},
        "VDOTMove": {"image": WHITE[:1], "width": 0, "height": 0, "length": 9},
        "VDOTBoxMask": {"image": WHITE, "which": "all"},
    }
    with pytest.raises(ValueError, match="are parts of the picture's sides, expected pixels"):
        run(node, boxes=boxes, **inputs[node])
    assert "parts of the picture" in node_classes[node].validate_inputs(boxes=boxes)
