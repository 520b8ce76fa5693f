"""The crop of a reference: to its subject, whatever stray pixels its mask has."""

import numpy as np
import pytest
import torch

from vdot_core.vcu import reference
from vdot_core.vcu.grow import drop_specks

SIZE = {"width": 96, "height": 64, "num_frames": 5}


def subject(side=60):
    """A picture and the mask of a square in its middle."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(200, 240)
    mask[80 : 80 + side, 100 : 100 + side] = 1
    return torch.rand(200, 240, 3, generator=generator), mask


def crop(picture, mask, **options):
    return reference([picture], masks=[mask], **SIZE, **options)


@pytest.mark.parametrize("place", [(0, 0), (199, 239), (3, 200)])
@pytest.mark.parametrize("speck", [1, 2])
def test_stray_pixels_do_not_widen_the_crop(place, speck):
    picture, mask = subject()
    expected = crop(picture, mask)
    stray = mask.clone()
    stray[place[0] : place[0] + speck, place[1] : place[1] + speck] = 1
    unit = crop(picture, stray)
    assert torch.equal(unit.references[0], expected.references[0])
    assert any("without 1 speck around it" in note for note in unit.notes) and not expected.notes


def test_stray_pixels_of_a_pictures_own_transparency_do_not_widen_it_either():
    picture, mask = subject()
    stray = mask.clone()
    stray[5, 7] = 1
    units = [
        reference([torch.cat([picture, alpha[..., None]], -1)], crop=True, **SIZE) for alpha in (mask, stray)
    ]
    assert torch.equal(units[0].references[0], units[1].references[0])


@pytest.mark.parametrize("other", ["a second part", "dots", "a thin line", "a small subject", "one pixel"])
def test_what_belongs_to_the_subject_stays(other):
    mask = np.zeros((100, 100), bool)
    if other == "a second part":
        mask[40:80, 40:80] = mask[2:8, 2:8] = True
    elif other == "dots":
        mask[::5, ::7] = True
    elif other == "a thin line":
        mask[np.arange(100), np.arange(100)] = True
    elif other == "a small subject":
        mask[50:56, 50:56] = mask[2, 2] = True
    else:
        mask[50, 50] = True
    result, count = drop_specks(mask)
    assert count == 0 and (result == mask).all()


def test_many_specks_are_all_dropped():
    mask = np.zeros((300, 300), bool)
    mask[100:200, 100:200] = True
    noisy = mask.copy()
    noisy[::30, ::30] = True
    result, count = drop_specks(noisy)
    assert (result == mask).all() and count == 100 - 9


def test_a_clip_in_place_of_a_picture_is_noted():
    clip = torch.rand(17, 32, 48, 3)
    (note,) = reference(clip, width=48, height=32, num_frames=17).notes
    assert note.startswith("17 references take as much of the network as 68 frames of video")
    assert not reference(clip[:8], width=48, height=32, num_frames=17).notes
