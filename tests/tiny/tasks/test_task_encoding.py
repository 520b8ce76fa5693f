"""The encoding of every task against a plain re-implementation of its rules."""

import math

import pytest
import torch

from tiny.clips.shapes import SPLITS, clip, figure_clip
from tiny.tasks import COMPOSITE, SINGLE
from vdot_core.vcu import encode

SEEDS = [SPLITS["evaluation"][i] for i in (11, 2)]
SIZE = {"height": 48, "width": 80, "num_frames": 13}


@pytest.fixture(scope="module", params=SEEDS)
def scenes(request):
    """A clip of things, and one of a stick figure."""
    return clip(request.param, **SIZE), figure_clip(request.param, **SIZE)


class LinearVae:
    """Every latent is another fixed mixture of all pixels of its block, so no pixel may be out of place."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.first = torch.randn(16, 8 * 8 * 3, generator=generator) / 14
        self.rest = torch.randn(16, 4 * 8 * 8 * 3, generator=generator) / 28

    def __call__(self, video):
        return torch.stack([self.one(clip) for clip in video])

    def one(self, clip):
        assert clip.ndim == 4 and clip.min() >= 0 and clip.max() <= 1
        latents = [self._blocks(clip[:1]) @ self.first.T]
        for start in range(1, len(clip), 4):
            latents.append(self._blocks(clip[start : start + 4]) @ self.rest.T)
        return torch.stack([latent.permute(2, 0, 1) for latent in latents], 1)

    def _blocks(self, frames):
        count, height, width, _ = frames.shape
        blocks = (frames * 2 - 1).reshape(count, height // 8, 8, width // 8, 8, 3)
        return blocks.permute(1, 3, 0, 2, 4, 5).flatten(2)


def oracle(unit, vae):
    """VACE's encoding as it is described, step by step."""
    frames, masks = unit.frames, unit.masks.gt(0.5).float()
    inactive = frames * (1 - masks[..., None]) + 0.5 * masks[..., None]
    reactive = frames * masks[..., None] + 0.5 * (1 - masks[..., None])
    latents = torch.cat([vae.one(inactive.contiguous()), vae.one(reactive.contiguous())])
    num_latents, height, width = latents.shape[1:]
    folded = torch.zeros(64, num_latents, height, width)
    for t in range(num_latents):
        source = masks[math.floor((t + 0.5) * len(masks) / num_latents)]
        for y in range(8):
            for x in range(8):
                folded[8 * y + x, t] = source[y::8, x::8]
    parts = [torch.cat([latents, folded])]
    for image in reversed(unit.references):
        latent = vae.one(image[None])
        parts.insert(0, torch.cat([latent, torch.zeros(16 + 64, *latent.shape[1:])]))
    return torch.cat(parts, 1)


@pytest.mark.parametrize("task", SINGLE | COMPOSITE)
def test_encoding_equals_the_plain_one(task, scenes):
    definition = (SINGLE | COMPOSITE)[task]
    unit, vae = definition(scenes[definition.scene == "figure"]), LinearVae()
    context = encode(unit, vae)
    assert context.num_reference_latents == len(unit.references)
    torch.testing.assert_close(context.contexts[0, 0], oracle(unit, vae), atol=1e-5, rtol=0)
