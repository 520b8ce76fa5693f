"""Clips that were encoded before: known by their content, forgotten with their unit."""

import gc

import torch

from vdot_core.vcu import LatentCache, compose, control, encode, inpaint, reference, text
from vdot_core.vcu.encode import halves

SIZE = {"width": 32, "height": 16, "num_frames": 9}


def masked(clip=None):
    mask = torch.zeros(9, 16, 32)
    mask[:, :, :16] = 1
    return inpaint(torch.rand(9, 16, 32, 3) if clip is None else clip, mask)


def counter(vae, cache):
    """calls(unit): number of clips that go through the VAE for it."""

    def calls(units, **options):
        before = sum(shape[0] for shape in vae.shapes)
        context = encode(units, vae, cache=cache, **options)
        assert torch.equal(context.contexts, encode(units, vae_of(vae)).contexts)
        return sum(shape[0] for shape in vae.shapes) - before

    return calls


def vae_of(vae):
    """The same VAE under another name, whose calls are not counted."""
    return lambda video: type(vae)()(video)


def test_a_unit_is_encoded_once(folding_vae):
    calls = counter(folding_vae, LatentCache())
    assert calls(text(**SIZE)) == 1
    guide, place = control(torch.rand(9, 16, 32, 3)), masked()
    both = compose(place, guide)
    for unit, count in ((guide, 1), (place, 1), (both, 1)):
        assert calls(unit) == count, "the kept half of a composition is the repaint's"
        assert calls(unit) == calls(unit.scaled(0.5), max_batch=2) == calls([unit, unit.scaled(2)]) == 0
    pictures = torch.rand(3, 16, 32, 3)
    assert calls(compose(place, reference(pictures[:2], **SIZE))) == 2
    assert calls(compose(place, reference(pictures[1:], **SIZE))) == 2, "references of a unit that is gone"


def test_what_was_changed_in_place_is_encoded_again(folding_vae):
    calls = counter(folding_vae, LatentCache())
    clip, picture = torch.rand(9, 16, 32, 3), torch.rand(1, 16, 32, 3)
    with torch.inference_mode():  # where tensors have no version
        unit = compose(control(clip), reference(picture, **SIZE))
        assert unit.frames.data_ptr() == clip.data_ptr() and calls(unit) == 3
        clip[4, 3, 2, 1] += 0.01
        assert calls(unit) == 1
        picture[0, 0, 0, 0] = 0.125
        assert calls(unit) == 1
        place = masked(clip)
        assert calls(place) == 1
        place.masks[0, 0, 20] = 1
        assert calls(place) == 2, "the reactive half is no longer gray"


def test_latents_go_with_their_unit(folding_vae):
    cache = LatentCache()
    calls = counter(folding_vae, cache)
    unit = masked()
    calls(compose(unit, reference(torch.rand(1, 20, 20, 3), **SIZE)))
    gc.collect()
    assert len(cache) == 2, "the unit's own half, and gray"
    del unit
    gc.collect()
    assert len(cache) == 1 and calls(text(**SIZE)) == 0


def test_the_oldest_go_first(folding_vae):
    latents_bytes = 16 * 3 * 2 * 4 * 4
    cache = LatentCache(max_bytes=3 * latents_bytes)
    calls = counter(folding_vae, cache)
    units = [control(torch.rand(9, 16, 32, 3)) for _ in range(3)]
    for unit in units:
        calls(unit)
    assert len(cache) == 3
    assert calls(units[2]) == 0 and calls(units[1]) == 0 and calls(units[0]) == 1
    small = LatentCache(max_bytes=latents_bytes - 1)
    counter(folding_vae, small)(units[0])
    assert len(small) == 0


def test_a_device_can_be_cleared(folding_vae):
    cache = LatentCache()
    encode(text(**SIZE), folding_vae, cache=cache)
    cache.clear(torch.device("meta"))
    assert len(cache) == 1
    cache.clear(torch.device("cpu"))
    assert len(cache) == 0


def test_halves_show_what_the_mask_says():
    unit = masked()
    unit.frames[:, :, :16] = 0.25
    kept, generated = halves(unit)
    for index in range(9):
        assert torch.equal(kept.frame(index)[:, 16:], unit.frames[index, :, 16:])
        assert (kept.frame(index)[:, :16] == 0.5).all() and (generated.frame(index)[:, 16:] == 0.5).all()
        assert (generated.frame(index)[:, :16] == 0.25).all()
    assert not kept.is_gray() and not generated.is_gray() and not kept.equals(generated)
