"""The encoding of complete tasks with the bundled VAE, against diffusers' own pipeline.

Both encode with the very same weights: here through `vdot_core.vcu.encode`, there through WanVACEPipeline's
preprocessing of the raw clip, mask and pictures. What each puts on a white canvas, grays, normalizes, folds
and stacks is its own. test_against_diffusers.py says where the two differ by design.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.data.wan_vae import load_vae
from vdot_core.vcu import compose, control, encode, extend, inpaint, outpaint, reference, text

WIDTH, HEIGHT, FRAMES = 80, 48, 9
VAE_FILE = Path(__file__).resolve().parents[3] / "assets" / "vdot_tiny_vae.safetensors"
SIZE = {"width": WIDTH, "height": HEIGHT, "num_frames": FRAMES}


@pytest.fixture(scope="module")
def vae():
    return load_vae(VAE_FILE)


@pytest.fixture(scope="module")
def pipeline(vae):
    from diffusers import FlowMatchEulerDiscreteScheduler, WanVACEPipeline, WanVACETransformer3DModel

    small = {"num_attention_heads": 1, "attention_head_dim": 12, "text_dim": 8, "freq_dim": 8, "ffn_dim": 8}
    transformer = WanVACETransformer3DModel(**small, num_layers=1, vace_layers=[0], vace_in_channels=96)
    pipeline = WanVACEPipeline(None, None, vae, FlowMatchEulerDiscreteScheduler(), transformer)
    pipeline.video_processor.register_to_config(vae_scale_factor=1)
    return pipeline


@torch.no_grad()
def theirs(pipeline, frames=None, mask=None, pictures=()):
    """[96, T, h, w] of a raw clip [F, H, W, 3], mask [F, H, W] and PIL pictures; None = generate all."""
    video, prepared_mask, prepared = pipeline.preprocess_conditions(
        None if frames is None else frames.permute(0, 3, 1, 2)[None],
        None if mask is None else mask[None, :, None].expand(1, -1, 3, -1, -1),
        [list(pictures)[::-1]] if pictures else None,
        *(1, HEIGHT, WIDTH, FRAMES, torch.float32, "cpu"),
    )
    latents = pipeline.prepare_video_latents(video, prepared_mask, prepared, None, torch.device("cpu"))
    return torch.cat([latents, pipeline.prepare_masks(prepared_mask, prepared)], 1)[0]


@torch.no_grad()
def ours(vae, unit):
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)

    def vae_encode(video):
        return (vae.encode(video.permute(0, 4, 1, 2, 3) * 2 - 1).latent_dist.mode() - mean) / std

    return encode(unit, vae_encode).contexts[0, 0]


@pytest.fixture(scope="module")
def scene():
    """A smooth clip, a moving mask, a cut-out picture of a subject on white, and its mask."""
    generator = torch.Generator().manual_seed(4)
    noise = torch.rand(1, 3, 3, 6, 10, generator=generator)
    clip = torch.nn.functional.interpolate(noise, size=(FRAMES, HEIGHT, WIDTH), mode="trilinear")[0]
    mask = torch.zeros(FRAMES, HEIGHT, WIDTH)
    for frame in range(FRAMES):
        mask[frame, 12:30, 10 + 4 * frame : 30 + 4 * frame] = 1
    picture = torch.from_numpy(
        np.random.default_rng(2).integers(0, 256, (9, 14, 3), dtype=np.uint8).repeat(5, 0).repeat(5, 1)
    )
    return clip.permute(1, 2, 3, 0).contiguous(), mask, picture


GRAY = 0.5


def gray_under(clip, mask):
    return torch.where(mask[..., None] > 0, GRAY, clip)


def kept_only(clip, frames):
    """The clip's kept frames in place, gray elsewhere, and the mask."""
    mask = torch.ones(FRAMES, HEIGHT, WIDTH)
    mask[frames] = 0
    return {"frames": gray_under(clip, mask), "mask": mask}


def margins(clip):
    """The middle of the clip on gray, and the mask of what is around it."""
    mask = torch.ones(FRAMES, HEIGHT, WIDTH)
    mask[:, 16:-8, 8:-24] = 0
    return {"frames": gray_under(clip, mask), "mask": mask}


def pil(picture):
    return Image.fromarray(picture.numpy())


def subject(picture):
    return reference(picture.float() / 255, **SIZE)


def two_subjects(picture):
    return reference([picture.float() / 255, picture[:20].float() / 255], **SIZE)


def inside_region(clip, mask):
    """A control within a repainted region: the control's pixels there, the clip's around it."""
    return {"frames": torch.where(mask[..., None] > 0, 1 - clip, clip), "mask": mask}


# name -> (unit by our builders, what the pipeline is told), each from (clip, mask, picture).
CASES = {
    "text": (lambda c, m, p: text(WIDTH, HEIGHT, FRAMES), lambda c, m, p: {}),
    "control": (lambda c, m, p: control(c), lambda c, m, p: {"frames": c}),
    "inpainting": (lambda c, m, p: inpaint(c, m), lambda c, m, p: {"frames": gray_under(c, m), "mask": m}),
    "outpainting": (
        lambda c, m, p: outpaint(c[:, 16:-8, 8:-24], left=8, right=24, top=16, bottom=8),
        lambda c, m, p: margins(c),
    ),
    "firstframe": (
        lambda c, m, p: extend(c[:1], num_frames=FRAMES),
        lambda c, m, p: kept_only(c, [0]),
    ),
    "both ends": (
        lambda c, m, p: extend(c[:5], c[-1:], num_frames=FRAMES),
        lambda c, m, p: kept_only(c, [0, 1, 2, 3, 4, FRAMES - 1]),
    ),
    "reference": (lambda c, m, p: subject(p), lambda c, m, p: {"pictures": [pil(p)]}),
    "references": (lambda c, m, p: two_subjects(p), lambda c, m, p: {"pictures": [pil(p), pil(p[:20])]}),
    "reference + control": (
        lambda c, m, p: compose(subject(p), control(c)),
        lambda c, m, p: {"frames": c, "pictures": [pil(p)]},
    ),
    "reference + inpainting": (
        lambda c, m, p: compose(inpaint(c, m), subject(p)),
        lambda c, m, p: {"frames": gray_under(c, m), "mask": m, "pictures": [pil(p)]},
    ),
    "references + first frame": (
        lambda c, m, p: compose(extend(c[:1], num_frames=FRAMES), two_subjects(p)),
        lambda c, m, p: kept_only(c, [0]) | {"pictures": [pil(p), pil(p[:20])]},
    ),
    "character replacement": (
        lambda c, m, p: compose(subject(p), control(1 - c), inpaint(c, m)),
        lambda c, m, p: inside_region(c, m) | {"pictures": [pil(p)]},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_trained_vae_says_the_same_of_both(name, vae, pipeline, scene):
    build, tell = CASES[name]
    context, expected = ours(vae, build(*scene)), theirs(pipeline, **tell(*scene))
    assert context.shape == expected.shape and context.shape[0] == 96
    assert context[:16].std() > 0.05, "a trained VAE tells gray from a picture"
    torch.testing.assert_close(context, expected, atol=2e-5, rtol=1e-5)
