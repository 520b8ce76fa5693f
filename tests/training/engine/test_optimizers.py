"""Optimizer settings of a run reach the update that they are named for."""

import dataclasses

import pytest
import torch

from tests.support.distill import NoiseSource, new_trainer, tiny_config, write_teacher
from training.engine.average import AveragedWeights
from training.engine.muon import orthogonalize, split_optimizers
from training.engine.optimizers import Optimizer
from training.methods.programs import finetune_config

RATES = {"optim__generator_lr": 1e-3, "optim__critic_lr": 2e-3, "optim__discriminator_lr": 3e-3}
UPDATE = {**RATES, "optim__weight_decay": 0.0, "optim__generator_every": 1}
MOVES = {"generator": 1e-3, "fake_score": 2e-3, "discriminator": 3e-3}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


def _trainer(folder, teacher, source=None, **changes):
    return new_trainer(tiny_config(folder, teacher, **{**UPDATE, **changes}), source)


def _steps(trainer, steps) -> list[dict]:
    """Train these steps without a checkpoint; their metrics."""
    metrics = []
    for step in steps:
        trainer.step = step
        metrics.append(trainer.train_step(trainer.source.batches(step))[0])
    return metrics


def _weights(network):
    return [p.detach().clone() for p in network.parameters()]


def _largest_moves(trainer, steps) -> dict[str, float]:
    before = {name: _weights(network) for name, network in trainer.method.networks.items()}
    _steps(trainer, steps)
    return {
        name: max(
            float((p - old).abs().max()) for p, old in zip(network.parameters(), before[name], strict=True)
        )
        for name, network in trainer.method.networks.items()
    }


@pytest.mark.parametrize("warmup", [0, 4])
def test_each_network_moves_by_its_own_learning_rate(tmp_path, teacher, warmup):
    """AdamW without momentum or decay moves a weight by the learning rate in its first update."""
    trainer = _trainer(tmp_path, teacher, optim__warmup=warmup)
    moves = _largest_moves(trainer, [1])
    share = 2 / warmup if warmup else 1
    assert moves == pytest.approx({name: rate * share for name, rate in MOVES.items()}, rel=0.02)


def test_the_discriminators_learning_rate_is_the_critics_unless_set(tmp_path, teacher):
    trainer = _trainer(tmp_path, teacher, optim__discriminator_lr=None)
    assert _largest_moves(trainer, [1])["discriminator"] == pytest.approx(2e-3, rel=0.02)


def test_learning_rates_follow_a_cosine_to_their_last_share(tmp_path, teacher):
    changes = {"optim__schedule": "cosine", "optim__final_lr": 0.5, "optim__warmup": 2, "steps": 6}
    rates = [m["critic/lr"] for m in _steps(_trainer(tmp_path, teacher, **changes), range(7))]
    assert rates == pytest.approx([1e-3, 2e-3, 2e-3, 1.8535534e-3, 1.5e-3, 1.1464466e-3, 1e-3])


def test_learning_rates_stay_and_then_fall_to_their_last_share(tmp_path, teacher):
    changes = {"optim__schedule": "wsd", "optim__final_lr": 0.5, "optim__decay": 0.5, "optim__warmup": 2}
    rates = [m["critic/lr"] for m in _steps(_trainer(tmp_path, teacher, **changes, steps=8), range(9))]
    stable, decay = [1e-3, 2e-3, 2e-3, 2e-3, 2e-3], [1.75e-3, 1.5e-3, 1.25e-3, 1e-3]
    assert rates == pytest.approx(stable + decay)


def test_gradients_are_clipped_to_the_limit(tmp_path, teacher, monkeypatch):
    """The norm that an optimizer steps with, over all its networks; the log has the one before."""
    norms = []

    def watched_step(optimizer):
        gradients = [p.grad for p in optimizer.with_gradients()]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    monkeypatch.setattr(Optimizer, "step", watched_step)
    (metrics,) = _steps(_trainer(tmp_path / "a", teacher, optim__clip=5e-4), [1])
    logged = [float(metrics[f"{name}/gradient_norm"]) for name in ("generator", "critic")]
    assert min(logged) > 1e-3 and norms == pytest.approx([5e-4, 5e-4], rel=1e-4)
    norms.clear()
    _steps(_trainer(tmp_path / "b", teacher, optim__clip=1e3), [1])
    assert norms == pytest.approx(logged, rel=1e-5)


@pytest.mark.parametrize("decay", [0.25, 0.99])
def test_the_average_forgets_the_first_weights_early(decay):
    """Its decay is the smaller of the configured one and (1 + n) / (10 + n) after n updates."""
    module = torch.nn.Linear(1, 1, bias=False)
    average = AveragedWeights(module, decay)
    expected = float(module.weight)
    for n in range(1, 8):
        module.weight.data.fill_(float(n))
        average.update(module)
        used = min(decay, (1 + n) / (10 + n))
        expected = used * expected + (1 - used) * n
        assert float(average.parameters[0]) == pytest.approx(expected, rel=1e-5)
    assert average.num_updates == 7


def test_the_average_starts_at_the_first_weights_and_follows_the_generators_updates(tmp_path, teacher):
    trainer = _trainer(tmp_path, teacher, optim__generator_every=2, optim__ema=0.9)
    generator, start = trainer.method.generator, _weights(trainer.method.generator)
    assert all(map(torch.equal, trainer.average.parameters, start))
    _steps(trainer, [0, 1, 2])
    assert trainer.average.num_updates == sum(len(trainer.method.updates(step)) - 1 for step in range(3))
    before = [p.clone() for p in trainer.average.parameters]
    turns = [step for step in range(3, 9) if len(trainer.method.updates(step)) == 2]
    _steps(trainer, turns[:1])
    n = trainer.average.num_updates
    used = min(0.9, (1 + n) / (10 + n))
    for average, old, weight in zip(trainer.average.parameters, before, generator.parameters(), strict=True):
        torch.testing.assert_close(average, used * old + (1 - used) * weight)


@pytest.mark.parametrize("key, value", [("betas", (0.9, 0.5)), ("weight_decay", 0.3)])
def test_a_player_updates_as_torchs_adamw_with_its_settings(tmp_path, teacher, key, value):
    config = tiny_config(tmp_path, teacher, **{f"optim__{key}": value})
    world = new_trainer(config).world
    parameters = [torch.nn.Parameter(torch.randn(4, 3)) for _ in range(2)]
    reference = [torch.nn.Parameter(p.detach().clone()) for p in parameters]
    optimizer = Optimizer(
        {"a": {"w": parameters[0]}, "b": {"w": parameters[1]}}, {"a": 0.1, "b": 0.2}, config.optim, world
    )
    groups = [{"params": [p], "lr": rate} for p, rate in zip(reference, (0.1, 0.2), strict=True)]
    defaults = {"betas": config.optim.betas, "weight_decay": config.optim.weight_decay}
    adamw = torch.optim.AdamW(groups, **defaults)
    for step in range(3):
        optimizer.set_rates(step, 10)
        for mine, theirs in zip(parameters, reference, strict=True):
            theirs.grad = torch.randn(4, 3)
            mine.grad = theirs.grad.clone()
        optimizer.step()
        adamw.step()
    for mine, theirs in zip(parameters, reference, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_another_seed_and_another_step_draw_other_noise(tmp_path, teacher):
    """In the loop itself, on the same batches and from the same weights."""

    def loss(seed, step):
        trainer = _trainer(tmp_path, teacher, seed=seed)
        trainer.step = step
        return float(trainer.train_step(NoiseSource().batches(0))[0]["critic/loss"])

    losses = [loss(0, 0), loss(1, 0), loss(0, 2)]
    assert len(set(losses)) == 3 and loss(0, 0) == losses[0]


def test_muon_adds_momentum_and_decays_weights_and_its_adamw_has_the_settings():
    """Nesterov's direction, orthogonalized and scaled to AdamW's size; decay by lr x weight_decay."""
    weight = torch.nn.Parameter(torch.randn(4, 6))
    options = {"lr": 0.1, "betas": (0.7, 0.8), "weight_decay": 0.5}
    adamw, muon = split_optimizers([("w", weight)], excluded=(), **options)
    assert [group["betas"] for group in adamw.param_groups] == [(0.7, 0.8)] * 2
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.5, 0.0]
    expected, average = weight.detach().clone(), torch.zeros(4, 6)
    for _ in range(3):
        weight.grad = torch.randn(4, 6)
        average = 0.95 * average + weight.grad
        direction = orthogonalize(weight.grad + 0.95 * average)
        expected = (1 - 0.1 * 0.5) * expected - 0.1 * 0.2 * 6**0.5 * direction
        muon.step()
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-3, atol=1e-4)


def test_micro_batches_add_up_to_the_global_batch(tmp_path, teacher):
    """Losses, gradients and updates of one batch of four are those of two micro-batches of two."""
    ones, twos = (
        _trainer(tmp_path / str(count), teacher, NoiseSource(accumulation=count)) for count in (1, 2)
    )
    for one, two in zip(_steps(ones, [0, 1]), _steps(twos, [0, 1]), strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            assert float(two[name]) == pytest.approx(float(value), rel=1e-3, abs=1e-6), name


def test_the_averaging_and_clipping_of_a_fine_tuning_are_its_own_settings():
    fields = {"lr": 1e-4, "betas": [0.8, 0.9], "clip": 2.0, "ema": 0.5}
    optim = finetune_config({"optim": fields}).optim
    assert {name: getattr(optim, name) for name in fields} == {**fields, "betas": (0.8, 0.9)}
    assert dataclasses.is_dataclass(optim)
