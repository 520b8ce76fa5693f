"""A manifest's row of each drawn task becomes the task's own unit again."""

import pytest
import torch

from tiny import tasks
from training.data.conditioning import Inputs, build_unit, canonical

SIZE = (13, 32, 48)


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
