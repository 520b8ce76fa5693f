"""Wan VAEs of several widths, native files and folders, against diffusers and ComfyUI on the same weights."""

import pytest
import torch

from tiny.vae import save_vae
from training.data import wan_vae
from training.data.encoders import CHUNKED_FROM_DIM, VideoEncoder, pick_device
from training.data.vae_passes import decode_latents, encode_moments

CPU = torch.device("cpu")
WIDTHS = [8, CHUNKED_FROM_DIM]


def random_vae(base_dim):
    """Weights of a scale at which activations neither vanish nor explode."""
    generator = torch.Generator().manual_seed(base_dim)
    vae = wan_vae.build_vae(base_dim)
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            if name.endswith("gamma"):
                parameter.copy_(1 + 0.1 * torch.randn(parameter.shape, generator=generator))
            else:
                scale = 0.8 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.1
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return vae.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=WIDTHS)
def network(request):
    return random_vae(request.param)


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("native") / "wan_vae.safetensors"
    save_vae(network, path)
    return path


@pytest.mark.parametrize("num_frames", [1, 5, 13])
def test_full_sequence_passes_equal_diffusers_chunked_ones(num_frames):
    vae = random_vae(8)
    video = torch.rand(1, 3, num_frames, 32, 48) * 2 - 1
    expected = vae.encode(video).latent_dist
    mean, log_variance = encode_moments(vae, video)
    torch.testing.assert_close(mean, expected.mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_variance, expected.logvar, atol=1e-5, rtol=1e-5)
    decoded = decode_latents(vae, mean).clamp(-1, 1)
    torch.testing.assert_close(decoded, vae.decode(mean).sample, atol=1e-5, rtol=1e-5)


def test_gradients_of_the_full_sequence_pass_reach_every_weight():
    vae = random_vae(8).requires_grad_(True)
    video = torch.rand(1, 3, 5, 16, 16)
    mean, log_variance = encode_moments(vae, video)
    (decode_latents(vae, mean).square().mean() + log_variance.mean()).backward()
    without = [n for n, p in vae.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


def test_a_native_file_is_read_with_the_width_of_its_weights(network, file, tmp_path):
    from safetensors.torch import load_file, save_file

    vae = wan_vae.load_vae(file)
    assert vae.config.base_dim == network.config.base_dim and not vae.training
    weights = vae.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in network.state_dict().items())
    # As published: without our metadata, in half precision.
    tensors = {key: value.half() for key, value in load_file(file).items()}
    save_file(tensors, tmp_path / "bare.safetensors")
    bare = wan_vae.load_vae(tmp_path / "bare.safetensors")
    assert {p.dtype for p in bare.parameters()} == {torch.float32}
    half = wan_vae.load_vae(tmp_path / "bare.safetensors", torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in (*bare.parameters(), *half.parameters()))


def test_comfyui_agrees_on_a_native_file(network, file, comfy, caplog):
    """Both ways of running it: an entire clip at once, and in chunks from CHUNKED_FROM_DIM on."""
    import comfy.sd
    import comfy.utils
    from comfy.latent_formats import Wan21

    with caplog.at_level("WARNING"):
        weights, metadata = comfy.utils.load_torch_file(str(file), return_metadata=True)
        native = comfy.sd.VAE(sd=weights, metadata=metadata)
    native.throw_exception_if_invalid()
    assert not [r for r in caplog.records if "issing" in r.getMessage()]
    encoder = VideoEncoder(file, CPU)
    assert encoder.chunked == (network.config.base_dim >= CHUNKED_FROM_DIM)
    video = torch.rand(9, 32, 48, 3)
    expected = Wan21().process_in(native.encode(video).float())
    torch.testing.assert_close(encoder(video[None]), expected, atol=1e-4, rtol=1e-4)
    latents = torch.randn(1, 16, 3, 4, 6)
    decoded = native.decode(Wan21().process_out(latents)).float().reshape(1, 9, 32, 48, 3)
    torch.testing.assert_close(encoder.decode(latents), decoded, atol=1e-4, rtol=1e-4)


def test_a_folder_of_diffusers_is_the_same_model(network, file, tmp_path):
    network.save_pretrained(tmp_path / "pipeline" / "vae")
    video = torch.rand(1, 5, 16, 32, 3)
    expected = VideoEncoder(file, CPU)(video)
    for path in (tmp_path / "pipeline", tmp_path / "pipeline" / "vae"):
        assert torch.equal(VideoEncoder(path, CPU)(video), expected)


def test_wans_statistics_are_diffusers_and_comfyuis(network, comfy):
    from comfy.latent_formats import Wan21

    published = Wan21()
    assert torch.equal(published.latents_mean.flatten(), torch.tensor(wan_vae.LATENTS_MEAN))
    assert torch.equal(published.latents_std.flatten(), torch.tensor(wan_vae.LATENTS_STD))
    assert list(network.config.latents_mean) == list(wan_vae.LATENTS_MEAN)


def test_other_files_are_refused(file, tmp_path):
    from safetensors.torch import load_file, save_file

    save_file({"weight": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="not a Wan VAE"):
        wan_vae.load_vae(tmp_path / "x.safetensors")
    (tmp_path / "y.safetensors").write_text("no weights")
    for name in ("y.safetensors", "nowhere.safetensors"):
        with pytest.raises(ValueError, match=r"(not a file|not safetensors).*expected a Wan VAE as a safe"):
            wan_vae.load_vae(tmp_path / name)
    with pytest.raises(ValueError, match=r"diffusers cannot load .* as a Wan VAE .*give another folder"):
        wan_vae.load_vae(tmp_path)
    for text in ("null", "[]", '{"base_dim": "x"}', "[" * 100_000):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=r"diffusers cannot load .* as a Wan VAE|is damaged") as error:
            wan_vae.load_vae(tmp_path)
        assert len(str(error.value)) <= 400
    (tmp_path / "config.json").unlink()
    tensors = load_file(file)
    save_file({**tensors, "conv2.weight": torch.zeros(48, 48, 1, 1, 1)}, tmp_path / "z.safetensors")
    with pytest.raises(ValueError, match=r"48 latent channels; give the Wan 2\.1 VAE"):
        wan_vae.load_vae(tmp_path / "z.safetensors")
    del tensors["decoder.middle.0.residual.2.weight"]
    save_file(tensors, tmp_path / "z.safetensors")
    with pytest.raises(ValueError, match=r"not a Wan 2\.1 VAE: (.|\n)*decoder\.mid_block\.resnets\.0\.conv1"):
        wan_vae.load_vae(tmp_path / "z.safetensors")


def test_a_gpu_that_is_not_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(ValueError, match="device is cuda, and torch finds no GPU here; set auto or cpu"):
        pick_device("cuda")
