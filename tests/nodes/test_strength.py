"""Strengths that change over time, from the unit to the sampled video, on our network and ComfyUI's own."""

import pytest
import torch

from tests.support.pack import submodule

SETTINGS = {"preset": "released", "steps": 4, "shift": 16.0, "solver": "unipc", "seed": 7}


@pytest.fixture(scope="module")
def control(run):
    """A control clip with a reference: 3 latent frames and one."""
    clip = torch.rand(9, 32, 48, 3, generator=torch.Generator().manual_seed(3))
    unit = run("VDOTControl", frames=clip, width=0, height=0, length=0).args[0]
    return run("VDOTReference", images={"image0": clip[:1]}, width=48, height=32, length=9, unit=unit).args[0]


@pytest.fixture
def sample(run, vae, text, control):
    """sample(model, curve or None, strength=1.0): the video's latents."""

    def call(model, curve, strength=1.0):
        unit = control if curve is None else run("VDOTStrength", unit=control, curve=curve).args[0]
        out = run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=strength)
        return run("VDOTSampler", model=model, positive=out.args[0], latent=out.args[2], **SETTINGS).args[0][
            "samples"
        ]

    return call


def test_a_constant_curve_is_the_plain_strength(sample, ours):
    by_frame = sample(ours, "0: 0.5", strength=2.0)
    torch.testing.assert_close(by_frame, sample(ours, None, strength=1.0), atol=1e-4, rtol=1e-4)


def test_a_curve_is_felt(sample, ours):
    plain, fading = sample(ours, None), sample(ours, "0: 1, -1: 0")
    assert (plain - fading).abs().amax() > 1e-3
    assert (fading - sample(ours, "0: 0, -1: 1")).abs().amax() > 1e-3


def test_the_node_says_what_it_encodes(run, vae, text, control):
    unit = run("VDOTStrength", unit=control, curve="0: 1, 8: 0").args[0]
    out = run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=0.5)
    assert "strength 0" in out.ui["text"][0] and "to 0.5 by latent frame" in out.ui["text"][0]
    (scale,) = out.args[0][0][1]["vace_strength"]
    assert len(scale.frames) == 4, "one for the reference, three for the video"
    assert scale.frames[0] == max(scale.frames[1:]) == 0.5


def test_strength_0_is_said(run, vae, text, control):
    off = run("VDOTStrength", unit=control, curve="0: 0")
    assert any("strength is 0 in the entire video" in line for line in off.ui["text"])
    out = run("VDOTEncode", positive=text, vae=vae, unit=control, strength=1.0, unit_3=off.args[0])
    assert "unit_3 has strength 0 and no effect; raise it, or disconnect it" in out.ui["text"]
    out = run("VDOTEncode", positive=text, vae=vae, unit=control, strength=0.0)
    assert any(line.startswith("unit has strength 0") for line in out.ui["text"])
    fading = run("VDOTStrength", unit=control, curve="0: 1, 8: 0")
    assert not any("no effect" in line for line in fading.ui["text"])


def test_units_with_and_without_a_curve_go_together(run, vae, text, control, ours):
    fading = run("VDOTStrength", unit=control, curve="0: 1, -1: 0").args[0]
    out = run("VDOTEncode", positive=text, vae=vae, unit=control, strength=1.0, unit_2=fading, strength_2=0.5)
    plain, scale = out.args[0][0][1]["vace_strength"]
    assert set(plain.frames) == {1.0} and max(scale.frames) == 0.5
    video = run("VDOTSampler", model=ours, positive=out.args[0], latent=out.args[2], **SETTINGS).args[0]
    assert bool(video["samples"].isfinite().all())


def test_comfyui_s_own_network_does_the_same(sample, ours, native):
    curve = "0: 1, -1: 0"
    torch.testing.assert_close(sample(native, curve), sample(ours, curve), atol=2e-3, rtol=2e-3)


def test_so_does_ksampler(run, vae, text, control, ours, native):
    from nodes import common_ksampler

    unit = run("VDOTStrength", unit=control, curve="0: 1, -1: 0").args[0]
    positive, negative, latent, _ = run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=1.0).args
    with torch.inference_mode():
        videos = [
            common_ksampler(model, 1, 1, 1.0, "euler", "simple", positive, negative, latent)[0]["samples"]
            for model in (ours, native)
        ]
    torch.testing.assert_close(*videos, atol=2e-3, rtol=2e-3)


def test_tokens_of_other_frames_are_refused():
    scale = submodule("nodes.comfy_bridge").FrameScale(frames=(1.0, 0.5, 0.0))
    hints = torch.ones(2, 6, 4)
    assert (hints * scale)[1, :, 0].tolist() == [1.0, 1.0, 0.5, 0.5, 0.0, 0.0]
    with pytest.raises(ValueError, match="3 latent frames, the video 8 tokens"):
        torch.ones(1, 8, 4) * scale
