"""Flow matching: its loss against a plain derivation, noise levels, a run with resume and export."""

import dataclasses

import pytest
import torch

from tests.support.distill import SIZES, NoiseSource, losses_by_step, write_teacher
from training.distributed import world as processes
from training.engine.draws import Draws
from training.engine.method import prepare, set_trained
from training.engine.run import train
from training.engine.trainer import Trainer
from training.methods import flow_matching
from training.methods.flow_matching import FlowMatching, draw_sigmas
from training.methods.flow_matching_config import FlowMatchingLossConfig, SampleConfig
from training.methods.programs import finetune_config
from vdot_core.checkpoints import inspect, load_network, read_weights

VALUES = {
    "seed": 5,
    "steps": 6,
    "optim": {"lr": 1e-3, "warmup": 2, "schedule": "cosine"},
    "parallel": {"precision": "fp32", "device": "cpu", "threads": 1},
    "data": {"workers": 0},
    "log": {"save_every": 2},
    "samples": {"steps": 2},
}


@pytest.fixture(autouse=True)
def micro(monkeypatch):
    """A preset of the tests' size."""
    monkeypatch.setitem(flow_matching.network_sizes.__globals__["PRESETS"], "vdot_tiny", lambda: SIZES)


def make(folder, source=None, **changes):
    """The trainer of a run on batches of noise."""
    values = {**VALUES, "out_dir": str(folder), "model": {"preset": "vdot_tiny"}}
    for key, value in changes.items():
        section, _, name = key.partition("__")
        values[section] = {**values.get(section, {}), name: value} if name else value
    config, source = finetune_config(values), source or NoiseSource()
    world = processes.start(config.parallel)
    return Trainer(config, FlowMatching(config, world, source.empty_text), source, world)


def test_the_loss_is_the_mean_squared_error_of_the_velocity(tmp_path):
    method = make(tmp_path, losses__text_drop=0.0).method
    batch = NoiseSource().batches(6)[0]
    draws = Draws(5, 6, batch.positions)
    batch = prepare(batch, draws, method, torch.device("cpu"))
    assert batch.num_reference_latents, "reference frames are trained too: sampling denoises them"
    got = method.flow_matching(batch, draws)
    noise = draws.normal(batch.shape, "noise")
    sigma = draw_sigmas(draws, method.losses)
    level = sigma.view(-1, 1, 1, 1, 1)
    x = (1 - level) * batch.latents + level * noise
    v = method.transformer(x, 1000 * sigma, batch.text, batch.contexts)
    expected = (v - (noise - batch.latents)).square().mean()
    assert got.total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_noise_levels_are_uniform_shifted_or_logit_normal():
    draws = Draws(0, 0, tuple(range(4000)))
    shifted = draw_sigmas(draws, FlowMatchingLossConfig(timestep_shift=5.0, logit_normal_share=0.0))
    # P(sigma < s) of a shifted uniform level is s / (5 - 4 s).
    for s in (0.25, 0.5, 0.8):
        assert (shifted < s).float().mean().item() == pytest.approx(s / (5 - 4 * s), abs=0.03)
    normal = draw_sigmas(draws, FlowMatchingLossConfig(logit_normal_share=1.0))
    assert normal.mean().item() == pytest.approx(0.5, abs=0.02)
    assert normal.logit().std().item() == pytest.approx(1.0, abs=0.05)
    assert shifted.min() >= 1e-3 and shifted.max() <= 1


# Key -> its other value, and what it changes.
CHANGES = {
    "seed": (6, {"loss", "sample"}),
    "losses.timestep_shift": (1.0, {"loss"}),
    "losses.logit_normal_share": (1.0, {"loss"}),
    "losses.text_drop": (1.0, {"loss"}),
    "losses.task_text_drop": ({"depth": 1.0}, {"loss"}),
    "samples.steps": (3, {"sample"}),
    "samples.shift": (2.0, {"sample"}),
    "samples.guidance": (2.0, {"sample"}),
}


def _results(folder, start, **changes) -> dict[str, float]:
    """The loss of a batch and the mean of a sample, at the first weights."""
    dropped_rarely = {"losses__text_drop": 0.0, "losses__logit_normal_share": 0.0}
    method = make(folder, model__start_from=str(start), **{**dropped_rarely, **changes}).method
    batch = NoiseSource().batches(1)[0]
    draws = Draws(method.config.seed, 1, batch.positions)
    batch = prepare(batch, draws, method, torch.device("cpu"))
    full_batch = prepare(NoiseSource().batches(1)[0], draws, method, torch.device("cpu"), drop=False)
    return {
        "loss": method.flow_matching(batch, draws).total.item(),
        "sample": method.sample(full_batch, draws).abs().mean().item(),
    }


def test_a_setting_changes_the_loss_or_the_sample_that_it_is_for(tmp_path):
    start = write_teacher(tmp_path / "start.safetensors")
    usual = _results(tmp_path, start)
    named = {f"losses.{field.name}" for field in dataclasses.fields(FlowMatchingLossConfig)}
    named |= {f"samples.{field.name}" for field in dataclasses.fields(SampleConfig)}
    assert named <= set(CHANGES)
    for key, (value, expected) in CHANGES.items():
        changed = _results(tmp_path, start, **{key.replace(".", "__"): value})
        assert {name for name in usual if changed[name] != usual[name]} == expected, key


def test_captions_are_dropped_by_task(tmp_path):
    method = make(tmp_path, losses__text_drop=0.0, losses__task_text_drop={"text": 1.0}).method
    batch = dataclasses.replace(NoiseSource().batches(1)[0], tasks=("text", "depth", "text", "depth"))
    ready = prepare(batch, Draws(5, 1, batch.positions), method, torch.device("cpu"))
    empty = torch.nn.functional.pad(method.empty_text, (0, 0, 0, 3))[0]
    for task, text, original in zip(batch.tasks, ready.text, batch.text, strict=True):
        expected = empty if task == "text" else torch.nn.functional.pad(original, (0, 0, 0, 1))
        assert torch.equal(text, expected)


def test_a_run_learns_resumes_to_the_same_bits_and_exports(tmp_path):
    start = write_teacher(tmp_path / "start.safetensors")
    changes = {"model__start_from": str(start), "optim__clip": 100.0}
    full = make(tmp_path / "full", **changes)
    assert train(full) == 6
    part = make(tmp_path / "part", max_steps=4, **changes)
    train(part)
    again = make(tmp_path / "part", **changes)
    assert again.step == 4 and train(again) == 6
    assert losses_by_step(tmp_path / "part") == losses_by_step(tmp_path / "full")
    for name, tensor in full.tensors().items():
        assert torch.equal(tensor, again.tensors()[name]), name
    rates = [row["transformer/lr"] for row in losses_by_step(tmp_path / "full").values()]
    assert rates[0] == 5e-4 and max(rates) == 1e-3 and rates[-1] < rates[-2] < 1e-3
    path = tmp_path / "full" / "export" / "transformer.safetensors"
    assert inspect(path).metadata["trained_by"] == "training/finetune.py"
    average = dict(zip(read_weights(start).state_dict, full.average.parameters, strict=False))
    exported = load_network(path, dtype=torch.float32)
    moved = [
        n for n, p in exported.named_parameters() if not torch.equal(p, read_weights(start).state_dict[n])
    ]
    assert moved and len(average) == len(list(exported.parameters()))


def test_frozen_parameters_stay_and_the_rest_moves(tmp_path):
    start = write_teacher(tmp_path / "start.safetensors")
    trainer = make(tmp_path / "out", model__start_from=str(start), model__frozen=["blocks."], max_steps=2)
    set_trained(trainer.method, ["transformer"])
    trainer.run()
    weights = read_weights(start).state_dict
    moved = {n for n, p in trainer.method.transformer.named_parameters() if not torch.equal(p, weights[n])}
    assert moved and not any(name.startswith("blocks.") for name in moved)


@pytest.mark.parametrize(
    "frozen, message",
    [
        (["nonexistent_"], "has 'nonexistent_'"),
        (["blocks.", "vace_block."], "has 'vace_block.'.* such as vace_blocks"),
        (["blocks.7."], r"has 'blocks\.7\.'.* such as blocks\.[01]"),
        (["lora_"], "has 'lora_'"),
        (["blocks.*.attn"], "has 'blocks"),
        ([""], "has ''"),
        (["transformer.blocks."], "has 'transformer.blocks.'"),
        (["blocks", "vace", "head", "patch", "text", "time"], "leaves no parameter to train"),
    ],
)
def test_prefixes_that_freeze_nothing_or_everything_are_refused(tmp_path, frozen, message):
    with pytest.raises(ValueError, match=rf"model\.frozen .*{message}"):
        make(tmp_path, model__frozen=frozen)


class BrightSource(NoiseSource):
    """Noise about 2: its mean is what a network of any size can learn."""

    def _sample(self, step, position, shape, count):
        text, latents, contexts = super()._sample(step, position, shape, count)
        return text, latents + 2, contexts


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_fresh_weights_learn_with_either_optimizer(tmp_path, optimizer):
    changes = {"optim__optimizer": optimizer, "optim__lr": 3e-2, "steps": 40, "log__save_every": 50}
    make(tmp_path, BrightSource(), **changes).run()
    losses = [row["transformer/loss"] for row in losses_by_step(tmp_path).values()]
    assert sum(losses[-8:]) < 0.75 * sum(losses[:8])


def test_captions_of_another_width_and_sharded_muon_are_refused(tmp_path):
    config = finetune_config({**VALUES, "out_dir": str(tmp_path), "model": {"preset": "vdot_tiny"}})
    world = processes.start(config.parallel)
    with pytest.raises(ValueError, match="width 99, the network takes 8"):
        FlowMatching(config, world, torch.zeros(1, 3, 99))
    with pytest.raises(ValueError, match=r"state_bits is 8 and optim\.optimizer muon"):
        finetune_config({"optim": {"optimizer": "muon", "state_bits": 8}})


def test_samples_follow_guidance_and_their_seed(tmp_path):
    method = make(tmp_path).method
    with torch.no_grad():
        for parameter in method.transformer.parameters():
            parameter.add_(0.05)
    batch = NoiseSource().batches(1)[0]
    draws = Draws(5, 1, batch.positions)
    batch = prepare(batch, draws, method, torch.device("cpu"), drop=False)
    first = method.sample(batch, draws)
    assert first.shape == (len(batch), *batch.shape) and torch.equal(first, method.sample(batch, draws))
    method.config = dataclasses.replace(
        method.config, samples=dataclasses.replace(method.config.samples, guidance=1.0)
    )
    assert not torch.equal(first, method.sample(batch, draws))
