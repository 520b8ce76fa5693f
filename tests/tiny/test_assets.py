"""The bundled demo weights: small, native, and good enough to look at."""

import socket
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tiny.clips.shapes import COLORS, OBJECT_COLORS, SPLITS, clip
from tiny.evaluation.accuracy import background_words, counted_objects
from tiny.evaluation.cases import full_caption
from tiny.evaluation.config import SamplerConfig
from tiny.evaluation.generate import UnitEncoder, generate, load_tiny
from tiny.evaluation.network import load_evaluator
from tiny.evaluation.observe import PRESENT, observe
from tiny.learning import psnr
from tiny.tasks import build_unit
from training.data.wan_vae import decode_video, encode_video

ASSETS = Path(__file__).resolve().parents[2] / "assets"
FILES = {
    "teacher": "vdot_tiny.safetensors",
    "VAE": "vdot_tiny_vae.safetensors",
    "text encoder": "vdot_tiny_text.safetensors",
    "evaluator": "vdot_tiny_evaluator.safetensors",
    "student": "vdot_tiny_student.safetensors",
}


@pytest.fixture(scope="module")
def model():
    return load_tiny(ASSETS)


def test_the_weights_fit_in_a_repository():
    """20 MB for the teacher, its VAE, its text encoder and what scores it; 8 MB more for the student."""
    sizes = {name: (ASSETS / file).stat().st_size / 1e6 for name, file in FILES.items()}
    student = sizes.pop("student")
    assert sizes.keys() == {"teacher", "VAE", "text encoder", "evaluator"}
    assert sum(sizes.values()) <= 20, sizes
    assert student <= 8
    assert {path.name for path in ASSETS.glob("*.safetensors")} == set(FILES.values()), "all are counted"


def test_diffusers_loads_the_vae_offline_by_the_configuration_in_its_header(model, tmp_path, monkeypatch):
    from diffusers import AutoencoderKLWan
    from safetensors import safe_open

    def refuse(*arguments):
        raise AssertionError("nothing is asked of the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    file = ASSETS / FILES["VAE"]
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    assert metadata["trained_by"] == "training/pretrain.py"
    (tmp_path / "config.json").write_text(metadata["config"])
    theirs = AutoencoderKLWan.from_single_file(str(file), config=str(tmp_path), torch_dtype=torch.float32)
    frames = clip(SPLITS["evaluation"].start).frames
    with torch.no_grad():
        raw = theirs.encode(frames.movedim(-1, 0)[None] * 2 - 1).latent_dist.mode()
        decoded = theirs.decode(raw).sample
    mean, std = (
        torch.tensor(theirs.config[f"latents_{name}"]).view(1, -1, 1, 1, 1) for name in ("mean", "std")
    )
    ours = encode_video(model.vae, frames[None])
    torch.testing.assert_close((raw - mean) / std, ours, atol=1e-4, rtol=0)
    expected = decode_video(model.vae, ours)
    torch.testing.assert_close(((decoded + 1) / 2).movedim(1, -1), expected, atol=1e-4, rtol=0)


def test_the_vae_agrees_between_comfyui_diffusers_and_training(model, comfy):
    import comfy.sd
    import comfy.utils
    from comfy.latent_formats import Wan21

    weights, metadata = comfy.utils.load_torch_file(str(ASSETS / FILES["VAE"]), return_metadata=True)
    native = comfy.sd.VAE(sd=weights, metadata=metadata)
    native.throw_exception_if_invalid()
    frames = clip(SPLITS["evaluation"].start).frames
    ours = encode_video(model.vae, frames[None])
    theirs = Wan21().process_in(native.encode(frames).float())
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    raw = Wan21().process_out(ours)
    decoded = native.decode(raw).float().reshape(frames.shape)
    expected = ((model.vae.decode(raw).sample[0] + 1) / 2).clamp(0, 1).movedim(0, -1)
    torch.testing.assert_close(decoded, expected, atol=1e-5, rtol=1e-5)


def test_the_vae_keeps_held_out_clips_and_wans_statistics(model):
    frames = torch.stack([clip(SPLITS["evaluation"].start + i).frames for i in range(12)])
    latents = encode_video(model.vae, frames)
    quality = psnr((decode_video(model.vae, latents) - frames).square().mean((1, 2, 3, 4)))
    assert quality.mean() > 28
    assert latents.mean().abs() < 0.15 and 0.8 < latents.std() < 1.3


def _contrast(video: torch.Tensor, masks: torch.Tensor) -> float:
    """Color distance between the objects' places and a band around them, mean over frames."""
    near, far = (F.max_pool2d(masks[:, None], size, 1, size // 2)[:, 0] > 0 for size in (5, 9))
    inside, band = masks > 0, far & ~near
    frames = [f for f in range(len(video)) if inside[f].sum() > 8 and band[f].any()]
    return sum((video[f][inside[f]].mean(0) - video[f][band[f]].mean(0)).norm().item() for f in frames) / len(
        frames
    )


@pytest.fixture(scope="module", params=["teacher", "student"])
def sampled(request, model):
    """Each bundled transformer with a sampler of four evaluations that fits it: the student's is its own."""
    if request.param == "teacher":
        return model, SamplerConfig(steps=4, shift=3.75, guidance=1)
    own = SamplerConfig(steps=4, shift=8.0, solver="renoise", labels="exact", guidance=1)
    return load_tiny(ASSETS, ASSETS / FILES["student"]), own


def test_prompts_decide_colors(sampled):
    model, few = sampled
    clips = [clip(SPLITS["evaluation"].start + index) for index in range(12)]
    contexts, _ = UnitEncoder(model)([build_unit("text", one) for one in clips])
    videos = generate(model, contexts, 0, [full_caption(one) for one in clips], few, range(12))
    observations = observe(load_evaluator(ASSETS / "vdot_tiny_evaluator.safetensors"), videos)
    named = [
        (index, OBJECT_COLORS.index(one.objects[n].color))
        for index, one in enumerate(clips)
        for n in counted_objects(one)
    ]
    assert sum(bool(observations.presence[at] > PRESENT) for at in named) >= 0.85 * len(named)
    backgrounds = [list(COLORS)[int(chances.argmax())] for chances in observations.background]
    right = [name == background_words(one)[1] for name, one in zip(backgrounds, clips, strict=True)]
    assert sum(right) >= 10


def test_depth_decides_where_things_are(sampled):
    model, few = sampled
    encode = UnitEncoder(model)
    clips = [clip(SPLITS["evaluation"].start + index) for index in range(3)]
    prompts, totals = [one.captions[-2] for one in clips], {}
    for task in ("depth", "text"):
        contexts, _ = encode([build_unit(task, one) for one in clips])
        videos = generate(model, contexts, 0, prompts, few, range(3))
        totals[task] = sum(_contrast(video, one.masks) for video, one in zip(videos, clips, strict=True))
    assert totals["depth"] > 2 * totals["text"], totals
