"""Companions of a clip that are a frame or a few off: fitted and reported; larger differences are refused."""

import pytest
import torch

from vdot_core import vcu

FITTED = [(81, 80), (81, 82), (80, 81), (17, 18), (18, 17), (17, 14), (17, 20), (77, 80)]
REFUSED = [(81, 77), (81, 85), (81, 40), (9, 6), (5, 9), (5, 3), (17, 34)]


def clip(num_frames):
    """A clip [F, 16, 16, 3] whose frames can be told apart."""
    return torch.linspace(0, 1, num_frames).view(-1, 1, 1, 1).expand(-1, 16, 16, 3)


def mask(num_frames):
    """A mask [F, 16, 16] that widens by a column with every frame, up to the full width."""
    columns = torch.arange(16).view(1, 1, 16)
    return (columns <= torch.arange(num_frames).view(-1, 1, 1) % 16).float().expand(-1, 16, -1)


def held(companion, num_frames):
    """A companion as one would fit it by hand."""
    return torch.stack([companion[min(index, len(companion) - 1)] for index in range(num_frames)])


def in_mask(frames, companion):
    return vcu.inpaint(clip(frames), companion)


def in_region(frames, companion):
    return vcu.control(clip(frames), region=companion)


def in_crop(frames, companion):
    part, cut, crop = vcu.crop_region(clip(frames), companion, margin=0.0)
    return vcu.inpaint(part, cut).replace(notes=crop.notes)


def in_layout(frames, companion):
    return vcu.layout_masks([mask(frames), companion])


@pytest.mark.parametrize(("frames", "count"), FITTED)
@pytest.mark.parametrize("build", [in_mask, in_region, in_crop, in_layout])
def test_a_few_frames_are_fitted_and_said(build, frames, count):
    unit, expected = build(frames, mask(count)), build(frames, held(mask(count), frames))
    assert unit == expected
    (note,) = [note for note in unit.notes if note.startswith(("mask", "region")) and "its last" in note]
    assert f"has {count} frames" in note and f"has {frames}" in note


@pytest.mark.parametrize(("frames", "count"), REFUSED)
@pytest.mark.parametrize("build", [in_mask, in_region, in_crop, in_layout])
def test_other_lengths_are_refused(build, frames, count):
    with pytest.raises(ValueError, match=f"has {count} frames, .* has {frames}; give both the same length"):
        build(frames, mask(count))


def test_notes_are_grammatical():
    def note(count):
        return next(note for note in in_mask(17, mask(count)).notes if note.startswith("mask"))

    assert note(16) == "mask has 16 frames, the clip in frames has 17: its last frame is held for 1 more"
    assert note(18) == "mask has 18 frames, the clip in frames has 17: its last frame is dropped"
    assert note(19) == "mask has 19 frames, the clip in frames has 17: its last 2 frames are dropped"


def test_boxes_of_a_detector():
    lists = [[{"x": index, "y": 0, "width": 4, "height": 4}] for index in range(16)]
    size = {"width": 32, "height": 16}
    masks = vcu.box_masks(lists, num_frames=17, **size)
    assert torch.equal(masks[:16], vcu.box_masks(lists, num_frames=16, **size))
    assert torch.equal(masks[16], masks[15])
    assert torch.equal(vcu.box_masks(lists, num_frames=15, **size), masks[:15])
    assert vcu.boxes_per_frame(lists, 17)[1] and not vcu.boxes_per_frame(lists, 16)[1]
    with pytest.raises(ValueError, match="boxes for 16 frames, the clip has 9"):
        vcu.box_masks(lists, num_frames=9, **size)


@pytest.mark.parametrize("strength", [1.0, tuple(index / 20 for index in range(20))])
def test_a_control_of_a_clip_a_frame_shorter_composes(strength):
    """80 frames are 77 for the model: one latent frame less than the 81 of the clip."""
    start = vcu.extend(clip(81)[:1], num_frames=81, strength=_longer(strength))
    pose = vcu.control(clip(80), strength=strength)
    unit = vcu.compose(start, pose)
    assert unit.num_frames == 81 and torch.equal(unit.frames[1:77], pose.frames[1:])
    assert (unit.frames[77:] == pose.frames[-1]).all() and (unit.masks[1:] == 1).all()
    assert any("held for 4 more" in note for note in unit.notes)
    assert vcu.compose(unit, vcu.reference(clip(1), width=16, height=16, num_frames=81)).num_frames == 81
    assert vcu.compose(unit).replace(strength=0.5).strength == 0.5


def _longer(strength):
    return strength if isinstance(strength, float) else (*strength, strength[-1])


def test_kept_frames_decide_the_length():
    unmasked = vcu.inpaint(clip(80), mask(80))
    unit = vcu.compose(unmasked, vcu.control(clip(81)))
    assert unit.num_frames == 77 and any("last 4 frames are dropped" in note for note in unit.notes)


def test_controls_with_regions_take_the_longest():
    left = torch.zeros(1, 16, 16)
    left[..., :8] = 1
    unit = vcu.compose(vcu.control(clip(80), region=left), vcu.control(clip(81), region=1 - left))
    assert unit.num_frames == 81 and torch.equal(unit.region, torch.ones(81, 16, 16))


def test_units_of_their_own_contexts_are_fitted(folding_vae):
    context = vcu.encode([vcu.inpaint(clip(81), mask(81)), vcu.control(clip(80))], folding_vae)
    assert context.num_frames == 81 and any("held for 4 more" in note for note in context.notes)
    with pytest.raises(ValueError, match="one size and length"):
        vcu.encode([vcu.inpaint(clip(81), mask(81)), vcu.control(clip(72))], folding_vae)


@pytest.mark.parametrize(("first", "second"), [(81, 73), (9, 5), (17, 25)])
def test_units_of_other_lengths_are_refused(first, second):
    with pytest.raises(ValueError, match="differ in length"):
        vcu.compose(vcu.inpaint(clip(first), mask(first)), vcu.control(clip(second)))
