"""A row's unit is the one that the nodes' builders make of the same clips, for every documented task."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from training.data.bad_rows import BadRowError
from training.data.conditioning import Inputs, build_unit, canonical, task_parts
from vdot_core import vcu

SIZE = (13, 32, 48)


@pytest.fixture(scope="module")
def clip():
    return torch.rand(*SIZE, 3, generator=torch.Generator().manual_seed(3))


def test_names_of_the_documentation_are_all_known():
    text = Path("docs/TASKS.md").read_text()
    named = set(re.findall(r"images/tasks/(\w+)\.png", text))
    assert len(named) >= 30
    for name in named:
        assert task_parts(canonical(name))


@pytest.mark.parametrize("name, expected", [
    ("Reference + Depth", "reference_depth"), ("R2V", "reference"), ("t2v", "text"), ("optical flow", "flow"),
])  # fmt: skip
def test_names_may_be_written_in_other_ways(name, expected):
    assert canonical(name) == expected and task_parts(expected)


@pytest.mark.parametrize("name", ["depht", "reference_dept", "depth_pose", ""])
def test_unknown_names_are_refused(name):
    with pytest.raises(BadRowError, match="unknown"):
        task_parts(name)


def test_what_is_kept_comes_from_the_real_clip_where_the_source_is_a_control(clip):
    control = torch.rand(*SIZE, 3, generator=torch.Generator().manual_seed(0))
    inputs = Inputs(SIZE[2], SIZE[1], SIZE[0], source=control, target=clip)
    built = build_unit("firstframe_pose", inputs)
    assert torch.equal(built.frames[0], clip[0]) and torch.equal(built.frames[1:], control[1:])
    assert not built.masks[0].any() and built.masks[1:].all()
    mask = torch.zeros(SIZE)
    mask[:, 8:16, 8:16] = 1
    gray = control[..., :1].expand(*SIZE, 3)
    built = build_unit("inpainting_depth", Inputs(SIZE[2], SIZE[1], SIZE[0], gray, mask, target=clip))
    assert torch.equal(built.frames[mask == 0], clip[mask == 0]) and torch.equal(built.masks, mask)


def test_given_parts_and_pictures(clip):
    inputs = Inputs(SIZE[2], SIZE[1], SIZE[0], source=clip[:3], target=clip)
    assert build_unit("firstclip", inputs) == vcu.extend(clip[:3], num_frames=SIZE[0])
    assert build_unit("lastclip", inputs) == vcu.extend(None, clip[:3], num_frames=SIZE[0])
    image = torch.rand(20, 12, 4, generator=torch.Generator().manual_seed(1))
    image[:, :6, 3] = 0
    image[:, 6:, 3] = 1
    (reference,) = build_unit(canonical("face"), Inputs(48, 32, 13, references=(image,))).references
    inside = (reference < 0.999).any(-1)
    columns = np.flatnonzero(inside.any(0).numpy())
    assert 30 >= columns[-1] - columns[0] >= 8, "the subject is cropped to its own box"
