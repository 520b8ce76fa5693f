"""Encoding: nothing twice, several contexts of one length, masks binary, references apart."""

import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdot_core.vcu import VCU, GrayCache, compose, control, encode, extend, inpaint, reference, text

SIZE = {"width": 32, "height": 16, "num_frames": 9}


def masked():
    mask = torch.zeros(9, 16, 32)
    mask[:, :, :16] = 1
    return inpaint(torch.rand(9, 16, 32, 3), mask)


def test_number_of_vae_calls(folding_vae):
    cache = GrayCache()

    def calls(units, **options):
        before = folding_vae.num_calls
        encode(units, folding_vae, cache=cache, **options)
        return folding_vae.num_calls - before

    assert calls(text(**SIZE)) == 1
    assert calls(text(**SIZE)) == 0
    assert calls(control(torch.rand(9, 16, 32, 3))) == 1
    assert calls(masked()) == 1
    both = compose(masked(), control(torch.rand(9, 16, 32, 3)))
    assert calls(both) == 2
    assert calls(both, max_batch=2) == 1 and folding_vae.shapes[-1][0] == 2
    assert calls(reference(torch.rand(3, 16, 32, 3), **SIZE)) == 3
    assert calls(reference(torch.rand(3, 16, 32, 3), **SIZE), max_batch=2) == 2
    assert calls(reference(torch.rand(3, 16, 32, 3), **SIZE), max_batch=8) == 1
    guide = control(torch.rand(9, 16, 32, 3))
    assert calls([guide, guide.replace(strength=0.5)]) == 1
    cache.clear()
    assert calls(text(**SIZE)) == 1
    assert calls(text(32, 16, 5)) == 1 and len(cache) == 2


def test_gray_halves_are_shared_without_a_cache(folding_vae):
    encode(control(torch.rand(9, 16, 32, 3)), folding_vae)
    assert folding_vae.num_calls == 2
    encode(text(**SIZE), folding_vae)
    assert folding_vae.num_calls == 3


def test_caching_and_batching_change_nothing(folding_vae):
    unit = compose(masked(), reference(torch.rand(2, 30, 30, 3), **SIZE))
    units = [unit, control(torch.rand(9, 16, 32, 3)), text(**SIZE)]
    cache = GrayCache()
    plain = encode(units, folding_vae).contexts
    for _ in range(2):
        assert torch.equal(encode(units, folding_vae, cache=cache, max_batch=2).contexts, plain)


def test_memory_decides_how_many_clips_go_together(folding_vae):
    """The function is called with the clip's shape, for every call, and only if there is a choice."""
    calls, answers = [], iter([2, 1])

    def max_batch(shape):
        calls.append(shape)
        return next(answers)

    units = [compose(masked(), control(torch.rand(9, 16, 32, 3))) for _ in range(2)]
    together = encode(units, folding_vae, max_batch=max_batch).contexts
    assert [shape[0] for shape in folding_vae.shapes] == [2, 1, 1] and calls == [(9, 16, 32, 3)] * 2
    assert torch.equal(together, encode(units, folding_vae).contexts)
    encode(control(torch.rand(9, 16, 32, 3)), folding_vae, cache=primed(folding_vae), max_batch=max_batch)
    assert len(calls) == 2, "one clip alone is no choice"
    with pytest.raises(ValueError, match="max_batch is 0"):
        encode(units, folding_vae, max_batch=0)


def primed(vae):
    """A cache that holds the gray clip of SIZE."""
    cache = GrayCache()
    encode(text(**SIZE), vae, cache=cache)
    return cache


def test_a_kept_clip_does_not_keep_the_others_of_its_batch(folding_vae):
    cache = GrayCache()
    encode(control(torch.rand(9, 16, 32, 3)), folding_vae, cache=cache, max_batch=2)
    assert folding_vae.shapes == [(2, 9, 16, 32, 3)]
    (entry,) = cache._entries.values()
    assert entry.latents.untyped_storage().nbytes() == entry.latents.nbytes


def test_cache_knows_its_vae_and_its_bounds(folding_vae):
    cache = GrayCache(max_entries=2)

    def other_vae(video):
        return folding_vae(video) + 1

    encode(text(**SIZE), folding_vae, cache=cache)
    assert not torch.equal(
        encode(text(**SIZE), other_vae, cache=cache).contexts, encode(text(**SIZE), folding_vae).contexts
    )
    assert len(cache) == 2
    encode(text(64, 64, 1), folding_vae, cache=cache)
    assert len(cache) == 2
    # A wrapper made for every call is identified by its `vae`.
    cache, before = GrayCache(), folding_vae.num_calls
    for _ in range(3):
        encode(text(**SIZE), lambda video: folding_vae(video), cache=cache, vae=folding_vae)
    assert folding_vae.num_calls == before + 1


def test_cache_forgets_a_vae_that_is_gone():
    class Vae:
        pass

    cache, vae = GrayCache(), Vae()
    cache.put(vae, ("gray", (1, 8, 8, 3)), torch.zeros(1))
    assert cache.get(vae, ("gray", (1, 8, 8, 3))) is not None
    address = id(vae)
    del vae
    gc.collect()
    assert address not in {key[0] for key in cache._entries} and len(cache) == 0


def test_layout_of_a_context(folding_vae):
    """Channels: kept, reactive, mask; references first, their second half zeros and their mask 0."""
    guide = control(torch.rand(9, 16, 32, 3))
    unit = compose(masked(), guide, reference(torch.rand(30, 30, 3), **SIZE))
    result = encode(unit, folding_vae)
    assert result.contexts.shape == (1, 1, 96, 1 + 3, 2, 4) and result.latent_shape == (1, 16, 4, 2, 4)
    assert (result.num_reference_latents, result.num_frames, result.width, result.height) == (1, 9, 32, 16)
    context = result.contexts[0, 0]
    generate = unit.masks[..., None]
    inactive = unit.frames * (1 - generate) + 0.5 * generate
    reactive = unit.frames * generate + 0.5 * (1 - generate)
    torch.testing.assert_close(context[:16, 1:], folding_vae(inactive[None])[0])
    torch.testing.assert_close(context[16:32, 1:], folding_vae(reactive[None])[0])
    torch.testing.assert_close(context[:16, :1], folding_vae(unit.references[0][None, None])[0])
    assert not context[16:, 0].any()


@settings(deadline=None, max_examples=25)
@given(num_latents=st.integers(1, 8), soft=st.booleans(), seed=st.integers(0, 1000))
def test_mask_channels_are_pixels_of_the_nearest_frame(num_latents, soft, seed):
    num_frames = 4 * num_latents - 3
    masks = torch.rand(num_frames, 16, 32, generator=torch.Generator().manual_seed(seed))
    masks = masks if soft else (masks > 0.5).float()
    unit = VCU(torch.full((num_frames, 16, 32, 3), 0.5), masks)

    def vae_encode(video):
        return torch.zeros(video.shape[0], 16, num_latents, 2, 4)

    channels = encode(unit, vae_encode).contexts[0, 0, 32:]
    assert set(channels.unique().tolist()) <= {0.0, 1.0}
    for t in range(num_latents):
        frame = int((t + 0.5) * num_frames / num_latents)
        for dy, dx, y, x in ((0, 0, 0, 0), (3, 5, 1, 2), (7, 7, 1, 3)):
            assert channels[dy * 8 + dx, t, y, x] == float(masks[frame, y * 8 + dy, x * 8 + dx] > 0.5)


def test_what_is_under_the_mask_is_not_seen(folding_vae):
    frames, mask = torch.rand(9, 16, 32, 3), torch.zeros(9, 16, 32)
    mask[:, 4:10, 3:20] = 1
    other = torch.where(mask[..., None] > 0, torch.rand_like(frames), frames)
    a, b = (encode(inpaint(clip, mask), folding_vae).contexts for clip in (frames, other))
    assert torch.equal(a, b)


def test_several_contexts_have_one_length(folding_vae):
    """Each reference keeps its slot; in a context that does not bring it the slot is left free."""
    shared = torch.rand(16, 32, 3)
    a = compose(control(torch.rand(9, 16, 32, 3)), reference([torch.rand(16, 32, 3), shared], **SIZE))
    b = compose(extend(torch.rand(16, 32, 3), num_frames=9), reference(shared, **SIZE)).replace(strength=0.25)
    result = encode([a, b, text(**SIZE)], folding_vae)
    assert result.contexts.shape == (1, 3, 96, 2 + 3, 2, 4) and result.num_reference_latents == 2
    assert result.context_scale.frames == (1.0, 0.25, 1.0)
    alone = encode(a, folding_vae)
    assert torch.equal(result.contexts[0, 0], alone.contexts[0, 0])
    assert torch.equal(result.contexts[0, 1, :, 2:], encode(b, folding_vae).contexts[0, 0, :, 1:])
    assert torch.equal(result.contexts[0, 1, :, 1], alone.contexts[0, 0, :, 1])
    free = result.contexts[0, 1, :, 0]
    gray = folding_vae(torch.full((1, 1, 16, 32, 3), 0.5))[0, :, 0]
    assert torch.equal(free[:16], gray) and torch.equal(free[16:32], gray) and (free[32:] == 1).all()
    assert torch.equal(result.contexts[0, 2, :, :2], torch.stack([free, free], 1))


def test_an_image_given_twice_to_one_unit_counts_twice(folding_vae):
    image = torch.rand(16, 32, 3)
    assert encode(reference([image, image], **SIZE), folding_vae).num_reference_latents == 2


def test_trim_drops_the_references_and_only_them(folding_vae):
    result = encode(reference(torch.rand(2, 16, 32, 3), **SIZE), folding_vae)
    latents = torch.rand(result.latent_shape)
    assert torch.equal(result.trim(latents), latents[:, :, 2:])
    with pytest.raises(ValueError, match="untrimmed"):
        result.trim(result.trim(latents))


def test_what_cannot_be_encoded_is_named(folding_vae):
    with pytest.raises(ValueError, match=r"unit 1 \(generate 32x16, 9 frames\) and unit 2"):
        encode([text(**SIZE), text(32, 16, 5)], folding_vae)
    with pytest.raises(ValueError, match="at least one"):
        encode([], folding_vae)
    with pytest.raises(ValueError, match=r"latents \[1, 4, 3, 2, 4\].*Wan 2.1 VAE"):
        encode(text(**SIZE), lambda video: folding_vae(video)[:, :4])


def test_a_real_vae_gives_the_same_batched(wan_encode):
    guide = control(torch.rand(9, 16, 32, 3))
    unit = compose(masked(), guide, reference(torch.rand(2, 16, 32, 3), **SIZE))
    torch.testing.assert_close(
        encode(unit, wan_encode, max_batch=2).contexts,
        encode(unit, wan_encode).contexts,
        atol=1e-5,
        rtol=1e-5,
    )
