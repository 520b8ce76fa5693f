"""VDOTLoadDemo: the bundled model, text encoder and VAE as ComfyUI objects."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tests.support.pack import submodule


@pytest.fixture(scope="module")
def demo(run, demo_assets):
    return run("VDOTLoadDemo").args


def encode(clip, prompt):
    with torch.inference_mode():
        return clip.encode_from_tokens_scheduled(clip.tokenize(prompt))


def test_text_encoder_is_transformers_own(demo, demo_assets):
    """The same tokens and embeddings as the UMT5 of transformers."""
    from transformers import UMT5Config, UMT5EncoderModel

    path = demo_assets / "vdot_tiny_text.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        state = {name: file.get_tensor(name).float() for name in file.keys() if name != "spiece_model"}
    clip, prompt = demo[1], "a red circle moving to the right over a plain blue background"
    tokens = [token for token, _ in clip.tokenize(prompt)["umt5xxl"][0]]
    assert len(tokens) == int(metadata["text_len"]) and 1 in tokens
    length = tokens.index(1) + 1
    reference = UMT5EncoderModel(UMT5Config(**json.loads(metadata["config"]))).eval()
    state.setdefault("encoder.embed_tokens.weight", state["shared.weight"])
    reference.load_state_dict(state, strict=True)
    ids = torch.tensor([tokens])
    with torch.inference_mode():
        mask = (torch.arange(len(tokens)) < length).long()[None]
        expected = reference(ids, attention_mask=mask).last_hidden_state * mask[..., None]
    ours = encode(clip, prompt)[0][0]
    torch.testing.assert_close(ours.float(), expected, atol=1e-4, rtol=1e-4)
    assert not ours[0, length:].any()


def test_vae_keeps_a_picture(demo):
    """The bundled VAE's reconstruction is close to what went in."""
    shapes = submodule("tiny.clips.shapes")
    clip = shapes.clip(2**41 + 4).frames
    vae = demo[2]
    with torch.inference_mode():
        decoded = vae.decode(vae.encode(clip))[0]
    psnr = -10 * torch.log10((decoded - clip).pow(2).mean())
    assert decoded.shape == clip.shape and psnr > 20


def test_previews_have_the_video_s_colors(demo, comfy):
    """ComfyUI's own previewer of the demo's latents shows the clip, small; with Wan's colors it does not."""
    import latent_preview

    shapes = submodule("tiny.clips.shapes")
    errors = {"own": [], "wan": []}
    for seed in range(2**41 + 4, 2**41 + 10):
        clip = shapes.clip(seed).frames
        with torch.inference_mode():
            latents = demo[0].model.process_latent_in(demo[2].encode(clip))
        expected = torch.nn.functional.avg_pool2d(clip[:1].movedim(-1, 1), 8)[0].movedim(0, -1)
        for name, formats in (("own", demo[0].model.latent_format), ("wan", comfy.latent_formats.Wan21())):
            stock = latent_preview.Latent2RGBPreviewer(
                formats.latent_rgb_factors, formats.latent_rgb_factors_bias
            )
            preview = torch.from_numpy(np.array(stock.decode_latent_to_preview(latents))).float() / 255
            errors[name].append((preview - expected).abs().mean().item())
    assert max(errors["own"]) < 0.1
    assert sum(errors["own"]) < sum(errors["wan"]) / 2, errors
    load_again, arguments = demo[0].cached_patcher_init
    again = load_again(*arguments).model.latent_format.latent_rgb_factors
    assert again == demo[0].model.latent_format.latent_rgb_factors


def test_text_steers_the_video(demo, run):
    """Two prompts, one seed: different videos; the same prompt twice: the same."""
    model, clip, vae = demo
    unit = run("VDOTText", width=64, height=64, length=17).args[0]
    settings = {"preset": "trained", "steps": 4, "shift": 8.0, "solver": "renoise", "seed": 1}

    def video(prompt):
        out = run("VDOTEncode", positive=encode(clip, prompt), vae=vae, unit=unit, strength=1.0).args
        latent = run("VDOTSampler", model=model, positive=out[0], latent=out[2], **settings).args[0]
        with torch.inference_mode():
            return vae.decode(latent["samples"])[0]

    red, blue = (
        video("a red circle on a plain white background"),
        video("a blue star on a plain black background"),
    )
    assert red.shape == (17, 64, 64, 3) and bool(red.isfinite().all())
    assert (red - blue).abs().mean() > 0.02
    assert torch.equal(red, video("a red circle on a plain white background"))


def test_missing_files_are_named(pack, monkeypatch, tmp_path):
    demo = submodule("nodes.comfy_demo")
    monkeypatch.setattr(demo, "ASSETS", tmp_path)
    with pytest.raises(ValueError, match=r"vdot_tiny_student\.safetensors is not in"):
        demo.load_demo()
