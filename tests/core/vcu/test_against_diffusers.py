"""Encoding equals what diffusers' WanVACEPipeline prepares for the same clip, with the same VAE.

Three differences are diffusers', not VACE's, or not consistent in it, and are settled here:
- diffusers first squeezes a reference to multiples of 8, which distorts it; VACE's own code does not, nor do
  we. The fixture turns that off, so that references of any size are compared.
- diffusers prepends each reference in turn, which reverses their order; VACE's own code keeps it, so do we.
- VACE and diffusers binarize the mask for the latents but leave it soft in the 64 mask channels, where a
  pixel of 0.4 would say "keep" in one and "a bit of both" in the other. Here it is binarized once, before
  both; clips with masks of 0 and 1 are the same either way.
"""

import numpy as np
import pytest
import torch
from PIL import Image

from vdot_core.vcu import VCU, compose, control, encode, inpaint, reference, text

WIDTH, HEIGHT, NUM_FRAMES = 48, 32, 9


@pytest.fixture(scope="module")
def pipeline(wan_vae):
    from diffusers import FlowMatchEulerDiscreteScheduler, WanVACEPipeline, WanVACETransformer3DModel

    transformer = WanVACETransformer3DModel(
        num_attention_heads=1,
        attention_head_dim=12,
        text_dim=8,
        freq_dim=8,
        ffn_dim=8,
        num_layers=1,
        vace_layers=[0],
        vace_in_channels=96,
    )
    pipeline = WanVACEPipeline(None, None, wan_vae, FlowMatchEulerDiscreteScheduler(), transformer)
    pipeline.video_processor.register_to_config(vae_scale_factor=1)
    return pipeline


@torch.no_grad()
def theirs(pipeline, frames, mask, images, binary_mask=True):
    """[96, T, h, w] by the pipeline's own three steps."""
    video, prepared_mask, prepared = pipeline.preprocess_conditions(
        None if frames is None else frames.permute(0, 3, 1, 2)[None],
        None if mask is None else mask[None, :, None].expand(1, -1, 3, -1, -1),
        [images] if images else None,
        1,
        HEIGHT,
        WIDTH,
        NUM_FRAMES,
        torch.float32,
        "cpu",
    )
    latents = pipeline.prepare_video_latents(video, prepared_mask, prepared, None, torch.device("cpu"))
    if binary_mask:
        prepared_mask = (prepared_mask > 0.5).float()
    return torch.cat([latents, pipeline.prepare_masks(prepared_mask, prepared)], 1)[0]


def pictures(sizes):
    rng = np.random.default_rng(1)
    images = [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
    return images, [torch.from_numpy(np.array(image)) for image in images]


def close(ours, expected):
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


REFERENCE_SIZES = [[], [(70, 20)], [(31, 77), (WIDTH, HEIGHT), (200, 150)]]


@pytest.mark.parametrize("sizes", REFERENCE_SIZES, ids=len)
def test_text_and_references(pipeline, wan_encode, sizes):
    images, tensors = pictures(sizes)
    unit = text(WIDTH, HEIGHT, NUM_FRAMES)
    if sizes:
        unit = compose(unit, reference(tensors, width=WIDTH, height=HEIGHT, num_frames=NUM_FRAMES))
    result = encode(unit, wan_encode)
    assert result.num_reference_latents == len(sizes)
    close(result.contexts[0, 0], theirs(pipeline, None, None, images[::-1]))


@pytest.mark.parametrize("sizes", REFERENCE_SIZES, ids=len)
@pytest.mark.parametrize("binary_mask", [False, True], ids=["soft", "binary"])
def test_masked_clip(pipeline, wan_encode, sizes, binary_mask):
    images, tensors = pictures(sizes)
    frames = torch.rand(NUM_FRAMES, HEIGHT, WIDTH, 3)
    mask = torch.rand(NUM_FRAMES, HEIGHT, WIDTH)
    if binary_mask:
        mask = (mask > 0.5).float()
    unit = VCU(frames, mask, references=tuple(image.float() / 255 for image in tensors))
    result = encode(unit, wan_encode)
    expected = theirs(pipeline, frames, mask, images[::-1])
    close(result.contexts[0, 0], expected)
    if binary_mask:
        close(result.contexts[0, 0], theirs(pipeline, frames, mask, images[::-1], binary_mask=False))


def test_builders_give_the_same_as_the_pipeline_on_the_raw_clip(pipeline, wan_encode):
    """A control needs no mask; inpainting grays what lies under the mask."""
    frames = torch.rand(NUM_FRAMES, HEIGHT, WIDTH, 3)
    close(encode(control(frames), wan_encode).contexts[0, 0], theirs(pipeline, frames, None, []))

    mask = torch.zeros(NUM_FRAMES, HEIGHT, WIDTH)
    mask[:, 8:20, 5:30] = 1
    grayed = torch.where(mask[..., None] > 0, 0.5, frames)
    close(encode(inpaint(frames, mask), wan_encode).contexts[0, 0], theirs(pipeline, grayed, mask, []))


def test_references_keep_their_order(wan_encode):
    """VACE's own order: the first reference given is the first latent frame."""
    _, tensors = pictures([(20, 60), (64, 16)])
    unit = reference(tensors, width=WIDTH, height=HEIGHT, num_frames=NUM_FRAMES)
    context = encode(unit, wan_encode).contexts[0, 0]
    for slot, canvas in enumerate(unit.references):
        close(context[:16, slot], wan_encode(canvas[None, None])[0, :, 0])
        assert not context[16:, slot].any()
