"""Sample videos: what is shown, by which weights, and decoded in whatever way the VAE's width asks for."""

import pytest
import torch
from PIL import Image

import training.dataset.encoders as encoders
from tests.support.distill import NoiseSource, tiny_config, write_teacher
from training import parallel, vae
from training.dataset.encoders import VideoEncoder
from training.models import build_networks
from training.preview import write_samples

CPU = torch.device("cpu")
VAE = "assets/vdot_tiny_vae.safetensors"


@pytest.fixture
def make(tmp_path):
    """(networks, configuration) of a run that shows samples."""

    def build(**changes):
        teacher = write_teacher(tmp_path / "teacher.safetensors")
        given = {"log__vae": VAE, "log__sample_every": 1, "log__num_samples": 3, **changes}
        config = tiny_config(tmp_path / "out", teacher, **given)
        return build_networks(config, parallel.start(config.parallel)), config

    return build


def test_samples_show_given_made_and_real_side_by_side(make, tmp_path):
    networks, config = make()
    still = write_samples(networks, config, NoiseSource(), 7)
    files = sorted(path.name for path in (tmp_path / "out" / "samples").iterdir())
    assert files == [f"step-000007-{position}-depth.webp" for position in range(3)]
    # Two latent frames of 6 x 4 beside a reference, which is not shown: 5 frames of 32 x 48, four panels.
    with Image.open(tmp_path / "out" / "samples" / files[0]) as animation:
        assert animation.n_frames == 5 and animation.size == (4 * 32, 48)
    # One row a sample: its first, middle and last frame.
    assert still.shape == (3 * 48, 3 * 4 * 32, 3) and 0 <= still.min() and still.max() <= 1
    batch = NoiseSource().batches(0)[0]
    real = VideoEncoder(config.log.vae, CPU).decode(batch.latents[:1, :, 1:])[0]
    torch.testing.assert_close(still[:48, 3 * 32 : 4 * 32], real[0])
    torch.testing.assert_close(still[:48, -32:], real[-1])
    (tmp_path / "out" / "samples" / files[1]).unlink()
    assert torch.equal(write_samples(networks, config, NoiseSource(), 8), still), "the same every time"


def test_without_contexts_and_real_clips_only_the_result_is_shown(make):
    networks, config = make(model__text_only=True, log__num_samples=1)
    still = write_samples(networks, config, NoiseSource(text_only=True, latents=False), 1)
    assert still.shape == (48, 3 * 32, 3)


def test_samples_are_the_averaged_weights_and_training_keeps_its_own(make):
    networks, config = make(log__num_samples=1)
    still = write_samples(networks, config, NoiseSource(), 1)
    with torch.no_grad():
        for parameter in networks.generator.parameters():
            parameter.add_(1.0)
    trained = [parameter.clone() for parameter in networks.generator.parameters()]
    assert torch.equal(write_samples(networks, config, NoiseSource(), 1), still)
    assert all(torch.equal(a, b) for a, b in zip(trained, networks.generator.parameters(), strict=True))
    for average in networks.average.parameters:
        average.add_(1.0)
    assert not torch.allclose(write_samples(networks, config, NoiseSource(), 1), still, atol=0.02)


def test_wide_vaes_and_diffusers_folders_decode_to_the_same(tmp_path, monkeypatch):
    """In chunks of frames, as real widths need it, and all at once; a clip at a time either way."""
    latents = torch.randn(2, 16, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    whole = VideoEncoder(VAE, CPU).decode(latents)
    assert whole.shape == (2, 9, 32, 32, 3) and whole.dtype == torch.float32
    torch.testing.assert_close(whole, vae.decode_video(vae.load_vae(VAE), latents), rtol=0, atol=1e-4)
    vae.load_vae(VAE).save_pretrained(tmp_path / "pipeline" / "vae")
    monkeypatch.setattr(encoders, "CHUNKED_FROM_DIM", 4)
    monkeypatch.setattr(encoders, "decode_video", lambda *_: pytest.fail("the whole clip at once"))
    for path in (VAE, tmp_path / "pipeline", tmp_path / "pipeline" / "vae"):
        encoder = VideoEncoder(path, CPU)
        sizes, decode = [], encoder.vae.decode
        encoder.vae.decode = lambda z, sizes=sizes, decode=decode: sizes.append(len(z)) or decode(z)
        torch.testing.assert_close(encoder.decode(latents), whole, rtol=0, atol=1e-4)
        assert sizes == [1, 1]
