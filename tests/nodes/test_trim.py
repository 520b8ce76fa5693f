"""References are cut off exactly once, whichever sampler and whichever wires a graph has."""

import copy
import io

import pytest
import torch

from tests.nodes.test_sampler import SETTINGS


@pytest.fixture(scope="module", params=[1, 3])
def encoded(request, run, vae, text):
    """(positive, negative, latent, trim_latent) of a 9-frame clip with one or several references."""
    clip = torch.rand(9, 32, 48, 3)
    unit = run("VDOTControl", frames=clip, width=0, height=0, length=0).args[0]
    images = {f"image{index}": torch.rand(1, 32, 48, 3) for index in range(request.param)}
    unit = run("VDOTReference", images=images, width=48, height=32, length=9, unit=unit).args[0]
    return run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=1.0).args


@pytest.fixture(scope="module")
def trim(comfy):
    """ComfyUI's Trim Video Latent."""
    from comfy_extras.nodes_wan import TrimVideoLatent

    def call(latent, amount):
        with torch.inference_mode():
            return TrimVideoLatent.execute(latent, amount).args[0]

    return call


@pytest.fixture(scope="module")
def sampled(run, ours, encoded):
    return run("VDOTSampler", model=ours, positive=encoded[0], latent=encoded[2], seed=7, **SETTINGS)


def test_trim_video_latent_after_our_sampler_changes_nothing(sampled, encoded, trim, vae):
    video = sampled.args[0]
    trimmed = trim(video, encoded[3])
    assert torch.equal(trimmed["samples"], video["samples"])
    with torch.inference_mode():
        assert vae.decode(trimmed["samples"]).shape[-4] == 9
        assert torch.equal(vae.decode(trimmed["samples"]), vae.decode(video["samples"]))


def test_a_number_of_ones_own_still_cuts(sampled, trim):
    video = sampled.args[0]
    assert torch.equal(trim(video, 1)["samples"], video["samples"].clone()[:, :, 1:])
    assert trim(trim(video, 1), 1)["samples"].shape[2] == 1


def test_after_ksampler_the_number_cuts_the_references(ours, encoded, trim):
    import nodes

    positive, negative, latent, count = encoded
    (result,) = nodes.KSampler().sample(ours, 1, 1, 1.0, "euler", "simple", positive, negative, latent)
    trimmed = trim(result, count)["samples"]
    assert torch.equal(trimmed, result["samples"][:, :, int(count) :]) and trimmed.shape[2] == 3


def test_the_sampler_says_what_it_cut(sampled, encoded, run, ours, vae, text):
    count = encoded[3]
    cut = "1 reference was cut off" if count == 1 else f"{count} references were cut off"
    assert any(cut in line for line in sampled.ui["text"])
    unit = run("VDOTText", width=48, height=32, length=5).args[0]
    plain = run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=1.0).args
    out = run("VDOTSampler", model=ours, positive=plain[0], latent=plain[2], seed=7, **SETTINGS)
    assert not any("cut off" in line for line in out.ui["text"])


def test_the_latents_are_otherwise_a_plain_tensor(sampled):
    samples = sampled.args[0]["samples"]
    buffer = io.BytesIO()
    torch.save(samples, buffer)
    buffer.seek(0)
    plain = torch.load(buffer, weights_only=True)
    for value in (plain, copy.deepcopy(samples), samples[0], samples[:, :, 1:], samples * 2, samples.clone()):
        assert type(value) is torch.Tensor
    assert torch.equal(plain, samples)
