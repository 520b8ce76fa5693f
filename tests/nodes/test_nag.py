"""NAG in VDOT Sampler, on both networks, against a pass of the network that computes it by itself."""

from types import MethodType

import pytest
import torch

from tests.nodes.test_sampler import SETTINGS, with_text

NAG = {"nag_scale": 8.0}
ONE_STEP = {"preset": "custom", "steps": 1, "shift": 5.0, "solver": "euler"}


@pytest.fixture(scope="module")
def encoded(run, vae, text):
    """(positive, negative, latent) of a control clip; the negative has a text of its own."""
    clip = torch.rand(5, 32, 48, 3, generator=torch.Generator().manual_seed(3))
    unit = run("VDOTControl", frames=clip, width=0, height=0, length=0).args[0]
    negative = [[text[0][0].flip(-1) * 1.5, {}]]
    out = run("VDOTEncode", positive=text, negative=negative, vae=vae, unit=unit, strength=1.0)
    return out.args[:3]


@pytest.fixture
def sample(run, encoded):
    """sample(model, **changes): latents of the sampler node."""

    def call(model, **changes):
        inputs = {"positive": encoded[0], "negative": encoded[1], "latent": encoded[2], "seed": 7, **SETTINGS}
        return run("VDOTSampler", model=model, **{**inputs, **changes}).args[0]["samples"]

    return call


@pytest.fixture
def reference(native, encoded, sample, monkeypatch):
    """reference(scale, tau, alpha): ComfyUI's network with the method written out in its blocks."""

    def call(scale, tau, alpha):
        network = native.model.diffusion_model
        with torch.inference_mode():
            text = network.text_embedding(encoded[1][0][0])

        def forward(self, x, context, **_):
            queries, results = self.norm_q(self.q(x)), []
            for source in (context, text):
                q, k, v = (
                    part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
                    for part in (queries, self.norm_k(self.k(source)), self.v(source))
                )
                weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
                results.append((weights @ v).transpose(1, 2).flatten(2))
            guided = scale * results[0] - (scale - 1) * results[1]
            ratio = guided.abs().sum(-1, keepdim=True) / results[0].abs().sum(-1, keepdim=True)
            guided = torch.where(ratio > tau, guided * tau / ratio, guided)
            return self.o(alpha * guided + (1 - alpha) * results[0])

        with monkeypatch.context() as patch:
            for block in network.blocks:
                patch.setattr(block.cross_attn, "forward", MethodType(forward, block.cross_attn))
            return sample(native)

    return call


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("which", ["ours", "native"])
def test_it_is_the_published_method(request, sample, reference, which):
    model = request.getfixturevalue(which)
    for scale, tau, alpha in ((8.0, 2.5, 0.25), (4.0, 1.2, 1.0)):
        expected = reference(scale, tau, alpha)
        result = sample(model, nag_scale=scale, nag_tau=tau, nag_alpha=alpha)
        assert relative(result, expected) < 1e-4
        assert relative(result, sample(model)) > 1e-3, "it is felt"


@pytest.mark.parametrize("which", ["ours", "native"])
def test_off_by_default_and_gone_after_the_run(request, sample, which):
    model = request.getfixturevalue(which)
    plain = sample(model)
    sample(model, **NAG)
    assert torch.equal(sample(model), plain) and torch.equal(sample(model, nag_scale=0.0), plain)
    assert relative(sample(model, nag_scale=1.0), plain) < 1e-5


@pytest.mark.parametrize("which", ["ours", "native"])
def test_with_guidance_only_the_positive_part_is_changed(request, sample, which):
    """v = n + cfg (p - n) in one step: p with NAG, n without, whichever order ComfyUI batches them in."""
    model = request.getfixturevalue(which)
    swapped = sample(model, cfg=0.0, **ONE_STEP)  # the negative alone
    mixed = sample(model, cfg=3.0, **ONE_STEP, **NAG)
    positive = sample(model, **ONE_STEP, **NAG)
    assert relative(mixed, swapped + 3.0 * (positive - swapped)) < 1e-4


def test_two_videos_at_once(ours, sample, encoded):
    latent = {**encoded[2], "samples": encoded[2]["samples"].repeat(2, 1, 1, 1, 1)}
    both = sample(ours, latent=latent, **NAG)
    assert relative(both[:1], sample(ours, **NAG)) < 1e-4


def test_both_models_of_a_pair_have_it(ours, native, sample):
    pair = sample(ours, second_model=native, switch_step=2, **NAG)
    assert relative(pair, sample(ours, **NAG)) < 1e-3


def test_it_needs_a_negative_text(run, ours, sample, encoded, text):
    with pytest.raises(ValueError, match="nag_scale is 8 but nothing is connected to negative"):
        sample(ours, negative=None, **NAG)
    empty = [[torch.zeros_like(text[0][0]), {**encoded[1][0][1], "vdot_zero_text": True}]]
    with pytest.raises(ValueError, match=r"nag_scale is 8, but .* has no text.*nag_scale to 0"):
        sample(ours, negative=empty, **NAG)
    assert relative(sample(ours, negative=with_text(empty), **NAG), sample(ours)) > 1e-4


def test_another_packs_cross_attention_is_not_overwritten(native, sample):
    model = native.clone()
    attention = model.model.diffusion_model.blocks[0].cross_attn
    model.add_object_patch("diffusion_model.blocks.0.cross_attn.forward", attention.forward)
    with pytest.raises(ValueError, match=r"another node .such as WanVideoNAG. has replaced"):
        sample(model, **NAG)
