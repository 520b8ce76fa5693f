"""The tiny Wan VAE: its first weights, folded statistics and file."""

import json

import pytest
import torch

from tiny import vae as tiny
from training.data.vae_passes import decode_latents, encode_moments
from training.data.wan_vae import LATENTS_MEAN, LATENTS_STD, build_vae, encode_video, load_vae


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    vae = build_vae(8)
    tiny.initialize_vae(vae, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return vae.eval().requires_grad_(False)


def test_folding_statistics_gives_wans_and_leaves_decoding_alone(network):
    vae = build_vae(8)
    vae.load_state_dict(network.state_dict())
    video = torch.rand(4, 3, 5, 32, 32) * 2 - 1
    with torch.no_grad():
        before, log_before = encode_moments(vae, video)
        decoded = decode_latents(vae, before)
        old_std = before.std((0, 2, 3, 4))
        tiny.fold_statistics(vae, before.mean((0, 2, 3, 4)), old_std)
        after, log_after = encode_moments(vae, video)
    dims = (0, 2, 3, 4)
    torch.testing.assert_close(after.mean(dims), torch.tensor(LATENTS_MEAN), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after.std(dims), torch.tensor(LATENTS_STD), atol=1e-4, rtol=1e-4)
    scale = (torch.tensor(LATENTS_STD) / old_std).view(1, -1, 1, 1, 1)
    torch.testing.assert_close(
        log_after - log_before, (2 * scale.log()).expand_as(log_after), atol=1e-3, rtol=1e-3
    )
    torch.testing.assert_close(decode_latents(vae, after), decoded, atol=1e-4, rtol=1e-4)
    normalized = encode_video(vae, video.movedim(1, -1) / 2 + 0.5)
    assert normalized.mean(dims).abs().max() < 1e-3 and (normalized.std(dims) - 1).abs().max() < 1e-3


def test_files_read_back_and_diffusers_converts_their_names(network, tmp_path):
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
    from safetensors.torch import load_file

    path = tmp_path / "vae.safetensors"
    tiny.save_vae(network, path)
    converted = convert_wan_vae_to_diffusers(load_file(path))
    assert converted.keys() == network.state_dict().keys()
    assert all(torch.equal(converted[key], value) for key, value in network.state_dict().items())
    again = load_vae(path).state_dict()
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
    changed = load_vae(one)
    changed.decoder.conv_out.bias.data[0] += 1e-4
    tiny.save_vae(changed, two)
    assert tiny.weights_digest(one) != tiny.weights_digest(two)
    tiny.save_vae(network.to(torch.float64), two)
    network.to(torch.float32)
    assert tiny.weights_digest(one) != tiny.weights_digest(two), "another number format is another file"


def test_vae_training_takes_bfloat16_on_a_cpu_only_when_it_is_asked_for(monkeypatch):
    from tiny import vae_task
    from tiny.config import PretrainConfig, VaeConfig, VaeStage

    monkeypatch.setattr(vae_task, "uses_bf16", lambda choice, device, key: choice in (True, "auto"))
    for choice, expected in (("auto", False), (True, True), (False, False)):
        vae = VaeConfig(base_dim=4, stages=[VaeStage(1, 1, 32, 1, 1e-3, 1e-3)], bf16=choice)
        task = vae_task.VaeTask(PretrainConfig(model="vae", out_dir="unused", vae=vae), torch.device("cpu"))
        assert task.settings.bf16 is expected
