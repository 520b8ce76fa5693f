"""A row's unit is the one that the nodes' builders make of the same clips, for every documented task."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny import tasks
from training.data.bad_rows import BadRowError
from training.data.conditioning import Inputs, build_unit, canonical, task_parts
from vdot_core import vcu

SIZE = (13, 32, 48)


@pytest.fixture(scope="module")
def scene():
    return tasks.draw_scene(3, "validation", 0.0, SIZE, kind="figure")


def row_inputs(name, unit, scene):
    """A manifest's row for a task whose unit is known: the kept clip, or the control alone."""
    controls = [part.frames for part in unit.parts if part.kind == "control"]
    keeps_pixels = any(part.kind in ("repaint", "extension") for part in unit.parts)
    source = controls[0] if controls and keeps_pixels and name != "move" else unit.frames
    return Inputs(
        width=SIZE[2], height=SIZE[1], num_frames=SIZE[0],
        source=source.contiguous(), mask=(unit.masks > 0.5).float(),
        references=tuple(unit.references), target=scene.frames,
    )  # fmt: skip


@pytest.mark.parametrize("name", tasks.SINGLE | tasks.COMPOSITE)
def test_every_documented_task_is_built_from_its_own_unit(name):
    """Frames, mask and references of an example, given as files, make that example again."""
    needed = tasks.TASKS[name].scene
    scene = tasks.draw_scene(3, "validation", 0.0, SIZE, kind=needed)
    unit = tasks.build_unit(name, scene)
    inputs = row_inputs(name, unit, scene)
    built = build_unit(canonical(name), inputs)
    assert built.frames.shape == unit.frames.shape
    assert len(built.references) == len(unit.references)
    assert all(torch.equal(a, b) for a, b in zip(built.references, unit.references, strict=True))
    if name in ("swap", "removal", "try_on"):
        # The row's mask is the region itself; the task hides its outline.
        assert (built.masks >= unit.masks).all()
        return
    assert torch.equal(built.masks > 0.5, unit.masks > 0.5)
    assert torch.allclose(built.frames, unit.frames, atol=1e-5)


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


def test_what_is_kept_comes_from_the_real_clip_where_the_source_is_a_control(scene):
    control = torch.rand(*SIZE, 3, generator=torch.Generator().manual_seed(0))
    inputs = Inputs(SIZE[2], SIZE[1], SIZE[0], source=control, target=scene.frames)
    built = build_unit("firstframe_pose", inputs)
    assert torch.equal(built.frames[0], scene.frames[0]) and torch.equal(built.frames[1:], control[1:])
    assert not built.masks[0].any() and built.masks[1:].all()
    mask = torch.zeros(SIZE)
    mask[:, 8:16, 8:16] = 1
    gray = control[..., :1].expand(*SIZE, 3)
    built = build_unit("inpainting_depth", Inputs(SIZE[2], SIZE[1], SIZE[0], gray, mask, target=scene.frames))
    assert torch.equal(built.frames[mask == 0], scene.frames[mask == 0]) and torch.equal(built.masks, mask)


def test_given_parts_and_pictures(scene):
    inputs = Inputs(SIZE[2], SIZE[1], SIZE[0], source=scene.frames[:3], target=scene.frames)
    assert build_unit("firstclip", inputs) == vcu.extend(scene.frames[:3], num_frames=SIZE[0])
    assert build_unit("lastclip", inputs) == vcu.extend(None, scene.frames[:3], num_frames=SIZE[0])
    image = torch.rand(20, 12, 4, generator=torch.Generator().manual_seed(1))
    image[:, :6, 3] = 0
    image[:, 6:, 3] = 1
    (reference,) = build_unit(canonical("face"), Inputs(48, 32, 13, references=(image,))).references
    inside = (reference < 0.999).any(-1)
    columns = np.flatnonzero(inside.any(0).numpy())
    assert 30 >= columns[-1] - columns[0] >= 8, "the subject is cropped to its own box"
