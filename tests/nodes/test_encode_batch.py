"""The halves of a masked clip in one pass of ComfyUI's VAE: where they fit, with the same result as alone."""

import logging

import pytest
import torch

from tests.support.pack import submodule

GIB = 1 << 30


@pytest.fixture
def encodes(vae, monkeypatch):
    """Shapes that the VAE's network is called with."""
    shapes, encode = [], vae.first_stage_model.encode

    def noted(x, **kwargs):
        shapes.append(tuple(x.shape))
        return encode(x, **kwargs)

    monkeypatch.setattr(vae.first_stage_model, "encode", noted)
    return shapes


@pytest.fixture
def free_bytes(comfy, monkeypatch):
    """free_bytes(n): ComfyUI believes that n bytes are free."""
    import comfy.model_management

    def pretend(count):
        monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *_, **__: count)

    return pretend


@pytest.fixture
def context(run, vae, text):
    """context(): VDOT Encode's latents of a clip with a masked half, both halves encoded again."""
    clip, mask = torch.rand(9, 32, 48, 3), torch.zeros(9, 32, 48)
    mask[:, :, 24:] = 1
    options = {"mask_shape": "original", "expand": 0.0, "width": 0, "height": 0, "length": 0}
    unit = run("VDOTMask", frames=clip, mask=mask, **options).args[0]

    def call():
        submodule("nodes.comfy_vae").latent_cache(vae).clear()
        out = run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=1.0)
        return out.args[0][0][1]["vace_frames"][0]

    return call


def test_memory_decides_and_the_result_is_the_same(encodes, free_bytes, context, vae):
    needed = vae.memory_used_encode((1, 3, 9, 32, 48), vae.vae_dtype)
    free_bytes(64 * GIB)
    together = context()
    assert encodes == [(2, 3, 9, 32, 48)], "both halves in one pass"
    encodes.clear()
    free_bytes(1.9 * needed)
    alone = context()
    assert encodes == [(1, 3, 9, 32, 48)] * 2
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_one_pass_equals_vae_encode_clip_by_clip(encodes, vae, comfy):
    import comfy.latent_formats

    video = torch.rand(3, 13, 32, 48, 3)
    with torch.inference_mode():
        together = submodule("nodes.comfy_vae").vae_encoder(vae)(video)
        assert sum(shape[0] for shape in encodes) == 3 and {shape[2] for shape in encodes} == {13}
        alone = torch.cat([comfy.latent_formats.Wan21().process_in(vae.encode(clip)) for clip in video])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert vae.crop_input is True, "the VAE itself is left as it was"


def test_out_of_memory_means_one_by_one_not_tiles(encodes, free_bytes, context, vae, monkeypatch, caplog):
    free_bytes(64 * GIB)
    expected, encode = context(), vae.first_stage_model.encode

    def too_much(x, **kwargs):
        if len(x) > 1:
            raise torch.OutOfMemoryError("pretended")
        return encode(x, **kwargs)

    monkeypatch.setattr(vae.first_stage_model, "encode", too_much)
    encodes.clear()
    with caplog.at_level(logging.WARNING, logger="vdot"):
        latents = context()
    assert encodes == [(1, 3, 9, 32, 48)] * 2, "whole clips"
    assert "encoding them one by one" in caplog.text
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=1e-5)


def test_other_failures_are_not_taken_for_want_of_memory(encodes, free_bytes, context, vae, monkeypatch):
    def broken(x, **kwargs):
        raise RuntimeError("weights are broken")

    free_bytes(64 * GIB)
    monkeypatch.setattr(vae.first_stage_model, "encode", broken)
    with pytest.raises(RuntimeError, match="weights are broken"):
        context()


def test_a_vae_that_takes_no_batch_gets_none(comfy, free_bytes):
    """TAE, ComfyUI's tiny stand-in."""
    import comfy.latent_formats
    import comfy.sd
    import comfy.taesd.taehv

    adapter = submodule("nodes.comfy_vae")
    network = comfy.taesd.taehv.TAEHV(16, latent_format=comfy.latent_formats.Wan21)
    state = {name: torch.randn(value.shape) * 0.05 for name, value in network.state_dict().items()}
    tae = comfy.sd.VAE(sd=state)
    adapter.check_vae(tae)
    free_bytes(64 * GIB)
    assert adapter.clips_at_once(tae)((9, 32, 48, 3)) == 1
    video = torch.rand(2, 9, 32, 48, 3)
    with torch.inference_mode():
        latents = adapter.vae_encoder(tae)(video)
        expected = comfy.latent_formats.Wan21().process_in(torch.cat([tae.encode(clip) for clip in video]))
    torch.testing.assert_close(latents, expected)


def test_an_older_vae_that_always_crops_gets_no_batch(vae, free_bytes):
    adapter = submodule("nodes.comfy_vae")
    free_bytes(64 * GIB)
    assert adapter.clips_at_once(vae)((9, 32, 48, 3)) == 2

    class Older:
        first_stage_model, patcher, device, vae_dtype = vae.first_stage_model, vae.patcher, vae.device, None
        memory_used_encode = staticmethod(vae.memory_used_encode)

        @staticmethod
        def encode(clip):
            return vae.encode(clip)

    assert adapter.clips_at_once(Older())((9, 32, 48, 3)) == 1
    with torch.inference_mode():
        assert adapter.vae_encoder(Older())(torch.rand(2, 9, 32, 48, 3)).shape == (2, 16, 3, 4, 6)
