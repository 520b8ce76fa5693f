"""A transparent picture as ComfyUI's Load Image gives it: RGB with a hidden color, and a mask of the hole."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from tests.support.comfy import ROOT
from vdot_core import vcu
from vdot_core.pictures import read_picture

SIZE = {"width": 64, "height": 64, "num_frames": 5}
EXAMPLES = ROOT / "assets" / "examples"


def cut_out(hidden=(0, 0, 0), shape="ellipse", box=(20, 12, 44, 52)):
    """(RGB [H, W, 3], Load Image's mask [H, W], RGBA [H, W, 4]) of a textured subject on nothing."""
    alpha = Image.new("L", (64, 64))
    getattr(ImageDraw.Draw(alpha), shape)(box, fill=255)
    alpha = torch.from_numpy(np.array(alpha)).float() / 255
    subject = torch.rand(64, 64, 3) * 0.5 + 0.25
    color = torch.tensor(hidden) / 255
    rgb = torch.where(alpha[..., None] > 0, subject, color)
    return rgb, 1 - alpha, torch.cat([rgb, alpha[..., None]], -1)


def reference(image, mask=None, **options):
    return vcu.reference([image], masks=None if mask is None else [mask], **SIZE, **options)


def doubts(unit):
    return [note for note in unit.notes if "mask_is" in note]


@pytest.mark.parametrize("hidden", [(0, 0, 0), (255, 255, 255), (12, 200, 90)])
def test_a_mask_of_what_is_transparent_gives_what_the_alpha_gives(hidden):
    rgb, mask, rgba = cut_out(hidden)
    expected = reference(rgba, crop=True)
    unit = reference(rgb, mask, mask_is="transparent")
    assert torch.equal(unit.references[0], expected.references[0])
    assert not doubts(unit)
    assert torch.equal(reference(rgb, 1 - mask).references[0], expected.references[0])


@pytest.mark.parametrize("shape", ["ellipse", "rectangle"])
@pytest.mark.parametrize("box", [(20, 12, 44, 52), (16, 10, 48, 63), (0, 30, 40, 63)])
@pytest.mark.parametrize("hidden", [(0, 0, 0), (255, 255, 255), (12, 200, 90)])
def test_the_wrong_meaning_is_said_both_ways(hidden, box, shape):
    rgb, mask, _ = cut_out(hidden, shape, box)
    (notes,) = doubts(reference(rgb, mask))
    assert "set mask_is to transparent" in notes and "reference 1" in notes
    assert not doubts(reference(rgb, 1 - mask)), "a subject's mask"


def test_hidden_colors_that_are_not_flat():
    """Some programs keep a photo under full transparency; the mask around all the border still tells."""
    _, mask, _ = cut_out()
    photo = torch.rand(64, 64, 3)
    assert doubts(reference(photo, mask)) and not doubts(reference(photo, 1 - mask))
    (notes,) = doubts(reference(photo, 1 - mask, mask_is="transparent"))
    assert "set mask_is to subject" in notes


def test_without_a_mask_plain_black_is_said():
    rgb, _, rgba = cut_out()
    (notes,) = doubts(reference(rgb))
    assert "plain black" in notes and "connect Load Image's MASK" in notes
    assert not doubts(reference(rgba)), "transparency that arrives"
    assert not doubts(reference(rgb + 0.01)), "a dark photo is not plain black"
    assert not doubts(reference(torch.zeros(64, 64, 3))), "a black picture"


def test_an_opaque_pictures_empty_mask_is_no_transparency():
    """Load Image gives a small empty mask for a picture without transparency."""
    photo = torch.rand(40, 60, 3)
    unit = reference(photo, torch.zeros(64, 64), mask_is="transparent")
    assert torch.equal(unit.references[0], reference(photo).references[0])
    assert any("nothing is transparent" in note for note in unit.notes)


def test_every_subject_mask_of_the_examples_is_taken_as_one():
    names = sorted(
        path.stem for path in EXAMPLES.glob("*.png") if (EXAMPLES / f"{path.stem}_mask.png").exists()
    )
    assert len(names) >= 3
    for name in names:
        picture, mask = (
            torch.from_numpy(read_picture(EXAMPLES / f"{stem}.png")).float() / 255
            for stem in (name, f"{name}_mask")
        )
        assert not doubts(reference(picture, mask[..., 0])), name
        assert not doubts(reference(picture)), name


def test_a_full_mask_and_a_face_that_fills_the_picture_are_left_alone():
    photo, mask = torch.rand(64, 64, 3), torch.ones(64, 64)
    assert not doubts(reference(photo, mask))
    mask[:20, :14] = 0
    assert not doubts(reference(photo, mask))


def test_unknown_meaning_and_nothing_left_are_refused():
    rgb, mask, rgba = cut_out()
    with pytest.raises(ValueError, match="mask_is is 'hole', expected one of subject, transparent"):
        reference(rgb, mask, mask_is="hole")
    with pytest.raises(ValueError, match=r"reference 1's mask .*only what is transparent.*mask_is"):
        reference(rgba, mask, crop=True)


def test_names_of_the_caller_are_used():
    rgb, mask, _ = cut_out()
    unit = reference(rgb, mask, names=["image0"])
    assert "image0" in doubts(unit)[0] and "reference 1" not in " ".join(unit.notes)


def test_a_reference_of_which_nothing_is_left_is_said():
    """It is plain white, which the model would take for the subject."""
    picture = torch.rand(50, 80, 4)
    picture[..., 3] = 0
    size = {"width": 64, "height": 64, "num_frames": 5}
    notes = vcu.reference([picture], **size, names=["image0"]).notes
    assert any("image0: its mask or alpha hides all of it" in note for note in notes)
    notes = vcu.reference([picture[..., :3]], masks=[torch.zeros(50, 80)], crop=False, **size).notes
    assert any("hides all of it" in note for note in notes)
