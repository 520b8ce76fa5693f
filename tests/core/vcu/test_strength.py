"""A unit's strength, one number or one for each latent frame, on its way to the network."""

import itertools
import json

import pytest
import torch

from vdot_core.networks.context_scale import context_weights
from vdot_core.vcu import VCU, compose, control, encode, extend, reference, strength_curve, text


def test_strength_by_latent_frame_reaches_the_network(folding_vae):
    curve = strength_curve({0: 1.0, -1: 0.0}, 17)
    assert len(curve) == 5 and curve[0] == 1.0 and list(curve) == sorted(curve, reverse=True)
    pose = control(torch.rand(17, 16, 32, 3), strength=curve)
    other = compose(text(32, 16, 17), reference(torch.rand(8, 8, 3), width=32, height=16, num_frames=17))
    context = encode([pose, other.scaled(0.5)], folding_vae)
    assert context.context_scale.frames == ((1.0, *curve), (0.5,) * 6)
    weights = context_weights(context.context_scale, 2, 6, (6, 1, 2), torch.device("cpu"))
    for layer in weights:
        torch.testing.assert_close(layer[0][:, 0], torch.tensor([1.0, *curve]).repeat_interleave(2))
        assert (layer[1] == 0.5).all()
    plain = encode([pose.replace(strength=0.7), other], folding_vae)
    assert plain.context_scale.frames == (0.7, 1.0)


def test_strength_is_a_value():
    frames = torch.rand(9, 16, 32, 3)
    unit = control(frames, strength=[0, 0.5, 1])
    assert unit.strength == (0.0, 0.5, 1.0) == unit.strengths and hash(unit) == hash(unit.replace())
    again = control(frames, strength=json.loads(json.dumps(unit.strength)))
    assert again == unit and control(frames, strength=torch.tensor([0, 0.5, 1])) == unit
    assert unit.scaled(2).strength == (0.0, 1.0, 2.0) and unit.scaled(1) == unit
    assert control(frames).scaled(0.5).strength == 0.5 and control(frames).strengths == (1.0,) * 3
    joined = compose(unit, extend(frames[:1], num_frames=9, strength=unit.strength))
    assert joined.strength == unit.strength
    assert all(part.strength == (0.0, 1.0, 2.0) for part in joined.scaled(2).parts)
    with pytest.raises(ValueError, match="strength 0 to 1 by latent frame and unit 2"):
        compose(unit, extend(frames[:1], num_frames=9))
    for strength, words in (
        ((1.0, 1.0), "strength has 2 numbers, the video has 3 latent frames"),
        (-1, "strength is -1, expected a number from 0"),
        (float("nan"), "strength is nan"),
        ((1, 1, "x"), "strength of latent frame 2 is 'x'"),
        ("strong", "strength is 'strong'"),
    ):
        with pytest.raises(ValueError, match=words):
            VCU(frames, torch.ones(9, 16, 32), strength=strength)
    with pytest.raises(ValueError, match="factor is -1"):
        unit.scaled(-1)


def test_a_curve_fits_a_composition_with_a_reference_of_another_length():
    frames, picture = torch.rand(9, 16, 32, 3), torch.rand(8, 8, 3)
    joined = compose(control(frames), reference(picture, width=32, height=16, num_frames=17))
    curved = joined.scaled_over_time([0, 0.5, 1], "curve")
    assert curved.strength == (0.0, 0.5, 1.0) and curved.num_frames == 9 and len(curved.references) == 1
    assert joined.scaled(0.5).strength == 0.5 and len(joined.scaled(0.5).parts) == 2


def test_a_part_of_the_steps_is_a_value_of_a_unit(folding_vae):
    frames = torch.rand(9, 16, 32, 3)
    pose, start = control(frames), extend(frames[:1], num_frames=9)
    early = pose.replace(step_range=[0, 0.5])
    assert early.step_range == (0.0, 0.5) and early != pose and hash(early) == hash(early.replace())
    assert encode([early, start], folding_vae).step_ranges == ((0.0, 0.5), (0.0, 1.0))
    with pytest.raises(ValueError, match=r"from 0 % to 100 % of the steps and unit 2 .* 0 % to 50 %"):
        compose(start, early)
    shown = reference(torch.rand(8, 8, 3), width=32, height=16, num_frames=9)
    joined = compose(shown, early, start.replace(step_range=(0, 0.5)))
    assert joined.step_range == (0.0, 0.5)
    late = joined.replace(step_range=(0.5, 1))
    assert {part.step_range for part in late.parts} == {(0.5, 1.0)} and compose(late) == late
    with pytest.raises(ValueError, match="a composed unit has one part of them"):
        compose(shown.replace(step_range=(0.2, 1)), pose)
    for step_range, words in (
        ((0.5, 0.5), "start_percent is 0.5 and end_percent 0.5; give an end_percent above"),
        ((0, 2), "end_percent is 2, expected a number from 0 to 1"),
        ((0,), "step_range has 1 number; give a start and an end"),
        (0.5, "step_range is 0.5, expected a list"),
    ):
        with pytest.raises(ValueError, match=words):
            pose.replace(step_range=step_range)


SIZE = {"width": 32, "height": 16, "num_frames": 9}


def picture() -> VCU:
    """A reference of strength 1 that acts in all steps."""
    return reference(torch.rand(8, 8, 3), **SIZE)


@pytest.mark.parametrize(
    "changes, word",
    [
        ({"strength": 0.3}, "0.3; a composed unit|0.3 and unit"),
        ({"strength": (0.0, 0.5, 1.0)}, "0 to 1 by latent frame"),
        ({"step_range": (0.0, 0.25)}, "0 % to 25 %"),
    ],
)
@pytest.mark.parametrize("other", [lambda: control(torch.rand(9, 16, 32, 3)), picture])
def test_a_reference_with_a_strength_of_its_own_is_not_joined_to_another(other, changes, word):
    """It would be lost: in any order, on its own or inside a composition."""
    own = picture().replace(**changes)
    for units in itertools.permutations([own, other()]):
        with pytest.raises(ValueError, match=rf"(?s)(?=.*({word})).*separate inputs of VDOT Encode"):
            compose(*units)
    with pytest.raises(ValueError, match="separate inputs of VDOT Encode"):
        compose(compose(own, own), other())
    same = compose(own, other().replace(**changes))
    assert all(getattr(same, name) == value for name, value in changes.items()) and not same.notes


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"strength": 0.5}, "has strength 0.5, as unit"),
        ({"strength": (0.0, 0.5, 1.0)}, "has strength 0 to 1 by latent frame, as unit"),
        ({"step_range": (0.0, 0.25)}, "acts from 0 % to 25 % of the steps, as unit"),
    ],
)
def test_a_plain_reference_takes_the_strength_of_a_control_and_says_so(changes, words):
    guide = control(torch.rand(9, 16, 32, 3)).replace(**changes)
    for units in itertools.permutations([guide, picture()]):
        joined = compose(*units)
        assert (joined.strength, joined.step_range) == (guide.strength, guide.step_range)
        (note,) = joined.notes
        assert words in note and "separate inputs of VDOT Encode" in note
    assert len(compose(guide.replace(strength=0.5, step_range=(0.5, 1)), picture()).notes) == 2
    assert not compose(guide, text(32, 16, 9)).notes, "a text has nothing to weaken"


def test_a_text_without_references_takes_any_strength():
    own = picture().replace(strength=0.3, step_range=(0.0, 0.25))
    for units in itertools.permutations([own, text(32, 16, 9)]):
        joined = compose(*units)
        assert (joined.strength, joined.step_range, joined.notes) == (0.3, (0.0, 0.25), ())


def test_a_strength_that_is_the_same_everywhere_is_one_number():
    """Written as a curve or as a number, it is joined, and named, as the same."""
    weak = picture().scaled_over_time([0.3, 0.3, 0.3], "curve")
    assert weak.strength == 0.3 == picture().replace(strength=(0.3,) * 3).strength
    longer = reference(torch.rand(8, 8, 3), width=32, height=16, num_frames=17)
    longer = longer.scaled_over_time([0.3] * 5, "curve")
    joined = compose(control(torch.rand(9, 16, 32, 3), strength=0.3), longer)
    assert joined.strength == 0.3
    assert len(joined.scaled_over_time([0.5] * 3, "curve").parts) == 2, "parts of another length stay"
    with pytest.raises(ValueError, match=r"has strength 1 and unit 2 \(.*\) 0.3; a composed unit has one"):
        compose(control(torch.rand(9, 16, 32, 3)), weak)
