"""The tiny Wan VAE against diffusers and ComfyUI, which read and run the same weights."""

import json

import pytest
import torch

from tiny import vae as tiny


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    vae = tiny.build_vae(8)
    tiny.initialize_vae(vae, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return vae.eval().requires_grad_(False)


@pytest.mark.parametrize("num_frames", [1, 5, 13])
def test_whole_sequence_passes_equal_diffusers_chunked_ones(network, num_frames):
    video = torch.rand(1, 3, num_frames, 32, 48) * 2 - 1
    theirs = network.encode(video).latent_dist
    mean, log_variance = tiny.encode_moments(network, video)
    torch.testing.assert_close(mean, theirs.mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_variance, theirs.logvar, atol=1e-5, rtol=1e-5)
    ours = tiny.decode_latents(network, mean).clamp(-1, 1)
    torch.testing.assert_close(ours, network.decode(mean).sample, atol=1e-5, rtol=1e-5)


def test_gradients_of_the_whole_sequence_pass_reach_every_weight(network):
    vae = tiny.build_vae(8)
    vae.load_state_dict(network.state_dict())
    video = torch.rand(1, 3, 5, 16, 16)
    mean, log_variance = tiny.encode_moments(vae, video)
    (tiny.decode_latents(vae, mean).square().mean() + log_variance.mean()).backward()
    without = [n for n, p in vae.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


def test_folding_statistics_gives_wans_and_leaves_decoding_alone(network):
    vae = tiny.build_vae(8)
    vae.load_state_dict(network.state_dict())
    video = torch.rand(4, 3, 5, 32, 32) * 2 - 1
    with torch.no_grad():
        before, log_before = tiny.encode_moments(vae, video)
        decoded = tiny.decode_latents(vae, before)
        old_std = before.std((0, 2, 3, 4))
        tiny.fold_statistics(vae, before.mean((0, 2, 3, 4)), old_std)
        after, log_after = tiny.encode_moments(vae, video)
    dims = (0, 2, 3, 4)
    torch.testing.assert_close(after.mean(dims), torch.tensor(tiny.LATENTS_MEAN), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after.std(dims), torch.tensor(tiny.LATENTS_STD), atol=1e-4, rtol=1e-4)
    scale = (torch.tensor(tiny.LATENTS_STD) / old_std).view(1, -1, 1, 1, 1)
    torch.testing.assert_close(
        log_after - log_before, (2 * scale.log()).expand_as(log_after), atol=1e-3, rtol=1e-3
    )
    torch.testing.assert_close(tiny.decode_latents(vae, after), decoded, atol=1e-4, rtol=1e-4)
    normalised = tiny.encode_video(vae, video.movedim(1, -1) / 2 + 0.5)
    assert normalised.mean(dims).abs().max() < 1e-3 and (normalised.std(dims) - 1).abs().max() < 1e-3


def test_wans_statistics_are_diffusers_and_comfyuis(network, comfy):
    from comfy.latent_formats import Wan21

    published = Wan21()
    assert torch.equal(published.latents_mean.flatten(), torch.tensor(tiny.LATENTS_MEAN))
    assert torch.equal(published.latents_std.flatten(), torch.tensor(tiny.LATENTS_STD))
    assert list(network.config.latents_mean) == list(tiny.LATENTS_MEAN)


def test_comfyui_loads_the_file_natively_and_agrees(network, comfy, tmp_path, caplog):
    import comfy.sd
    import comfy.utils
    from comfy.latent_formats import Wan21

    published, path = Wan21(), tmp_path / "vae.safetensors"
    tiny.save_vae(network, path)
    with caplog.at_level("WARNING"):
        weights, metadata = comfy.utils.load_torch_file(str(path), return_metadata=True)
        native = comfy.sd.VAE(sd=weights, metadata=metadata)
    native.throw_exception_if_invalid()
    assert not [r for r in caplog.records if "issing" in r.getMessage()]
    video = torch.rand(9, 32, 48, 3)
    mine = tiny.encode_video(network, video[None])
    theirs = native.encode(video).float()
    theirs = published.process_in(theirs)
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    raw = torch.randn(1, 16, 3, 4, 6)
    decoded = native.decode(raw).float()
    expected = ((network.decode(raw).sample + 1) / 2).clamp(0, 1).movedim(1, -1)
    torch.testing.assert_close(decoded.reshape(expected.shape), expected, atol=1e-5, rtol=1e-5)


def test_files_read_back_and_diffusers_converts_their_names(network, tmp_path):
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
    from safetensors.torch import load_file

    path = tmp_path / "vae.safetensors"
    tiny.save_vae(network, path)
    converted = convert_wan_vae_to_diffusers(load_file(path))
    assert converted.keys() == network.state_dict().keys()
    assert all(torch.equal(converted[key], value) for key, value in network.state_dict().items())
    again = tiny.load_vae(path).state_dict()
    assert all(torch.equal(again[key], value) for key, value in network.state_dict().items())


def test_the_header_has_diffusers_configuration_and_the_digest_is_of_the_tensors(network, tmp_path):
    from diffusers import AutoencoderKLWan
    from safetensors import safe_open

    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    tiny.save_vae(network, one)
    tiny.save_vae(network, two, {"trained_by": "somebody"})
    with safe_open(two, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["trained_by"] == "somebody"
    config = json.loads(metadata["config"])
    assert config["_class_name"] == "AutoencoderKLWan" and config["base_dim"] == 8
    ours, theirs = ({k: v for k, v in values.items() if k[0] != "_"} for values in (config, network.config))
    assert ours == theirs == {k: AutoencoderKLWan.from_config(config).config[k] for k in ours}
    assert one.read_bytes() != two.read_bytes()
    assert tiny.weights_digest(one) == tiny.weights_digest(two)
    changed = tiny.load_vae(one)
    changed.decoder.conv_out.bias.data[0] += 1e-4
    tiny.save_vae(changed, two)
    assert tiny.weights_digest(one) != tiny.weights_digest(two)
    tiny.save_vae(network.to(torch.float64), two)
    network.to(torch.float32)
    assert tiny.weights_digest(one) != tiny.weights_digest(two), "another number format is another file"


def test_another_files_weights_are_refused(tmp_path):
    from training.engine.files import save_safetensors

    save_safetensors({"weight": torch.zeros(1)}, tmp_path / "x.safetensors", {})
    with pytest.raises(ValueError, match="not a Wan VAE"):
        tiny.load_vae(tmp_path / "x.safetensors")
    (tmp_path / "y.safetensors").write_text("no weights")
    for name in ("y.safetensors", "nowhere.safetensors", "."):
        with pytest.raises(ValueError, match=r"cannot be read .*; give a Wan VAE as a safetensors file"):
            tiny.load_vae(tmp_path / name)
