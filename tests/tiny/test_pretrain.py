"""The program that trains the tiny VAE, text encoder and evaluation network."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tests.support.pretraining import pretrained
from tiny import plot_curves, pretrain
from tiny.config import parse_config
from training.data.wan_vae import encode_video, load_vae
from training.engine.attention import batched_attention
from training.engine.checkpoint import complete, read_tensors
from training.engine.muon import Muon, orthogonalize

ROOT = Path(__file__).resolve().parents[2]
COMMON = {"seed": 3, "log_every": 1, "validate_every": 0, "threads": 1}


def _vae_config(folder: Path, **changes) -> dict:
    stage = {"num_frames": 5, "size_px": 16, "draw_px": 32, "batch": 2, "lr_start": 1e-3, "lr_end": 1e-4}
    stages = [
        {**stage, "steps": 2, "num_frames": 1},
        {**stage, "steps": 2, "image_every": 2, "image_size_px": 32},
    ]
    settings = {"base_dim": 4, "num_validation": 1, "stages": stages}
    return {"model": "vae", "out_dir": str(folder), **COMMON, "vae": {**settings, **changes}}


@pytest.fixture(scope="module")
def vae_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    return folder, pretrained(_vae_config(folder / "out"), folder / "run.yaml")


def test_vae_training_resumes_to_the_same_bits_from_files_of_a_few_mebibytes(vae_run, tmp_path):
    _, (step, tensors, values) = vae_run
    assert step == 4
    config = _vae_config(tmp_path / "out")
    assert pretrained(config, tmp_path / "run.yaml", "--max_steps", "2")[0] == 2
    again, resumed, same = pretrained(config, tmp_path / "run.yaml")
    assert again == 4 and same == values and resumed.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, resumed[name]), f"{name} differs after resuming"
    (checkpoint,) = (tmp_path / "out" / "checkpoints").iterdir()
    sizes = [file.stat().st_size for file in checkpoint.glob("*.distcp")]
    assert len(sizes) == pretrain.CHECKPOINT_FILES and max(sizes) < 0.3 * sum(sizes)


def test_vae_export_has_wans_statistics_on_its_data(vae_run):
    folder, _ = vae_run
    exported = load_vae(folder / "out" / "export" / "vdot_tiny_vae.safetensors")
    assert exported.config.base_dim == 4
    from tiny.clips.shapes import clip

    frames = torch.stack([clip(30_000_000 + i, height=16, width=16, num_frames=5).frames for i in range(8)])
    latents = encode_video(exported, frames)
    assert latents.mean((0, 2, 3, 4)).abs().max() < 0.05
    assert (latents.std((0, 2, 3, 4)) - 1).abs().max() < 0.05


def test_the_decoder_alone_can_be_trained_on(vae_run, tmp_path):
    folder, _ = vae_run
    file = folder / "out" / "export" / "vdot_tiny_vae.safetensors"
    config = _vae_config(tmp_path / "out", decoder_only=True, start_from=str(file))
    pretrained(config, tmp_path / "run.yaml")
    before = load_vae(file).state_dict()
    after = load_vae(tmp_path / "out" / "export" / "vdot_tiny_vae.safetensors").state_dict()
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"decoder", "post_quant_conv"}, "latents that a teacher was trained on must stay"


@pytest.mark.full
def test_the_program_starts_from_any_folder(tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(_vae_config(tmp_path / "out")))
    command = [
        sys.executable,
        str(ROOT / "tiny" / "pretrain.py"),
        "--config",
        "run.yaml",
        "--max_steps",
        "1",
    ]
    process = subprocess.run([*command, "--vae.base_dim", "5"], cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "step 1/4" in process.stderr + process.stdout
    assert "torchao" not in process.stderr, "a warning of diffusers about formats that are not read"
    weights = dict(read_tensors(complete(tmp_path / "out" / "checkpoints")[-1], "vae."))
    assert weights["decoder.conv_out.weight"].shape[1] == 5


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--vae.base_dimension", "8"], "base_dimension"),
        (["--vae.base_dim", "2"], "base_dim is 2"),
        (["--model", "student"], "model"),
        (["--ema", "1.5"], "ema is 1.5"),
        ([], "vae.stages is empty"),
        (["--log_every", "0"], "log_every is 0; expected 1 to"),
        (["--max_steps", "-1"], "max_steps is -1"),
        (["--threads", "1000000"], "threads is 1000000"),
        (["--evaluator.steps", "0"], "evaluator.steps is 0"),
        (["--text.warmup", "-1"], "text.warmup is -1"),
    ],
)
def test_wrong_settings_are_named(arguments, named, capsys):
    with pytest.raises((SystemExit, ValueError)) as caught:
        parse_config(["--model", "vae", "--out_dir", "x", *arguments])
    assert named in capsys.readouterr().err + str(caught.value)


def _start(config: dict, folder: Path) -> int:
    (folder / "again.yaml").write_text(yaml.safe_dump(config))
    return pretrain.main(["--config", str(folder / "again.yaml")])


def test_a_resume_with_other_settings_is_refused(vae_run, tmp_path, capsys):
    out = shutil.copytree(vae_run[0] / "out", tmp_path / "out")
    assert _start(_vae_config(out) | {"log_every": 2, "text": {"steps": 9}}, tmp_path) == 0
    for change, words in (({"seed": 4}, "seed 3, and this run has 4"), ({"ema": 0.5}, "ema 0.999")):
        assert _start(_vae_config(out) | change, tmp_path) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert f"was trained with {words}" in message and "another out_dir" in message


def test_other_weights_under_the_same_path_are_another_setting(tmp_path):
    weights = tmp_path / "vae.safetensors"
    settings = []
    for letter in "aab":
        weights.write_text(letter)
        file = tmp_path / "run.yaml"
        file.write_text(yaml.safe_dump(_vae_config(tmp_path / "out", start_from=str(weights))))
        settings.append(pretrain.settings_of(parse_config(["--config", str(file)])))
    assert settings[0] == settings[1] != settings[2]


@pytest.mark.parametrize("values", [None, {}, "x"])
def test_a_checkpoint_without_its_values_is_damaged(vae_run, tmp_path, capsys, values):
    out = shutil.copytree(vae_run[0] / "out", tmp_path / "out")
    path = complete(out / "checkpoints")[-1].path / "progress.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "values": values}))
    assert _start(_vae_config(out), tmp_path) == 2
    assert "is damaged: its values are not those of a vae" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path, capsys, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).touch()
    assert _start(_vae_config(tmp_path / "out"), tmp_path) == 1
    assert f"out/{name} cannot be written (File exists" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_ends_the_run_in_words(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tiny.vae_task.reconstruction_loss", lambda *_: torch.tensor(math.nan))
    assert _start(_vae_config(tmp_path / "out"), tmp_path) == 1
    assert "the loss is nan at step 0; lower the learning rate" in capsys.readouterr().err


def test_a_missing_input_is_one_line(tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(_vae_config(tmp_path / "out", start_from="nowhere.safetensors")))
    assert pretrain.main(["--config", str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "vae.start_from is nowhere.safetensors" in line


def test_batched_attention_is_attention():
    q, k, v = torch.randn(2, 7, 32), torch.randn(2, 5, 32), torch.randn(2, 5, 32)
    heads = [x.unflatten(-1, (4, 8)).transpose(1, 2) for x in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(-2)
    torch.testing.assert_close(batched_attention(q, k, v, 4), expected)


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (32, 80)])
def test_orthogonalized_matrices_keep_directions_and_lose_scales(shape):
    matrix = torch.randn(shape) @ torch.diag(torch.logspace(-1, 1, shape[1]))
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    result = orthogonalize(matrix)
    singular = torch.linalg.svdvals(result)
    assert 0.3 < singular.min() and singular.max() < 1.4
    assert (
        torch.nn.functional.cosine_similarity(orthogonalize(matrix).flatten(), (u @ vh).flatten(), 0) > 0.95
    )


def test_muon_updates_weights_of_one_shape_together_as_it_would_alone():
    shapes = [(8, 6), (8, 6), (4, 3, 2), (8, 6)]
    together = [torch.randn(shape, requires_grad=True) for shape in shapes]
    alone = [weight.detach().clone().requires_grad_() for weight in together]
    optimizers = [Muon(together, lr=0.1), *(Muon([weight], lr=0.1) for weight in alone)]
    for _ in range(3):
        for one, other in zip(together, alone, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        together[3].grad = alone[3].grad = None
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-3)  # bfloat16's rounds
    assert torch.equal(together[3], alone[3])


def test_held_out_curves_are_drawn_from_a_runs_log(vae_run, tmp_path, capsys):
    from PIL import Image

    config = _vae_config(tmp_path / "out") | {"validate_every": 2}
    pretrained(config, tmp_path / "run.yaml", "--max_steps", "3")
    pretrained(config, tmp_path / "run.yaml")
    curves = plot_curves.read_validation(tmp_path / "out")
    assert curves.keys() == {"plain_psnr", "textured_psnr", "natural_psnr"}
    assert [step for step, _ in curves["plain_psnr"]] == [2, 4], "a resumed run is one curve"
    assert plot_curves.main([str(tmp_path / "curves.png"), str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 300 and len(picture.convert("RGB").getcolors(1 << 20)) > 20
    copy = shutil.copytree(tmp_path / "out", tmp_path / "other" / "out")
    assert plot_curves.main([str(tmp_path / "two.png"), str(tmp_path / "out"), str(copy)]) == 0
    with Image.open(tmp_path / "two.png") as two, Image.open(tmp_path / "curves.png") as one:
        assert two.width > 1.5 * one.width, "runs whose folders have one name have a panel each"
    assert plot_curves.main([str(tmp_path / "no" / "a.png"), str(copy)]) == 1
    assert "a.png cannot be written (No such file" in capsys.readouterr().err
    assert plot_curves.main([str(tmp_path / "no.png"), str(tmp_path / "nowhere")]) == 2
    assert "nowhere has no tensorboard folder" in capsys.readouterr().err
