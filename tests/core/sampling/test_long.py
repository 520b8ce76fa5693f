"""Long videos: the plan's properties, and chunks against the same video made at once by stand-in models."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from tests.support.memory import peak_bytes
from vdot_core import vcu
from vdot_core.sampling.long import (
    Change,
    Joining,
    changed_at,
    chunk_seed,
    continued,
    generate,
    plan_chunks,
    sliced,
)
from vdot_core.sampling.long.chunks import generated_latents
from vdot_core.sampling.long.drift import MAX_SHIFT, corrected, matched, measure

H, W = 32, 48
OFF = Joining(drift=False, fade=False, paste_back=False)


def vae_encode(video):
    """A causal stand-in: each latent is the mean of its own frames' blocks, three colors in 16 channels."""
    video = video.permute(0, 4, 1, 2, 3)
    groups = torch.cat([video[:, :, :1].expand(-1, -1, 3, -1, -1), video], 2)
    latents = F.avg_pool3d(groups, (4, 8, 8))
    return torch.cat([latents, torch.zeros_like(latents[:, :1]).repeat(1, 13, 1, 1, 1)], 1)


def vae_decode(latents):
    video = latents[:, :3].repeat_interleave(4, 2).repeat_interleave(8, 3).repeat_interleave(8, 4)
    return video[:, :, 3:].permute(0, 2, 3, 4, 1)


def blocks(num_frames, seed=0):
    """A clip that the stand-in VAE keeps exactly: constant in 8 x 8 blocks and groups of four frames."""
    generator = torch.Generator().manual_seed(seed)
    latents = 0.2 + 0.5 * torch.rand(1, 16, (num_frames - 1) // 4 + 1, H // 8, W // 8, generator=generator)
    return vae_decode(latents)[0]


class Model:
    """Makes the wanted clip's chunk, plus an error that grows with that of the overlap it is given."""

    def __init__(self, clip, error=0.0, num_references=0):
        self.clip, self.error, self.num_references, self.contexts = clip, error, num_references, []

    def __call__(self, context, span, prompt):
        self.contexts.append((context, span, prompt))
        wanted = vae_encode(self.clip[None, span.start : span.stop])
        references = torch.zeros_like(wanted[:, :, :1]).repeat(1, 1, self.num_references, 1, 1)
        return torch.cat([references, wanted + self.error * (span.index > 0)], 2)


class Follower(Model):
    """Makes the wanted clip as far off as the overlap it is given, and its own error further."""

    def __call__(self, context, span, prompt):
        wanted = vae_encode(self.clip[None, span.start : span.stop])
        if not span.overlap:
            return wanted
        groups = (span.overlap - 1) // 4
        known = context.contexts[:, 0, :3, 1 : 1 + groups]
        wanted[:, :3] += (known - wanted[:, :3, 1 : 1 + groups]).mean() + self.error
        return wanted


def video_of(unit, spans, model, joining=OFF, **more):
    chunks = list(
        generate(
            unit, spans, vae_encode=vae_encode, vae_decode=vae_decode, sample=model, joining=joining, **more
        )
    )
    starts = [chunk.start for chunk in chunks]
    assert starts == [sum(len(c.frames) for c in chunks[:i]) for i in range(len(chunks))]
    return torch.cat([chunk.frames for chunk in chunks])


@pytest.mark.parametrize("chunk, overlap", [(81, 17), (81, 1), (17, 5), (9, 5), (5, 1), (49, 45)])
def test_plans_cover_every_length_with_even_chunks(chunk, overlap):
    for num_frames in range(1, 900, 4):
        spans = plan_chunks(num_frames, chunk, overlap)
        assert spans[0].start == 0 and spans[-1].stop == num_frames and spans[-1].handed_on == 0
        assert all(span.num_frames % 4 == 1 and span.num_frames <= chunk for span in spans)
        assert all(
            b.start + overlap == a.stop and b.overlap == overlap == a.handed_on
            for a, b in itertools.pairwise(spans)
        )
        lengths = [span.num_frames for span in spans]
        assert max(lengths) - min(lengths) <= 4
        assert len(spans) == 1 or len(spans) == -(-(num_frames - overlap) // (chunk - overlap))


@pytest.mark.parametrize(
    "values, message",
    [
        ((80, 81, 17), "num_frames is 80 frames, expected 4n\\+1 .* give 77 or 81"),
        ((161, 82, 17), "chunk is 82"),
        ((161, 81, 16), "overlap is 16"),
        ((161, 17, 17), "nothing new is left"),
    ],
)
def test_impossible_plans_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        plan_chunks(*values)


def test_seeds_are_the_videos_own_first_and_then_all_different():
    seeds = [chunk_seed(7, index) for index in range(50)] + [chunk_seed(8, index) for index in range(50)]
    assert seeds[0] == 7 and len(set(seeds)) == 100 and all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("drift", [True, False])
@pytest.mark.parametrize("fade", [True, False])
def test_a_perfect_model_gives_the_clip_as_it_is(drift, fade):
    clip = blocks(61)
    unit = vcu.text(width=W, height=H, num_frames=61)
    joining = Joining(drift, fade)
    made = video_of(unit, plan_chunks(61, 17, 5), Model(clip), joining)
    torch.testing.assert_close(made, clip, atol=1e-5, rtol=0)


def test_the_overlap_reaches_the_next_chunk_as_kept_frames():
    clip, control = blocks(29), torch.rand(29, H, W, 3)
    unit = vcu.control(control)
    model = Model(clip)
    video_of(unit, plan_chunks(29, 17, 5), model)
    for context, span, _ in model.contexts[1:]:
        kept, generated, mask = context.contexts[0, 0].split([16, 16, 64])
        groups = 1 + (span.overlap - 1) // 4
        # VACE samples masks at the middle of even stretches, so that the last kept group may count as new.
        assert not mask[:, : groups - 1].any() and bool((mask[:, groups:] == 1).all())
        wanted = vae_encode(clip[None, span.start : span.stop])[0]
        torch.testing.assert_close(kept[:, 1:groups], wanted[:, 1:groups], atol=1e-5, rtol=0)
        anchor = clip[span.start].unflatten(0, (4, 8)).unflatten(2, (6, 8)).mean((1, 3))
        torch.testing.assert_close(kept[:3, 0], anchor.movedim(-1, 0))
        own = vae_encode(control[None, span.start : span.stop])[0]
        torch.testing.assert_close(generated[:3, groups:], own[:3, groups:])


def test_the_continued_unit_is_vaces_composition():
    """compose(extension, control) is the rule that VACE was trained with."""
    unit, known = vcu.control(torch.rand(17, H, W, 3)), torch.rand(5, H, W, 3)
    ours = continued(unit, known)
    theirs = vcu.compose(vcu.extend(first=known, num_frames=17), unit)
    assert torch.equal(ours.frames, theirs.frames) and torch.equal(ours.masks, theirs.masks)
    assert ours.kind == theirs.kind == "extension"


def test_kept_pixels_of_the_overlap_are_the_units_own():
    clip, mask = torch.rand(17, H, W, 3), torch.zeros(17, H, W)
    mask[:, 8:24, 8:24] = 1
    unit = vcu.inpaint(clip, mask)
    known = continued(unit, torch.zeros(5, H, W, 3))
    assert torch.equal(known.frames[:5][mask[:5] == 0], clip[:5][mask[:5] == 0])
    assert not known.frames[:5][mask[:5] == 1].any() and not known.masks[:5].any()


def test_references_and_prompts_change_at_the_nearest_seam():
    clip, red, blue = blocks(61), torch.rand(H, W, 3), torch.rand(H, W, 3)
    unit = vcu.reference([red], width=W, height=H, num_frames=61)
    model = Model(clip, num_references=1)
    spans = plan_chunks(61, 17, 5)
    changes = [Change(30, (blue,)), Change(0, None, "rain"), Change(45, None, "sun")]
    video_of(unit, spans, model, changes=changes)
    seen = [(prompt, changed_at(changes, span)[0]) for _, span, prompt in model.contexts]
    assert [prompt for prompt, _ in seen] == ["rain"] * 4 + ["sun"]
    assert [images is not None for _, images in seen] == [False, False, True, True, True]
    for context, _, _ in model.contexts:
        assert context.num_reference_latents == 1 and not context.contexts[0, 0, 32:, 0].any()
    latents = [context.contexts[0, 0, :16, 0] for context, _, _ in model.contexts]
    assert torch.equal(latents[0], latents[1]) and not torch.equal(latents[1], latents[2])


def test_a_models_error_of_color_does_not_add_up():
    """The second chunk's error is seen in the overlap; so is that of every later one."""
    clip = blocks(121)
    unit = vcu.text(width=W, height=H, num_frames=121)
    spans = plan_chunks(121, 17, 5)
    assert len(spans) == 10
    naive = video_of(unit, spans, Follower(clip, error=0.01), OFF)
    ours = video_of(unit, spans, Follower(clip, error=0.01), Joining(fade=False))
    assert (naive[-12:] - clip[-12:]).mean() == pytest.approx(9 * 0.01, abs=1e-3)
    torch.testing.assert_close(ours, clip, atol=2e-3, rtol=0)


def test_a_scene_that_changes_its_colors_keeps_them():
    """The reference is the overlap, not the beginning: a clip that grows darker stays as dark."""
    clip = blocks(121) * torch.linspace(1, 0.3, 31).repeat_interleave(4)[3:].view(-1, 1, 1, 1)
    unit = vcu.text(width=W, height=H, num_frames=121)
    made = video_of(unit, plan_chunks(121, 17, 5), Follower(clip), Joining())
    torch.testing.assert_close(made, clip, atol=2e-3, rtol=0)


def test_a_chunk_that_keeps_pixels_of_its_clip_is_not_corrected():
    clip, mask = blocks(61), torch.zeros(61, H, W)
    mask[:, :, : W // 2] = 1
    unit, spans = vcu.inpaint(clip, mask), plan_chunks(61, 17, 5)
    made = [video_of(unit, spans, Model(clip, error=0.1), Joining(drift, False)) for drift in (True, False)]
    assert torch.equal(*made)


def textured(num_frames=9):
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(num_frames, 3, H // 8, W // 8, generator=generator)
    smooth = F.interpolate(coarse, (H, W), mode="bilinear").movedim(1, -1)
    return 0.3 + 0.3 * smooth + 0.1 * torch.rand(num_frames, H, W, 3, generator=generator)


def test_mean_contrast_and_detail_are_brought_back():
    known = textured()
    everything = torch.ones(known.shape[:3], dtype=torch.bool)
    mean = known.mean((0, 1, 2))
    faded = (known - mean) * 0.9 + mean + torch.tensor([0.04, 0.0, -0.04])
    back = corrected(faded, measure(faded[:5], known[:5], everything[:5]), everything)
    torch.testing.assert_close(back, known, atol=2e-3, rtol=0)
    soft = F.avg_pool2d(F.pad(known.movedim(-1, 1), (1, 1, 1, 1), "replicate"), 3, 1).movedim(1, -1)
    soft = 0.15 * soft + 0.85 * known
    sharp = corrected(soft, measure(soft[:5], known[:5], everything[:5]), everything)
    assert (sharp - known).abs().mean() < 0.6 * (soft - known).abs().mean()


def test_an_overlap_that_the_model_did_not_repeat_corrects_little():
    """Parts of the picture that moved either way; their mean is no error of the color."""
    known = textured()
    everything = torch.ones(known.shape[:3], dtype=torch.bool)
    sides = (0.06 * torch.linspace(-1, 1, W) + 0.01).view(-1, 1)
    other = measure(known + sides, known, everything)
    even = measure(known + 0.01, known, everything)
    assert (other.known - other.own).abs().max() < 0.1 * 0.01
    torch.testing.assert_close(even.known - even.own, torch.full((3,), -0.01), atol=1e-4, rtol=0)


def test_latents_are_brought_to_the_overlap_that_was_given():
    latents = torch.randn(1, 16, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(17, H, W)
    masks[:, : H // 2 + 3] = 1
    generated = generated_latents(masks)
    assert generated[:, :2].all() and not generated[:, 2:].any()
    assert generated_latents(torch.ones(1, 1, 1).expand(17, H, W)).all()
    masks[6, 0, 0] = 0
    assert not generated_latents(masks)[2, 0, 0] and generated_latents(masks)[[1, 3], 0, 0].all()
    out = matched(latents, latents[:, :, :2] + 0.3, generated)
    torch.testing.assert_close(out[:, :, :, :2], latents[:, :, :, :2] + 0.3, atol=1e-4, rtol=0)
    assert torch.equal(out[:, :, :, 2:], latents[:, :, :, 2:])
    assert torch.equal(matched(latents, latents[:, :, :2] + 1, torch.zeros_like(generated)), latents)


def test_a_correction_spares_kept_pixels_and_is_limited():
    frames, generated = textured(), torch.zeros(9, H, W, dtype=torch.bool)
    generated[:, :, : W // 2] = True
    correction = measure(frames[:5], frames[:5] + 0.05, generated[:5])
    out = corrected(frames, correction, generated)
    assert torch.equal(out[:, :, W // 2 :], frames[:, :, W // 2 :])
    torch.testing.assert_close(out[:, :, : W // 2], frames[:, :, : W // 2] + 0.05, atol=1e-4, rtol=0)
    far = measure(frames[:5], frames[:5] + 0.5, generated[:5])
    torch.testing.assert_close(far.known - far.own, torch.full((3,), MAX_SHIFT))
    assert measure(frames[:5], frames[:5], torch.zeros_like(generated[:5])) is None


def test_the_end_of_a_loop_leads_to_its_beginning():
    """The last chunk is given the first frames as what follows, and is as long as the video says."""
    clip = blocks(61)
    clip[:4] = clip[4]  # in the last chunk, the four are one group
    unit = vcu.control(torch.rand(61, H, W, 3), strength=tuple(0.5 + t / 32 for t in range(16)))
    spans = plan_chunks(61, 17, 5, loop=True)
    model = Model(torch.cat([clip, clip[:4]]))
    made = video_of(unit, spans, model, Joining())
    torch.testing.assert_close(made, clip, atol=2e-3, rtol=0)
    context, span, _ = model.contexts[-1]
    kept, _, mask = context.contexts[0, 0].split([16, 16, 64])
    torch.testing.assert_close(kept[:3, -1], vae_encode(clip[None, :5])[0, :3, 1], atol=0.15, rtol=0)
    assert not mask[:, -1].any() and mask[:, 2:-1].any() and span.stop == 65
    assert len(context.context_scale.frames[0]) == (span.num_frames - 1) // 4 + 1


def test_colors_at_the_end_of_a_loop_are_those_of_its_beginning():
    clip = blocks(61)
    clip[:4] = clip[4]  # in the last chunk, the four are one group
    unit = vcu.text(width=W, height=H, num_frames=61)
    ramp = 0.1 * torch.linspace(0, 1, 65).view(-1, 1, 1, 1)
    spans = plan_chunks(61, 17, 5, loop=True)
    made = video_of(unit, spans, Model(torch.cat([clip, clip[:4]]) + ramp), Joining())
    assert (made[-2:] - clip[-2:]).mean() < 0.03 < (made[-14:-12] - clip[-14:-12]).mean()


@pytest.mark.parametrize("num_frames, chunk", [(13, 17), (29, 9)])
def test_loops_without_a_chunk_in_between_are_refused(num_frames, chunk):
    with pytest.raises(ValueError, match="has no chunk between its end and its beginning"):
        plan_chunks(num_frames, chunk, 5, loop=True)


def test_given_chunks_are_not_sampled():
    clip = blocks(61)
    unit = vcu.extend(first=clip[:41], num_frames=61)
    model = Model(clip)
    made = video_of(unit, plan_chunks(61, 17, 5), model)
    torch.testing.assert_close(made, clip, atol=1e-5, rtol=0)
    assert [span.index for _, span, _ in model.contexts] == [3, 4]


def test_kept_pixels_are_the_clip_s_own_to_the_end():
    """Through a VAE that blurs, with a mask that moves; what was handed on is restored too."""
    clip, mask = torch.rand(61, H, W, 3), torch.zeros(61, H, W)
    for index in range(61):
        mask[index, 8:24, index // 4 : index // 4 + 16] = 1
    unit, spans = vcu.inpaint(clip, mask), plan_chunks(61, 17, 5)
    made = video_of(unit, spans, Model(blocks(61)), Joining())
    far = torch.from_numpy(np.stack([ndimage.distance_transform_edt(m == 0) > 8 for m in mask.numpy()]))
    assert torch.equal(made[far], clip[far]) and 0.2 < far.float().mean() < 0.8
    inside = mask[5:] > 0.5
    torch.testing.assert_close(made[5:][inside], blocks(61)[5:][inside], atol=0.02, rtol=0)
    blurred = video_of(unit, spans, Model(blocks(61)), OFF)
    assert not torch.equal(blurred[far], clip[far])


def test_a_clip_that_is_continued_stays_and_a_start_picture_does_not_jump():
    clip = torch.rand(41, H, W, 3)
    spans = plan_chunks(61, 17, 5)
    made = video_of(vcu.extend(first=clip, num_frames=61), spans, Model(blocks(61)), Joining())
    assert torch.equal(made[:41], clip)
    alone = vcu.extend(first=clip[:1], num_frames=61)
    torch.testing.assert_close(
        video_of(alone, spans, Model(blocks(61)), Joining())[:1], blocks(61)[:1], atol=1e-5, rtol=0
    )


def test_parts_strengths_and_regions_are_sliced_alike():
    region = torch.zeros(61, H, W)
    region[:, :16] = 1
    strength = tuple(float(t) for t in range(16))
    control = vcu.control(torch.rand(61, H, W, 3), region=region, strength=strength)
    part = sliced(control, plan_chunks(61, 17, 5)[1])
    assert part.strength == (3.0, 4.0, 5.0, 6.0, 7.0) and part.num_frames == 17
    assert torch.equal(part.frames, control.frames[12:29]) and torch.equal(part.region, region[12:29])


def peak_of(num_frames, encode, decode, height, width):
    """Most bytes that a video takes whose finished stretches are dropped at once."""

    def sample(context, span, prompt):
        return context.contexts[:, 0, :16]

    def call():
        unit = vcu.text(width=width, height=height, num_frames=num_frames)
        spans = plan_chunks(num_frames, 17, 5)
        made = generate(unit, spans, vae_encode=encode, vae_decode=decode, sample=sample)
        assert sum(len(chunk.frames) for chunk in made) == num_frames

    return peak_bytes(call)


def test_memory_does_not_grow_with_the_length():
    short, long = (peak_of(length, vae_encode, vae_decode, H, W) for length in (41, 101))
    assert long <= 1.1 * short
