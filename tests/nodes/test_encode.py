"""VDOTEncode against ComfyUI's own WanVaceToVideo, and what ComfyUI's node cannot do."""

import pytest
import torch

from tests.support.pack import submodule


@pytest.fixture(scope="module")
def native(comfy):
    """ComfyUI's WanVaceToVideo."""
    from comfy_extras.nodes_wan import WanVaceToVideo

    def call(*args, **kwargs):
        with torch.inference_mode():
            return WanVaceToVideo.execute(*args, **kwargs).args

    return call


def vace(conditioning):
    extra = conditioning[0][1]
    return extra["vace_frames"], extra["vace_mask"], extra["vace_strength"]


def control(run, frames, **size):
    return run("VDOTControl", frames=frames, **{"width": 0, "height": 0, "length": 0, **size}).args[0]


def test_equals_comfyui_for_a_control_with_reference(run, native, vae, text):
    clip, picture = torch.rand(9, 32, 48, 3), torch.rand(1, 32, 48, 3)
    expected = native(text, text, vae, 48, 32, 9, 1, 0.7, control_video=clip, reference_image=picture)
    unit = run(
        "VDOTReference", images={"image0": picture}, width=48, height=32, length=9, unit=control(run, clip)
    ).args[0]
    out = run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=0.7, negative=text)
    for ours, theirs in zip(out.args[:2], expected[:2], strict=True):
        frames, mask, strength = vace(ours)
        their_frames, their_mask, their_strength = vace(theirs)
        torch.testing.assert_close(frames[0], their_frames[0], atol=1e-5, rtol=1e-5)
        assert torch.equal(mask[0], their_mask[0]) and strength == their_strength
    assert out.args[2]["samples"].shape == expected[2]["samples"].shape
    assert out.args[2]["samples"].any().item() is False
    assert out.args[2]["vdot_num_reference_latents"] == out.args[3] == expected[3] == 1


def test_equals_comfyui_for_inpainting_with_a_binary_mask(run, native, vae, text):
    clip, mask = torch.rand(9, 32, 32, 3), torch.zeros(9, 32, 32)
    mask[3:, 8:24, :16] = 1
    gray = torch.where(mask[..., None] > 0, 0.5, clip)
    expected = native(text, text, vae, 32, 32, 9, 1, 1.0, control_video=gray, control_masks=mask)
    options = {"mask_shape": "original", "expand": 0.0, "width": 0, "height": 0, "length": 0}
    unit = run("VDOTMask", frames=clip, mask=mask, **options).args[0]
    frames, masks, _ = vace(run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=1.0).args[0])
    their_frames, their_masks, _ = vace(expected[0])
    torch.testing.assert_close(frames[0], their_frames[0], atol=1e-5, rtol=1e-5)
    assert torch.equal(masks[0], their_masks[0])


def test_several_references_each_take_a_latent_frame(run, vae, text):
    images = {f"image{i}": torch.rand(1, 40 + i, 30, 3) for i in range(3)}
    unit = run("VDOTReference", images=images, width=32, height=32, length=9).args[0]
    out = run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=1.0)
    frames, masks, _ = vace(out.args[0])
    assert frames[0].shape == (1, 32, 3 + 3, 4, 4) and masks[0].shape == (1, 64, 6, 4, 4)
    assert masks[0][:, :, :3].sum() == 0 and masks[0][:, :, 3:].min() == 1
    assert out.args[3] == 3 and "3 references" in out.ui["text"][0]


def test_units_keep_their_own_strength(run, vae, text):
    first, second = (control(run, torch.rand(5, 32, 32, 3)) for _ in range(2))
    out = run("VDOTEncode", positive=text, vae=vae, unit=first, strength=0.5, unit_2=second, strength_2=2.0)
    frames, _, strength = vace(out.args[0])
    assert strength == [0.5, 2.0] and len(frames) == 2 and not torch.equal(*frames)
    alone = vace(run("VDOTEncode", positive=text, vae=vae, unit=second, strength=1.0).args[0])[0][0]
    torch.testing.assert_close(frames[1], alone)


def test_encodings_chain_as_comfyui_s_do(run, vae, text):
    unit = control(run, torch.rand(5, 32, 32, 3))
    once = run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=1.0).args[0]
    outcome = run("VDOTEncode", positive=once, vae=vae, unit=unit, strength=0.3)
    twice = outcome.args[0]
    assert any("positive has a unit of an earlier node: all act" in line for line in outcome.ui["text"])
    assert [len(part) for part in vace(twice)] == [2, 2, 2] and vace(twice)[2] == [1.0, 0.3]
    assert "vace_frames" not in text[0][1], "the input conditioning was changed"


@pytest.mark.parametrize("side, count", [(48, 1), (32, 2)])
def test_an_earlier_encoding_of_another_size_is_refused_at_once(run, vae, text, monkeypatch, side, count):
    def unit(side, count):
        images = {f"image{index}": torch.rand(1, 32, 32, 3) for index in range(count)}
        return run("VDOTReference", images=images, width=side, height=32, length=5).args[0]

    once = run("VDOTEncode", positive=text, vae=vae, unit=unit(32, 1), strength=1.0).args[0]
    again = {"vae": vae, "unit": unit(side, count), "strength": 1.0}
    monkeypatch.setattr(type(vae), "encode", lambda *_: pytest.fail("encoded before it was checked"))
    message = rf"was encoded before, for 32x32 with 3 latent frames; .*{side}x32 with {2 + count} latent"
    with pytest.raises(ValueError, match=f"positive {message}"):
        run("VDOTEncode", positive=once, **again)
    with pytest.raises(ValueError, match=f"negative {message}"):
        run("VDOTEncode", positive=text, negative=once, **again)


def test_negative_without_a_text_is_a_marked_placeholder(run, vae, text):
    unit = run("VDOTText", width=32, height=32, length=5).args[0]
    _, negative, *_ = run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=1.0).args
    assert not negative[0][0].any() and negative[0][0].shape == text[0][0].shape
    assert "vace_frames" in negative[0][1] and negative[0][1]["vdot_zero_text"]


def test_gray_is_encoded_once_and_forgotten_on_unload(run, vae, text, monkeypatch):
    import comfy.model_management

    bridge = submodule("nodes.comfy_vae")
    bridge.latent_cache(vae).clear()
    calls = []
    encode = type(vae).encode
    monkeypatch.setattr(type(vae), "encode", lambda self, x: calls.append(x.shape) or encode(self, x))
    unit = run("VDOTText", width=32, height=32, length=9).args[0]
    for _ in range(3):
        run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=1.0)
    assert len(calls) == 1, "an all-gray clip has one half to encode, once"
    assert len(bridge.latent_cache(vae)) == 1
    comfy.model_management.unload_all_models()
    assert len(bridge.latent_cache(vae)) == 0


def test_wrong_vae_is_refused_before_anything_is_encoded(run, text):
    class OtherVAE:
        # As HunyuanVideo's: the same shape of latents, another space.
        latent_channels, latent_dim, first_stage_model = 16, 3, torch.nn.Identity()

    class LookAlike:
        first_stage_model = torch.nn.Identity()

    unit = run("VDOTText", width=32, height=32, length=5).args[0]
    for other in (OtherVAE(), LookAlike()):
        with pytest.raises(ValueError, match=r"an? Identity .*Wan 2\.1 VAE"):
            run("VDOTEncode", positive=text, vae=other, unit=unit, strength=1.0)


def test_units_of_different_size_are_refused(run, vae, text):
    first = run("VDOTText", width=32, height=32, length=5).args[0]
    second = run("VDOTText", width=48, height=32, length=5).args[0]
    with pytest.raises(ValueError, match="differ"):
        run("VDOTEncode", positive=text, vae=vae, unit=first, strength=1.0, unit_2=second)


@pytest.mark.parametrize("num_clips", [1, 2])
def test_a_clip_can_be_interrupted_while_it_is_encoded(pack, vae, num_clips):
    """By the checks of ComfyUI's layers, before the next chunk; afterwards the VAE works as before."""
    import comfy.model_management as management

    encode = submodule("nodes.comfy_vae").vae_encoder(vae)
    video, passes = torch.rand(num_clips, 17, 32, 32, 3), []

    def interrupt(*_):
        passes.append(len(passes))
        if len(passes) == 3:
            management.interrupt_current_processing()

    handle = vae.first_stage_model.encoder.register_forward_hook(interrupt)
    try:
        with torch.inference_mode(), pytest.raises(management.InterruptProcessingException):
            encode(video)
        assert len(passes) == 3, "the next chunk is not begun"
    finally:
        handle.remove()
        management.interrupt_current_processing(False)
    with torch.inference_mode():
        assert torch.isfinite(encode(video)).all()


def test_the_demos_vae_can_be_interrupted(pack):
    import comfy.model_management as management

    vae = submodule("nodes.comfy_demo").load_demo()[2]
    management.interrupt_current_processing()
    with torch.inference_mode(), pytest.raises(management.InterruptProcessingException):
        submodule("nodes.comfy_vae").vae_encoder(vae)(torch.rand(1, 5, 32, 32, 3))


MASKING = {"mask_shape": "original", "expand": 0.0, "width": 0, "height": 0, "length": 0}


def test_progress_of_a_long_clip_moves_while_it_is_encoded(run, vae, text, monkeypatch):
    import comfy.utils

    shown = []
    monkeypatch.setattr(
        comfy.utils.ProgressBar, "update_absolute", lambda self, count, total: shown.append(count / total)
    )
    mask = torch.zeros(17, 32, 32)
    mask[:, 8:24, 8:24] = 1
    unit = run("VDOTMask", frames=torch.rand(17, 32, 32, 3), mask=mask, **MASKING).args[0]
    submodule("nodes.comfy_vae").latent_cache(vae).clear()
    shown.clear()
    run("VDOTEncode", positive=text, vae=vae, unit=unit, strength=1.0)
    assert len(shown) >= 9 and shown == sorted(shown) and shown[-1] == 1
