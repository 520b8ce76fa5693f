"""Latents and conditioning that other models' nodes made, or changed: refused in words before sampling."""

import math

import pytest
import torch

from tests.nodes.fuzz import check_sentence

SHAPE = (1, 16, 2, 8, 8)
FRAMES, MASK = torch.zeros(1, 32, 2, 8, 8), torch.zeros(1, 64, 2, 8, 8)


@pytest.fixture(scope="module")
def sample(run, ours):
    """sample(latent, conditioning) takes one step."""

    def call(latent, conditioning):
        settings = {"preset": "custom", "steps": 1, "shift": 1.0, "solver": "euler", "preview": False}
        inputs = {"model": ours, "positive": conditioning, "latent": latent, "seed": 0, **settings}
        return run("VDOTSampler", **inputs).args[0]["samples"]

    return call


def latent(**keys):
    return {"samples": torch.zeros(SHAPE), **keys}


LATENTS = {
    "another model's channels": latent(samples=torch.ones(1, 48, 2, 4, 4)),
    "complex": latent(samples=torch.zeros(SHAPE).to(torch.complex64)),
    "an image's": latent(samples=torch.zeros(1, 4, 8, 8)),
    "no frame": latent(samples=torch.zeros(1, 16, 0, 8, 8)),
    "no number of references": latent(vdot_num_reference_latents=None),
    "words for references": latent(vdot_num_reference_latents="x"),
    "fewer than no references": latent(vdot_num_reference_latents=-1),
    "words for a batch": latent(batch_index="x"),
    "an endless batch": latent(batch_index=[10**12]),
    "a flat mask": latent(noise_mask=torch.ones(8)),
    "a complex mask": latent(noise_mask=torch.ones(1, 8, 8).to(torch.complex64)),
}


@pytest.mark.parametrize("name", LATENTS)
def test_a_latent_that_does_not_fit_is_refused(sample, text, name):
    with pytest.raises(ValueError, match=r"^(the )?latent.*(take|give|connect)") as error:
        sample(LATENTS[name], text)
    assert len(str(error.value)) <= 400


def test_nested_latents_are_refused(sample, text, comfy):
    from comfy.nested_tensor import NestedTensor

    with pytest.raises(ValueError, match=r"latent is a NestedTensor.*connect VDOT Encode"):
        sample(latent(samples=NestedTensor([torch.zeros(SHAPE)] * 2)), text)


def test_masks_of_whole_numbers_or_switches_are_masks(sample, text):
    plain, *others = (
        sample(latent(noise_mask=torch.ones(1, 8, 8).to(dtype)), text)
        for dtype in (torch.float32, torch.bool, torch.uint8)
    )
    assert all(torch.equal(plain, other) for other in others)


CONTEXTS = {
    "no mask": {"vace_frames": [FRAMES], "vace_mask": []},
    "a longer mask": {"vace_frames": [FRAMES], "vace_mask": [torch.zeros(1, 64, 3, 8, 8)]},
    "words": {"vace_frames": "x"},
    "no list": {"vace_frames": FRAMES, "vace_mask": MASK},
    "flat": {"vace_frames": [FRAMES[0]], "vace_mask": [MASK[0]]},
}


@pytest.mark.parametrize("name", CONTEXTS)
def test_a_context_that_was_changed_is_refused(sample, run, text, vae, name):
    changed = [[text[0][0], CONTEXTS[name]]]
    with pytest.raises(ValueError, match="of positive do not fit each other; take"):
        sample(latent(), changed)
    unit = run("VDOTText", width=64, height=64, length=5).args[0]
    with pytest.raises(ValueError, match="of positive do not fit each other; take"):
        run("VDOTEncode", positive=changed, vae=vae, unit=unit, strength=1.0)


def patched(model, value: float):
    """A model with a LoRA of this value, by ComfyUI's own loader."""
    import comfy.sd

    layer = "diffusion_model.blocks.0.self_attn.q"
    lora = {
        f"{layer}.lora_B.weight": torch.full((128, 1), value),
        f"{layer}.lora_A.weight": torch.ones(1, 128),
    }
    return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0)[0]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_refused_where_it_appears(run, ours, vae, text, value, monkeypatch):
    """A VAE decodes NaN to black frames, without a word."""
    encode = vae.encode
    unit = run("VDOTControl", frames=torch.rand(5, 64, 64, 3), width=0, height=0, length=0).args[0]
    positive, _, empty, _ = run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=1.0).args
    damaged = [[torch.full_like(text[0][0], value), positive[0][1]]]
    context = {**positive[0][1], "vace_frames": [positive[0][1]["vace_frames"][0] * value]}
    settings = {"preset": "custom", "steps": 1, "shift": 1.0, "solver": "euler", "preview": False, "seed": 0}
    for model, conditioning, samples, sentence in (
        (
            patched(ours, value),
            positive,
            empty["samples"],
            "the video after step 1 of 1.*remove (the )?LoRA",
        ),
        (ours, damaged, empty["samples"], "the positive text.*load an undamaged text encoder"),
        (ours, [[text[0][0], context]], empty["samples"], "positive conditioning's VACE context.*the VAE"),
        (ours, positive, empty["samples"] + value, "the latent.*take the latent straight from VDOT Encode"),
    ):
        inputs = {"model": model, "positive": conditioning, "latent": {**empty, "samples": samples}}
        with pytest.raises(ValueError, match=sentence) as error:
            run("VDOTSampler", **inputs, **settings)
        check_sentence(str(error.value))
    monkeypatch.setattr(vae, "encode", lambda clip: encode(clip) * value)
    other = run("VDOTControl", frames=torch.rand(5, 64, 64, 3), width=0, height=0, length=0).args[0]
    with pytest.raises(ValueError, match=r"after the VAE encoded it, holds NaN.*an undamaged VAE"):
        run("VDOTEncode", positive=text, vae=vae, unit=other, strength=1.0)
