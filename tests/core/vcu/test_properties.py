"""Properties of every unit."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdot_core.vcu import (
    compose,
    control,
    encode,
    extend,
    inpaint,
    keyframes,
    letterbox,
    outpaint,
    reference,
    text,
)

KINDS = ("extension", "repaint", "control")
TOTAL, HEIGHT, WIDTH = 13, 32, 48
SIZE = {"width": WIDTH, "height": HEIGHT, "num_frames": TOTAL}


def noise(seed, *shape):
    """Never gray by chance: values in 0..0.4 and 0.6..1."""
    values = torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(values < 0.5, values * 0.8, 0.2 + values * 0.8)


def extension(seed, frames):
    images = noise(seed, len(frames), HEIGHT, WIDTH, 3)
    return keyframes(images, sorted(frames), num_frames=TOTAL)


def repaint(seed):
    mask = noise(seed + 1, TOTAL, HEIGHT // 8, WIDTH // 8).repeat_interleave(8, 1).repeat_interleave(8, 2)
    return inpaint(noise(seed, TOTAL, HEIGHT, WIDTH, 3), mask)


def references(seed, count):
    images = [noise(seed + i, 20 + 7 * i, 30, 3) for i in range(count)]
    return reference(images, **SIZE)


def same(a, b):
    return (
        torch.equal(a.frames, b.frames)
        and torch.equal(a.masks, b.masks)
        and all(torch.equal(x, y) for x, y in zip(a.references, b.references, strict=True))
        and a.kind == b.kind
    )


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), owners=st.lists(st.integers(0, 3), min_size=TOTAL - 1, max_size=TOTAL - 1))
def test_extensions_and_references_are_associative(seed, owners):
    """Three units of disjoint known frames, each with its own references, in any grouping."""
    owners = [3, *owners]  # one frame is always free
    units = []
    for owner in range(3):
        frames = [frame for frame, who in enumerate(owners) if who == owner]
        base = extension(seed + owner, frames) if frames else text(**SIZE)
        units.append(compose(base, references(seed + 10 * owner, 1 + owner)))
    a, b, c = units
    whole = compose(a, b, c)
    assert same(compose(compose(a, b), c), whole) and same(compose(a, compose(b, c)), whole)
    assert len(whole.references) == 6
    for frame, owner in enumerate(owners):
        if owner < 3:
            assert torch.equal(whole.frames[frame], units[owner].frames[frame])
            assert whole.masks[frame].max() == 0
        else:
            assert (whole.frames[frame] == 0.5).all() and whole.masks[frame].min() == 1
    # The frames of disjoint extensions do not depend on the order, the references follow it.
    for order in itertools.permutations(units):
        other = compose(*order)
        assert torch.equal(other.frames, whole.frames) and torch.equal(other.masks, whole.masks)
        names = [image for unit in order for image in unit.references]
        assert all(torch.equal(x, y) for x, y in zip(other.references, names, strict=True))


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    kinds=st.sets(st.sampled_from(KINDS), min_size=1),
)
def test_known_pixels_stay_and_what_nothing_speaks_of_is_gray(seed, kinds):
    """In any order: an extension's frames first, then a repaint's pixels, then a control's, then gray."""
    units = {}
    if "extension" in kinds:
        units["extension"] = extension(seed, [0, 5, 6])
    if "repaint" in kinds:
        units["repaint"] = repaint(seed + 3)
    if "control" in kinds:
        region = noise(seed + 7, HEIGHT, WIDTH) > 0.5
        units["control"] = control(noise(seed + 5, TOTAL, HEIGHT, WIDTH, 3), region=region, end=9)
    expected = torch.full((TOTAL, HEIGHT, WIDTH, 3), 0.5)
    masks = torch.ones(TOTAL, HEIGHT, WIDTH)
    for kind in ("control", "repaint", "extension"):
        if kind in units:
            fixed = (units[kind].region > 0) if kind == "control" else units[kind].masks == 0
            expected[fixed] = units[kind].frames[fixed]
            masks = masks if kind == "control" else masks * units[kind].masks
    for order in itertools.permutations(units.values()):
        unit = compose(*order)
        assert torch.equal(unit.frames, expected) and torch.equal(unit.masks, masks)


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(3, 70), st.integers(3, 70)),
    frames=st.integers(1, 15),
    requested=st.one_of(st.none(), st.integers(1, 30)),
    target=st.one_of(st.none(), st.integers(16, 70)),
    builder=st.sampled_from(["control", "inpaint", "outpaint", "extend"]),
)
def test_lengths_and_sizes_are_the_models(size, frames, requested, target, builder):
    clip = noise(0, frames, size[1], size[0], 3)
    options = {"num_frames": requested, "width": target}
    if builder == "control":
        unit = control(clip, **options)
    elif builder == "inpaint":
        unit = inpaint(clip, torch.ones(size[1], size[0]), **options)
    elif builder == "outpaint":
        unit = outpaint(clip, left=0.5, bottom=3, **options)
    else:
        unit = extend(clip, num_frames=frames + 5 + (requested or 0), width=target)
    expected = {"extend": frames + 5 + (requested or 0)}.get(builder, requested or frames)
    assert unit.num_frames == (expected - 1) // 4 * 4 + 1
    assert unit.width % 16 == unit.height % 16 == 0
    assert set(unit.masks.unique().tolist()) <= {0.0, 1.0}
    if expected != unit.num_frames:
        assert any("4n+1" in note for note in unit.notes) or requested is None


@settings(deadline=None, max_examples=40)
@given(size=st.tuples(st.integers(1, 120), st.integers(1, 120)), crop=st.booleans(), margin=st.floats(0, 1))
def test_references_are_complete_and_on_white(size, crop, margin):
    """The subject's first and last rows and columns are all on the canvas, at one scale, centered."""
    width, height = size
    image = torch.zeros(height, width, 4)
    image[..., 3] = 1
    unit = reference(image, **SIZE, crop=crop, margin=margin)
    border = round(margin * max(size)) if crop else 0
    scale = min(HEIGHT / (height + 2 * border), WIDTH / (width + 2 * border))
    canvas = unit.references[0]
    dark = (canvas < 0.5).all(-1)
    assert bool(((canvas == 1).all(-1) | (canvas < 1).all(-1)).all())
    rows, columns = dark.any(1).nonzero().flatten(), dark.any(0).nonzero().flatten()
    if len(rows):
        assert abs(len(rows) - scale * height) <= 2 and abs(len(columns) - scale * width) <= 2
        assert abs(float(rows.float().mean()) - (HEIGHT - 1) / 2) <= 1.5
        assert abs(float(columns.float().mean()) - (WIDTH - 1) / 2) <= 1.5
        assert torch.equal(canvas, letterbox(canvas, WIDTH, HEIGHT))
    else:
        assert min(scale * height, scale * width) < 2


def test_encoding_is_of_what_is_shown_only(folding_vae):
    """Reordering repaint and control, or hiding other pixels under the mask, changes nothing."""
    a, b = repaint(1), control(noise(5, TOTAL, HEIGHT, WIDTH, 3))
    contexts = [encode(compose(*units), folding_vae).contexts for units in ((a, b), (b, a))]
    assert torch.equal(*contexts)
