"""The pretraining program: it runs, stops and goes on, refuses what it does not know, and writes assets."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tiny import latents, plot_curves, pretrain, text
from tiny.config import CacheGroup, TeacherConfig, parse_config
from tiny.latents import Samples
from tiny.teacher_data import draw_caption, sample_odds, share_in_use
from tiny.teacher_task import draw_sigmas
from training.data.umt5 import embed, load_umt5
from training.data.wan_vae import encode_video, load_vae
from training.engine.attention import batched_attention
from training.engine.files import load_checkpoint, save_checkpoint
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


def _teacher_config(folder: Path, vae_file: Path) -> dict:
    size = {"width": 32, "height": 32, "num_frames": 5, "num_clips": 2}
    groups = [
        {
            **size,
            "tasks": ["text", "depth", "inpaint"],
            "extra": ["lines", "gray", "extend"],
            "texture_share": 0.5,
        },
        {**size, "num_clips": 1, "tasks": ["reference"]},
    ]
    settings = {"vae": str(vae_file), "cache_dir": str(folder / "cache"), "steps": 4, "batch": 2, "warmup": 2}
    settings |= {"groups": groups, "num_validation": 1, "text_layers": 1, "freeze_text_after": 3}
    return {"model": "teacher", "out_dir": str(folder), **COMMON, "teacher": settings}


def _run(config: dict, folder: Path, *arguments: str) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    pretrain.main(["--config", str(path), *arguments])
    return load_checkpoint(Path(config["out_dir"]) / "checkpoint.pt")


def _assert_same(one, two, name="state"):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two), f"{name} differs after resuming"
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            _assert_same(one[key], two[key], f"{name}.{key}")
    elif isinstance(one, list | tuple):
        for i, (a, b) in enumerate(zip(one, two, strict=True)):
            _assert_same(a, b, f"{name}[{i}]")
    else:
        assert one == two, name


@pytest.fixture(scope="module")
def vae_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    return folder, _run(_vae_config(folder / "out"), folder)


def test_vae_training_resumes_to_the_same_bits(vae_run, tmp_path):
    _, whole = vae_run
    assert whole["step"] == 4
    config = _vae_config(tmp_path / "out")
    half = _run(config, tmp_path, "--max_steps", "2")
    assert half["step"] == 2
    _assert_same(_run(config, tmp_path)["task"], whole["task"])


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
    _run(_vae_config(tmp_path / "out", decoder_only=True, start_from=str(file)), tmp_path)
    before = load_vae(file).state_dict()
    after = load_vae(tmp_path / "out" / "export" / "vdot_tiny_vae.safetensors").state_dict()
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"decoder", "post_quant_conv"}, "latents that a teacher was trained on must stay"


def test_teacher_training_resumes_to_the_same_bits_and_exports(vae_run, tmp_path, monkeypatch):
    monkeypatch.setattr(latents, "CHUNK_CLIPS", 1)
    file = vae_run[0] / "out" / "export" / "vdot_tiny_vae.safetensors"
    growing = {"grow_steps": 3}
    config = _teacher_config(tmp_path / "whole", file)
    config["teacher"] |= growing
    whole = _run(config, tmp_path / "a")
    config = _teacher_config(tmp_path / "halves", file)
    config["teacher"] |= growing
    assert _run(config, tmp_path / "b", "--max_steps", "2")["step"] == 2
    encoded = sorted(path.name for path in (tmp_path / "halves" / "cache").iterdir())
    assert encoded == ["group0-32x32x5-0000.pt", "group1-32x32x5-0000.pt"], "half of the clips, no more"
    _assert_same(_run(config, tmp_path / "b")["task"], whole["task"])
    assert (tmp_path / "halves" / "cache" / "group0-32x32x5-0001.pt").is_file()

    from vdot_core.checkpoints import inspect, load_network

    exported = tmp_path / "whole" / "export"
    assert inspect(exported / "vdot_tiny.safetensors").config.text_dim == 128
    network = load_network(exported / "vdot_tiny.safetensors", dtype=torch.float32)
    file = load_umt5(exported / text.FILE_NAME)
    embedding = embed(file.encoder, *file.tokenizer(["a red circle"]))
    noise, contexts = torch.randn(1, 16, 2, 4, 4), torch.randn(1, 1, 96, 2, 4, 4)
    velocity = network(noise, torch.tensor([900.0]), embedding, contexts)
    assert velocity.shape == noise.shape and velocity.isfinite().all()


def _gradient_norms(folder: Path) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    written = EventAccumulator(str(folder / "tensorboard"))
    written.Reload()
    return [event.value for event in written.Scalars("train/grad")]


def test_two_processes_share_a_batch_and_learn_what_one_learns(vae_run, tmp_path):
    file = vae_run[0] / "out" / "export" / "vdot_tiny_vae.safetensors"
    config = _teacher_config(tmp_path / "one", file)
    config["teacher"] |= {"bf16": False, "batch": 6}  # 6 samples, or 4 with a reference, are even in number
    _run(config, tmp_path / "a")
    config["out_dir"] = str(tmp_path / "two")
    (tmp_path / "a" / "run.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(ROOT / "tiny" / "pretrain.py"), "--config", "run.yaml"]
    done = subprocess.run(command, cwd=tmp_path / "a", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # The norm is of the gradient that all processes share, and it comes before Adam's sign-like first steps.
    alone, shared = _gradient_norms(tmp_path / "one"), _gradient_norms(tmp_path / "two")
    assert len(alone) == len(shared) == 4
    assert shared == pytest.approx(alone, rel=1e-3)


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
    done = subprocess.run([*command, "--vae.base_dim", "5"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "step 1/4" in done.stderr + done.stdout
    weights = load_checkpoint(tmp_path / "out" / "checkpoint.pt")["task"]["vae"]
    assert weights["decoder.conv_out.weight"].shape[1] == 5


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--vae.base_dimension", "8"], "base_dimension"),
        (["--vae.base_dim", "2"], "base_dim is 2"),
        (["--model", "student"], "model"),
        (["--ema", "1.5"], "ema is 1.5"),
    ],
)
def test_wrong_settings_are_named(arguments, named, capsys):
    with pytest.raises((SystemExit, ValueError)) as caught:
        parse_config(["--model", "vae", "--out_dir", "x", *arguments])
    assert named in capsys.readouterr().err + str(caught.value)


PRETRAININGS = [
    path
    for folder in ("tiny", "training")
    for path in sorted((ROOT / folder / "configs").glob("*.yaml"))
    if isinstance(yaml.safe_load(path.read_text()).get("model"), str)
]


@pytest.mark.parametrize("path", PRETRAININGS, ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(path):
    config = parse_config(["--config", str(path)])
    assert config.out_dir == f"runs/{path.stem}"
    assert config.model != "vae" or config.vae.stages
    assert config.model != "teacher" or config.teacher.groups or config.teacher.clips


def test_checkpoints_that_would_run_code_are_refused(tmp_path):
    torch.save({"step": Path("x")}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="nothing of it was run"):
        load_checkpoint(tmp_path / "bad.pt")
    save_checkpoint({"step": 1}, tmp_path / "good.pt")
    assert load_checkpoint(tmp_path / "good.pt") == {"step": 1}
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_noise_levels_lean_towards_noise_as_far_as_the_shift_says():
    from tiny.config import TeacherConfig

    settings = TeacherConfig(timestep_shift=5.0, logit_normal_share=0.0)
    sigmas = draw_sigmas(20000, settings, torch.Generator().manual_seed(0))
    assert 0 < sigmas.min() and sigmas.max() <= 1
    # The median of a uniform level is 1/2, which a shift of 5 takes to 5/6.
    assert abs(sigmas.median().item() - 5 / 6) < 0.01


def test_batched_attention_is_attention():
    q, k, v = torch.randn(2, 7, 32), torch.randn(2, 5, 32), torch.randn(2, 5, 32)
    heads = [x.unflatten(-1, (4, 8)).transpose(1, 2) for x in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(-2)
    torch.testing.assert_close(batched_attention(q, k, v, 4), expected)


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (32, 80)])
def test_orthogonalized_matrices_keep_directions_and_lose_scales(shape):
    matrix = torch.randn(shape) @ torch.diag(torch.logspace(-1, 1, shape[1]))
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalize(matrix)
    singular = torch.linalg.svdvals(found)
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
    assert torch.equal(together[3], alone[3]) and 3 not in optimizers[0].state


def _samples(*tasks: str) -> Samples:
    return Samples(torch.empty(len(tasks)), torch.empty(len(tasks)), list(tasks), [])


def test_clips_come_into_use_in_doublings():
    shares = [share_in_use(step, 64) for step in (0, 1, 3, 4, 7, 8, 31, 32, 63, 64, 1000)]
    assert shares == [1 / 32] * 3 + [1 / 16] * 2 + [1 / 8, 1 / 4, 1 / 2, 1 / 2, 1.0, 1.0]
    assert share_in_use(0, 0) == 1.0


def test_every_task_has_its_share_of_all_samples():
    size = {"width": 32, "height": 32, "num_frames": 5, "num_clips": 1}
    groups = [CacheGroup(**size, tasks=["text"]), CacheGroup(**size, tasks=["text"], weight=4.0)]
    samples = [_samples("text", "depth", "gray", "gray", "text"), _samples("text", "flow")]
    odds = sample_odds(groups, samples, {"text": 0.4, "depth": 0.3})
    by_task: dict[str, float] = {}
    for own, one in zip(odds, samples, strict=True):
        for task, chance in zip(one.tasks, own, strict=True):
            by_task[task] = by_task.get(task, 0.0) + chance
    assert by_task == pytest.approx({"text": 0.4, "depth": 0.3, "gray": 0.15, "flow": 0.15})
    assert odds[1][0] == pytest.approx(4 * odds[0][0]), "a weight counts against the other groups"
    with pytest.raises(ValueError, match="lines"):
        sample_odds(groups, samples, {"lines": 0.5})


def test_captions_are_dropped_as_often_as_a_task_says():
    settings = TeacherConfig(text_drop=0.1, task_text_drop={"reference": 0.5, "depth": 0.0})
    rng = np.random.default_rng(0)
    for task, share in (("text", 0.1), ("reference", 0.5), ("depth", 0.0)):
        drawn = [draw_caption(["a", "b"], task, settings, rng) for _ in range(2000)]
        assert drawn.count("") / 2000 == pytest.approx(share, abs=0.04)
        assert drawn.count("a") == pytest.approx(drawn.count("b"), rel=0.2)
    with pytest.raises(ValueError, match=r"task_text_drop of text is 1\.5; expected a share"):
        TeacherConfig(task_text_drop={"text": 1.5})


def test_compiled_blocks_learn_what_plain_ones_learn(vae_run, tmp_path):
    file = vae_run[0] / "out" / "export" / "vdot_tiny_vae.safetensors"
    config = _teacher_config(tmp_path / "plain", file)
    config["teacher"] |= {"bf16": False, "steps": 1, "groups": config["teacher"]["groups"][:1]}
    plain = _run(config, tmp_path / "a")
    compiled = _run(
        config, tmp_path / "b", "--teacher.compile", "true", "--out_dir", str(tmp_path / "compiled")
    )
    assert plain["task"]["model"].keys() == compiled["task"]["model"].keys()
    one, two = _gradient_norms(tmp_path / "plain"), _gradient_norms(tmp_path / "compiled")
    assert one == pytest.approx(two, rel=1e-3)


def test_held_out_curves_are_drawn_from_a_runs_log(vae_run, tmp_path, capsys):
    from PIL import Image

    config = _vae_config(tmp_path / "out") | {"validate_every": 2}
    _run(config, tmp_path, "--max_steps", "3")
    _run(config, tmp_path)
    curves = plot_curves.read_validation(tmp_path / "out")
    assert curves.keys() == {"plain_psnr", "textured_psnr", "natural_psnr"}
    assert [step for step, _ in curves["plain_psnr"]] == [2, 4], "a resumed run is one curve"
    assert plot_curves.main([str(tmp_path / "curves.png"), str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 300 and len(picture.convert("RGB").getcolors(1 << 20)) > 20
    assert plot_curves.main([str(tmp_path / "no.png"), str(tmp_path / "nowhere")]) == 2
    assert "nowhere has no tensorboard folder" in capsys.readouterr().err
