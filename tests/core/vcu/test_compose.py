"""Composition equals VACE's arithmetic, depends on order only where it must, and names what clashes."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdot_core.vcu import compose, control, extend, inpaint, keyframes, outpaint, reference, text

FRAMES, HEIGHT, WIDTH = 9, 16, 32
SIZE = {"width": WIDTH, "height": HEIGHT, "num_frames": FRAMES}


def clip(seed):
    return torch.rand(FRAMES, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(seed))


def random_mask(seed):
    return (torch.rand(FRAMES, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed)) > 0.6).float()


def extension(seed=0, count=2):
    return extend(clip(seed)[:count], num_frames=FRAMES)


def vace_sum(kinds, a, b):
    """VACE's CompositionAnnotator in plain arithmetic, frames and mask."""
    mask_a, mask_b = a.masks[..., None], b.masks[..., None]
    if kinds[0] == "extension":
        frames, masks = b.frames * mask_a + a.frames * (1 - mask_a), mask_a * mask_b
    elif kinds == ("repaint", "repaint"):
        frames, masks = a.frames * (1 - mask_b) + b.frames * mask_b, mask_a * (1 - mask_b) + mask_b
    elif kinds == ("repaint", "control"):
        frames, masks = a.frames * (1 - mask_a) + b.frames * mask_a, mask_a
    return frames, masks[..., 0]


MAKE = {
    "extension": lambda: extension(),
    "repaint": lambda: inpaint(clip(1), random_mask(2)),
    "control": lambda: control(clip(3)),
}


@pytest.mark.parametrize(
    "kinds", [("extension", "repaint"), ("extension", "control"), ("repaint", "control")]
)
def test_pairs_equal_vace_in_either_order(kinds):
    a, b = (MAKE[kind]() for kind in kinds)
    frames, masks = vace_sum(kinds, a, b)
    for unit in (compose(a, b), compose(b, a)):
        torch.testing.assert_close(unit.frames, frames)
        assert torch.equal(unit.masks, masks)


def test_equal_kinds_equal_vace():
    a, b = inpaint(clip(1), random_mask(2)), inpaint(clip(1), random_mask(5))
    frames, masks = vace_sum(("repaint", "repaint"), a, b)
    unit = compose(a, b)
    torch.testing.assert_close(unit.frames, frames)
    assert torch.equal(unit.masks, masks) and unit == compose(b, a)

    a, b = extend(clip(1)[:2], num_frames=FRAMES), extend(last=clip(2)[:3], num_frames=FRAMES)
    frames, masks = vace_sum(("extension", "extension"), a, b)
    unit = compose(a, b)
    torch.testing.assert_close(unit.frames, frames)
    assert torch.equal(unit.masks, masks)
    assert unit == extend(clip(1)[:2], clip(2)[:3], num_frames=FRAMES)


def test_three_kinds_fold_in_vaces_order():
    """extension over (repaint over control), however they are given and grouped."""
    e, r, c = MAKE["extension"](), MAKE["repaint"](), MAKE["control"]()
    frames, masks = vace_sum(("repaint", "control"), r, c)
    inner = r.replace(frames=frames, masks=masks)
    frames, masks = vace_sum(("extension", "repaint"), e, inner)
    for order in itertools.permutations((e, r, c)):
        for unit in (
            compose(*order),
            compose(compose(*order[:2]), order[2]),
            compose(order[0], compose(*order[1:])),
        ):
            torch.testing.assert_close(unit.frames, frames)
            assert torch.equal(unit.masks, masks)


def test_controls_share_the_canvas_by_region():
    left, right = torch.zeros(HEIGHT, WIDTH), torch.zeros(HEIGHT, WIDTH)
    left[:, :10], right[:, 20:] = 1, 1
    a, b = control(clip(1), region=left), control(clip(2), region=right)
    unit = compose(a, b)
    assert unit == compose(b, a)
    assert torch.equal(unit.frames[:, :, :10], clip(1)[:, :, :10])
    assert torch.equal(unit.frames[:, :, 20:], clip(2)[:, :, 20:])
    assert (unit.frames[:, :, 10:20] == 0.5).all() and (unit.masks == 1).all()
    assert torch.equal(unit.region[0], left + right)


@settings(deadline=None, max_examples=25)
@given(
    places=st.permutations(range(FRAMES)),
    cuts=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2)),
)
def test_disjoint_extensions_are_associative(places, cuts):
    bounds = [0, *itertools.accumulate(cuts)]
    units = [
        keyframes(clip(i)[: end - start], places[start:end], num_frames=FRAMES)
        for i, (start, end) in enumerate(itertools.pairwise(bounds))
    ]
    a, b, c = units
    together = compose(a, b, c)
    assert together == compose(compose(a, b), c) == compose(a, compose(b, c)) == compose(c, a, b)
    assert int((together.masks[:, 0, 0] == 0).sum()) == sum(cuts)
    for unit in units:
        fixed = unit.masks == 0
        assert torch.equal(together.frames[fixed], unit.frames[fixed])


def test_a_changed_composition_is_composed_as_changed():
    e, c = extension(), control(clip(3))
    both = compose(e, c)
    quiet = compose(both.replace(strength=0.5), inpaint(clip(1), random_mask(2), strength=0.5))
    assert quiet.strength == 0.5
    assert quiet.replace(strength=1.0) == compose(both, inpaint(clip(1), random_mask(2)))
    frames = torch.where(both.masks[..., None] > 0, both.frames, 0.25)
    changed = compose(both.replace(frames=frames), reference(torch.rand(8, 8, 3), **SIZE))
    assert (changed.frames[:2] == 0.25).all()


def test_references_join_and_text_adds_nothing():
    one = reference(torch.rand(8, 20, 3), **SIZE)
    two = reference(torch.rand(2, 20, 8, 3), **SIZE)
    guide = control(clip(1))
    unit = compose(one, guide, two)
    assert unit.references == (*one.references, *two.references) and unit.kind == "control"
    assert compose(text(WIDTH, HEIGHT, FRAMES), guide) == guide
    assert torch.equal(compose(guide).frames, guide.frames)
    short = compose(reference(torch.rand(8, 8, 3), width=WIDTH, height=HEIGHT, num_frames=5), guide)
    assert short.num_frames == FRAMES and "takes the length" in short.notes[-1]


def test_expand_anything_is_an_outpainted_first_frame():
    """VACE's 'expand': the first frame outpainted, then continued, with references."""
    first = outpaint(clip(1)[0], left=32)
    start = extend(first.frames, num_frames=FRAMES)
    masks = start.masks.clone()
    masks[0] = first.masks[0]
    unit = compose(
        start.replace(masks=masks), reference(torch.rand(9, 9, 3), width=64, height=16, num_frames=FRAMES)
    )
    assert (unit.frames[0, :, :32] == 0.5).all() and (unit.masks[0, :, :32] == 1).all()
    assert torch.equal(unit.frames[0, :, 32:], clip(1)[0]) and not unit.masks[0, :, 32:].any()


@pytest.mark.parametrize(
    "a, b, words",
    [
        (control(clip(1)), control(clip(2)), ["unit 1 (control", "unit 2 (control", "separate inputs"]),
        (control(clip(1)), control(clip(2)[:5]), ["differ in length", "9 frames", "5 frames"]),
        (control(clip(1)), text(64, 64, FRAMES), ["differ in size", "32x16", "64x64"]),
        (extension(1), extension(2), ["unit 1 (extension", "unit 2 (extension", "both give frame 0"]),
        (
            inpaint(clip(1), random_mask(1)),
            inpaint(clip(2), random_mask(2)),
            ["unit 1 (repaint", "unit 2 (repaint", "different clips"],
        ),
        (control(clip(1), strength=0.5), extension(), ["strength 0.5", "separate inputs"]),
    ],
)
def test_what_clashes_is_named(a, b, words):
    with pytest.raises(ValueError) as error:
        compose(a, b)
    for word in words:
        assert word in str(error.value)


def test_the_two_that_clash_are_named_among_many():
    """Not those around them; by what the caller gave; with the frame in which they differ; in any order."""
    halves = torch.zeros(2, HEIGHT, WIDTH)
    halves[0, :, :8], halves[1, :, 8:16] = 1, 1
    left, middle = control(clip(1), region=halves[0]), control(clip(2), region=halves[1])
    with pytest.raises(ValueError, match=r"^unit 1 \(control [^)]*\) and unit 4 \(control"):
        compose(left, middle, reference(torch.rand(8, 8, 3), **SIZE), left.replace(notes=()))
    with pytest.raises(ValueError, match=r"^unit 1, part 2 \(control [^)]*\) and unit 2 \(control"):
        compose(compose(left, middle), middle.replace(notes=()))

    frames = keyframes([clip(1)[0], clip(1)[4]], [0, 4], num_frames=FRAMES)
    other = keyframes([clip(1)[0], clip(2)[4]], [0, 4], num_frames=FRAMES)
    with pytest.raises(ValueError, match="both give frame 4, and differ there"):
        compose(frames, extend(last=clip(1)[-1], num_frames=FRAMES), other)

    everything = inpaint(clip(1), torch.ones(HEIGHT, WIDTH))
    one, two = inpaint(clip(1), random_mask(1)), inpaint(clip(2), random_mask(2))
    for order in itertools.permutations((everything, one, two)):
        with pytest.raises(ValueError, match="keep pixels of different clips"):
            compose(*order)


def test_notes_are_collected_once():
    unit = compose(control(torch.rand(FRAMES, 17, 33, 3)), reference(torch.rand(8, 8, 3), **SIZE))
    assert unit.notes == ("control: 33x17 scaled to 32x16",)
    assert compose(unit, extension()).notes == unit.notes
    with pytest.raises(ValueError, match="nothing to compose"):
        compose()


def test_a_unit_given_twice_again_and_again_does_not_fill_the_memory():
    unit = text(32, 32, 5)
    with pytest.raises(ValueError, match=r"made from 128 in all, expected at most 100; compose fewer"):
        for _ in range(40):
            unit = compose(unit, unit)
    assert len(unit.parts) == 64
