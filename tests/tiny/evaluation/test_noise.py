"""A video's noise follows from its own seed: not from its batch, never twice, and as the nodes draw it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.support import pack as pack_support
from tiny.clips.shapes import SPLITS, clip
from tiny.evaluation import generate as making
from tiny.evaluation.cases import full_caption, row_cases
from tiny.evaluation.config import EvaluationConfig, SamplerConfig, TaskConfig
from vdot_core import sampling, vcu

ASSETS = Path(__file__).resolve().parents[3] / "assets"
STUDENT = SamplerConfig(steps=4, shift=8.0, solver="renoise", labels="exact", guidance=1.0)
SAMPLERS = {"unipc": SamplerConfig(steps=2, guidance=3.0), "renoise": replace(STUDENT, steps=3)}


class Silent(nn.Module):
    """A network that predicts nothing and remembers what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.seen = nn.Parameter(torch.zeros(())), []

    def forward(self, x, timestep, text, contexts):
        self.seen.append(x.clone())
        return torch.zeros_like(x)


@pytest.fixture(scope="module")
def model(assets):
    return making.load_tiny(assets)


def _inputs(model, count):
    cases = list(row_cases(EvaluationConfig(run="x", clips=count), TaskConfig("inpainting")))
    contexts, references = making.UnitEncoder(model)([case.unit for case in cases])
    return contexts, references, [case.prompt for case in cases], [case.seed for case in cases]


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_video_does_not_depend_on_its_batch(model, name):
    contexts, count, prompts, seeds = _inputs(model, 3)
    together = making.generate(model, contexts, count, prompts, SAMPLERS[name], seeds)
    assert together.shape == (3, 17, 64, 64, 3)
    for rows in (slice(0, 1), slice(2, 3), slice(1, 3)):
        apart = making.generate(model, contexts[rows], count, prompts[rows], SAMPLERS[name], seeds[rows])
        torch.testing.assert_close(together[rows], apart, atol=1e-4, rtol=1e-4)
    other = making.generate(model, contexts[2:], count, prompts[2:], SAMPLERS[name], [seeds[2] + 1])
    assert not torch.allclose(together[2:], other, atol=1e-2), "the seed decides"


def test_guidance_changes_the_video(model):
    contexts, count, prompts, seeds = _inputs(model, 1)
    videos = [
        making.generate(model, contexts, count, prompts, SamplerConfig(2, guidance=guidance), seeds)
        for guidance in (1.0, 3.0)
    ]
    assert not torch.allclose(*videos, atol=1e-3)


def test_fresh_noise_continues_each_rows_own_generator(model):
    silent, seeds = Silent(), [5, 6, 7]
    contexts = torch.zeros(3, 1, 96, 2, 8, 8)
    making.sample_latents(replace(model, network=silent), contexts, ["a", "b", "c"], STUDENT, seeds)
    sigmas = sampling.Schedule.shifted(4, 8.0, labels="exact").sigmas
    noises = [silent.seen[0]]
    for x, following, lower in zip(silent.seen, silent.seen[1:], sigmas[1:], strict=False):
        noises.append((following - (1 - lower) * x) / lower)
    for row, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        for noise in noises:
            expected = torch.randn(1, 16, 2, 8, 8, generator=generator)[0]
            torch.testing.assert_close(noise[row], expected, atol=1e-4, rtol=1e-4)
    flat = torch.stack([noise[row].flatten() for noise in noises for row in range(3)])
    assert torch.corrcoef(flat).fill_diagonal_(0).abs().max() < 0.1, "the same noise twice"


def test_a_video_is_the_one_that_the_nodes_make_with_its_seed(comfy):
    """The bundled student with a prompt and a reference, by the nodes and by the evaluation."""
    nodes = pack_support.load_nodes()
    scene, seed = clip(SPLITS["evaluation"].start + 4), 1_000_003

    def run(name, **inputs):
        return pack_support.run_node(nodes[name], **inputs).args

    size = {"width": 64, "height": 64}
    network, text_encoder, decoder = run("VDOTLoadDemo")
    picture = scene.references[0]
    (unit,) = run("VDOTReference", images={"image0": picture[None]}, **size, length=17)
    with torch.inference_mode():
        text = text_encoder.encode_from_tokens_scheduled(text_encoder.tokenize(full_caption(scene)))
    encoded = run("VDOTEncode", positive=text, vae=decoder, unit=unit, strength=1.0)
    settings = {"preset": "custom", "steps": 4, "shift": 8.0, "solver": "renoise", "seed": seed}
    (latent, *_) = run("VDOTSampler", model=network, positive=encoded[0], latent=encoded[2], **settings)
    theirs = network.model.process_latent_in(latent["samples"]).clone()

    model = making.load_tiny(ASSETS, ASSETS / "vdot_tiny_student.safetensors")
    unit = vcu.reference([picture], num_frames=17, **size)
    contexts, count = making.UnitEncoder(model)([unit, unit])
    prompts = [full_caption(scene)] * 2
    ours = making.sample_latents(model, contexts, prompts, STUDENT, [seed + 1, seed])[:, :, count:]
    assert theirs.shape == ours[1:].shape
    error, other = ((video - theirs[0]).abs().mean() for video in (ours[1], ours[0]))
    assert error < 1e-3 and other > 0.1, f"off by {error:.5f}, the video of another seed by {other:.2f}"
