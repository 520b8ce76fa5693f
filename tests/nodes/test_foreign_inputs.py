"""Latents and conditioning that other models' nodes made, or changed: refused in words before sampling."""

import pytest
import torch

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
