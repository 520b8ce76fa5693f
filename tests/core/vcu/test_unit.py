"""A VCU refuses everything that the network cannot take, and says what to do."""

import dataclasses

import pytest
import torch

from vdot_core.vcu import VCU, control, text


def parts(**changes):
    fields = {"frames": torch.rand(5, 16, 32, 3), "masks": torch.ones(5, 16, 32)}
    return {**fields, **changes}


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"frames": torch.rand(6, 16, 32, 3)}, ["6 frames", "4n+1"]),
        ({"frames": torch.rand(5, 16, 30, 3)}, ["30x16", "multiples of 16"]),
        ({"frames": torch.rand(5, 3, 16, 32)}, ["[5, 3, 16, 32]", "[F, H, W, 3]"]),
        ({"frames": torch.rand(5, 16, 32, 3) * 255}, ["[0, 1]", "divide"]),
        ({"frames": torch.rand(5, 16, 32, 3) * 2 - 1}, ["[0, 1]", "(x + 1) / 2"]),
        ({"frames": torch.full((5, 16, 32, 3), float("nan"))}, ["frames", "NaN"]),
        ({"frames": torch.zeros(5, 16, 32, 3, dtype=torch.uint8)}, ["uint8", "float"]),
        ({"frames": "clip.mp4"}, ["str", "tensor"]),
        ({"masks": torch.ones(9, 16, 32)}, ["masks has 9 frames", "frames has 5", "same length"]),
        ({"masks": torch.ones(5, 32, 32)}, ["32x32", "32x16", "same size"]),
        ({"masks": torch.full((5, 16, 32), 255.0)}, ["masks", "255"]),
        ({"region": torch.ones(1, 16, 32)}, ["region has 1 frame"]),
        ({"references": (torch.rand(1, 8, 8, 3),)}, ["reference 1", "[H, W, 3]"]),
        ({"references": (torch.rand(8, 8, 3), torch.full((8, 8, 3), float("nan")))}, ["reference 2", "NaN"]),
        ({"kind": "depth"}, ["'depth'", "control"]),
    ],
)
def test_what_is_wrong_is_named(changes, words):
    with pytest.raises(ValueError) as error:
        VCU(**parts(**changes))
    for word in words:
        assert word in str(error.value)


def test_is_a_value():
    fields = parts()
    unit = VCU(**fields, notes=["cropped"])
    assert unit == VCU(**fields) and hash(unit) == hash(VCU(**fields))
    assert unit != VCU(**parts()) and unit != VCU(**fields, kind="control")
    assert unit != VCU(**fields, references=(torch.rand(4, 4, 3),))
    assert unit.notes == ("cropped",) and unit.num_latent_frames == 2
    assert str(unit) == "repaint 32x16, 5 frames"
    with pytest.raises(dataclasses.FrozenInstanceError):
        unit.kind = "control"


def test_changes_are_checked_again():
    with pytest.raises(ValueError, match="same length"):
        VCU(**parts()).replace(masks=torch.ones(1, 16, 32))


def test_empty_clips_take_no_memory():
    """A text-only clip of any length is one gray value."""
    unit = text(832, 480, 81)
    assert unit.frames.untyped_storage().nbytes() < 100 and unit.frames.shape == (81, 480, 832, 3)
    assert unit == control(torch.full((81, 480, 832, 3), 0.5)).replace(kind="generate")
