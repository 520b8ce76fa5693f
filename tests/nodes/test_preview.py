"""Previews of VDOT Sampler: what the page gets after each step, rough or by ComfyUI's small decoder."""

import base64
import io
import logging
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.support.pack import submodule

STEPS = 4
SETTINGS = {"preset": "released", "steps": STEPS, "shift": 16.0, "solver": "unipc"}


@pytest.fixture
def previews(pack, monkeypatch):
    """The messages of the runs so far, and ComfyUI's folder of small decoders, empty."""
    sent = []
    monkeypatch.setattr(submodule("nodes.comfy_preview"), "_send", sent.append)
    return sent


@pytest.fixture
def sample(run, ours, encoded):
    """sample(**changes): VDOT Sampler on `encoded` -> latents."""

    def call(**changes):
        inputs = {"model": ours, "positive": encoded[0], "latent": encoded[2], "seed": 7, **SETTINGS}
        return run("VDOTSampler", **{**inputs, **changes}).args[0]["samples"]

    return call


@pytest.fixture
def decoder_folder(comfy, monkeypatch, tmp_path):
    """ComfyUI's vae_approx, with nothing in it; no decoder is remembered."""
    import folder_paths

    entry = ([str(tmp_path)], folder_paths.folder_names_and_paths["vae_approx"][1])
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "vae_approx", entry)
    monkeypatch.setattr(submodule("nodes.comfy_preview"), "_decoders", {})
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


@pytest.fixture
def small_decoder_file(decoder_folder):
    """A file of lighttaew2_1's name and shapes, with random weights."""
    import comfy.taesd.taehv
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = comfy.taesd.taehv.TAEHV(16)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    torch.nn.init.constant_(network.decoder[-1].bias, 0.5)
    path = decoder_folder / "lighttaew2_1.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    return path


def test_each_step_tells_its_noise_time_and_seed(sample, previews):
    sample()
    told = [(m["step"], m["num_steps"], m["first"], m["seed"]) for m in previews]
    assert told == [(step, STEPS, 0, 7) for step in range(1, STEPS + 1)]
    schedule = submodule("vdot_core.sampling").PRESETS["released"].schedule()
    assert [m["sigma"] for m in previews] == pytest.approx(schedule.sigmas[:-1].tolist(), abs=1e-3)
    seconds = [m["seconds"] for m in previews]
    assert seconds == sorted(seconds) and seconds[0] >= 0


def test_a_seed_that_a_page_cannot_hold_is_not_told(sample, previews):
    sample(seed=2**60)
    assert len(previews) == STEPS and not any("seed" in message for message in previews)


@pytest.mark.parametrize("solver", ["unipc", "renoise", "euler"])
@pytest.mark.parametrize("step", [1, 3])
def test_a_run_that_stops_early_shows_the_prediction_of_the_full_run(
    sample, ours, encoded, solver, step, monkeypatch
):
    """So a composition that was chosen after one step is the one that the full run finishes."""
    import latent_preview

    predictions = []

    def prepare(*_):
        return lambda step, x0, x, total: predictions.append(ours.model.process_latent_out(x0.clone()))

    monkeypatch.setattr(latent_preview, "prepare_callback", prepare)
    settings = {"preset": "custom", "solver": solver}
    sample(**settings)
    stopped = sample(**settings, end_step=step, leftover_noise=False)
    torch.testing.assert_close(stopped, predictions[step - 1], atol=1e-5, rtol=1e-5)


def test_the_small_decoder_gives_the_pixels_of_the_predicted_video(comfy, small_decoder_file):
    import comfy.latent_formats
    import comfy.sd
    import comfy.utils

    preview = submodule("nodes.comfy_preview")
    wan = comfy.latent_formats.Wan21()
    latents = torch.randn(1, 16, 3, 6, 4)
    decode = preview.small_decoder(wan)
    message = preview.preview_message(latents, 1, 4, wan, decode)
    assert (message["num_frames"], message["width"], message["height"]) == (9, 32, 48)
    assert abs(message["num_frames"] / message["fps"] - 3 / 4) < 1e-6, "the duration stays"
    expected = comfy.sd.VAE(comfy.utils.load_torch_file(str(small_decoder_file))).decode(latents)[0]
    last = Image.open(io.BytesIO(base64.b64decode(message["frames"][-1])))
    drawn = torch.frombuffer(bytearray(last.tobytes()), dtype=torch.uint8).view(48, 32, 3).float()
    assert (drawn - 255 * expected[-1].clamp(0, 1)).abs().mean() < 5
    assert preview.small_decoder(wan) is decode, "read once"


def test_large_previews_stay_small_messages(comfy, small_decoder_file):
    preview, wan = submodule("nodes.comfy_preview"), comfy.latent_formats.Wan21()
    message = preview.preview_message(
        torch.zeros(1, 16, 21, 8, 8), 1, 4, wan, lambda x0: torch.rand(81, 3, 480, 832)
    )
    assert message["num_frames"] == 32 and (message["width"], message["height"]) == (256, 147)
    assert sum(map(len, message["frames"])) < 640 * 1024


def test_no_decoder_no_file_or_another_wish(comfy, decoder_folder, small_decoder_file, monkeypatch):
    from comfy.cli_args import LatentPreviewMethod, args

    preview, wan = submodule("nodes.comfy_preview"), comfy.latent_formats.Wan21()
    assert preview.small_decoder(wan) is not None
    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Latent2RGB)
    assert preview.small_decoder(wan) is None
    monkeypatch.undo()
    wan.taesd_decoder_name = None
    assert preview.small_decoder(wan) is None, "the demo's latents are not Wan's"


def test_a_decoder_that_would_run_code_is_not_read(sample, previews, decoder_folder, caplog, tmp_path):
    class Touch:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"decoder.1.weight": Touch()}, decoder_folder / "lighttaew2_1.pth")
    with caplog.at_level(logging.WARNING, logger="vdot"):
        sample()
    assert len(previews) == STEPS and not (tmp_path / "ran").exists()
    assert "previews are rough" in caplog.text and "nothing of it was run" in caplog.text


def test_a_damaged_decoder_ends_no_run(sample, previews, decoder_folder, caplog):
    (decoder_folder / "lighttaew2_1.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0not json")
    with caplog.at_level(logging.WARNING, logger="vdot"):
        sample()
    assert len(previews) == STEPS
    assert "previews are rough" in caplog.text and "lighttaew2_1.safetensors" in caplog.text
