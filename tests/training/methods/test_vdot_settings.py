"""Every setting of a distillation changes the updates that it is documented for, and no others."""

import dataclasses

import pytest
import torch

from tests.support.distill import NoiseSource, tiny_config, write_teacher
from training.distributed import world as processes
from training.engine.draws import Draws
from training.engine.method import prepare, set_trained
from training.methods.loss_config import LossConfig
from training.methods.vdot import Vdot
from training.methods.vdot_config import RolloutConfig
from vdot_core.distill import approximate_gradient_penalty

MATCHING, SCORE = "generator_matching", "critic_matching"
ADVERSARIAL = {"generator_gan", "critic_gan"}
ALL = {MATCHING, SCORE, *ADVERSARIAL}
HARD = {"losses__debias": False}
UNROLLED = {"recipe": "released", "losses__iterations": 20}
# Key -> its other value, the updates that it changes, and other keys that it needs.
CHANGES = {
    "seed": (4, ALL, {}),
    "rollout.steps": (3, ALL, {}),
    "rollout.shift": (3.0, ALL, {}),
    "rollout.noise_shift": (3.0, ALL, {}),
    "model.taps": ([0], ADVERSARIAL, {}),
    "model.frozen": (["blocks.0."], {MATCHING, "generator_gan"}, {}),
    "losses.dmd": (False, {MATCHING}, {}),
    "losses.otd": (False, {MATCHING}, {}),
    "losses.dmd_weight": (0.5, {MATCHING}, {}),
    "losses.otd_weight": (0.5, {MATCHING}, {}),
    "losses.gan_weight": (0.5, ADVERSARIAL, {}),
    "losses.guidance": (2.0, {MATCHING}, {}),
    "losses.task_guidance": ({"depth": 2.0}, {MATCHING}, {}),
    "losses.score_shift": (2.0, {MATCHING, SCORE}, {}),
    "losses.gan_shift": (2.0, ADVERSARIAL, {}),
    "losses.min_timestep": (970.0, ALL, {}),
    "losses.max_timestep": (500.0, ALL, {}),
    "losses.dmd_weighting": ("none", {MATCHING}, {}),
    "losses.eps": (0.7, {MATCHING}, {}),
    "losses.eps_mode": ("absolute", {MATCHING}, {}),
    "losses.debias": (False, {MATCHING}, {}),
    "losses.cost": ("l1", {MATCHING}, {}),
    "losses.rho_fake": (0.5, {MATCHING}, HARD),
    "losses.rho_real": (0.5, {MATCHING}, HARD),
    "losses.tol": (1e-5, {MATCHING}, {}),
    "losses.iterations": (1, {MATCHING}, UNROLLED),
    "losses.otd_gradient": (
        "unrolled",
        {MATCHING},
        {"losses__eps_mode": "absolute", "losses__debias": False, "losses__iterations": 20},
    ),
    "losses.otd_through": ("xt", {MATCHING}, {}),
    "losses.otd_pool": (2, {MATCHING}, {}),
    "losses.otd_scale": (0.5, {MATCHING}, UNROLLED),
    "losses.otd_reduction": ("sum", {MATCHING}, {}),
    "losses.shared_scores": (False, {MATCHING}, {}),
    "losses.gan_form": ("linear", ADVERSARIAL, {}),
    "losses.gan_shared_noise": (False, {"generator_gan"}, {}),
    "losses.gan_trains_score": (False, {"critic_gan"}, {}),
    "losses.r1": (1.0, {"critic_gan"}, {}),
    "losses.r2": (1.0, {"critic_gan"}, {}),
    "losses.penalty_sigma": (0.1, {"critic_gan"}, {"losses__r1": 1.0}),
    "losses.text_drop": (1.0, ALL, {}),
}
# Generator and critic in each step, rollouts of all their steps, a transport that converges soon.
FAST = {
    "optim__generator_every": 1,
    "seed": 3,
    "rollout__steps": 2,
    "parallel__checkpoint_every": 0,
    "losses__eps": 0.5,
}
# `gan` changes the order of updates (`test_the_parity_of_steps_..`), `batch_guidance` speed alone.
OTHERS = {"losses.gan", "losses.batch_guidance"}
SOURCE = NoiseSource(global_batch=2, references=0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    names = ("teacher", "generator", "fake_score")
    return {name: write_teacher(folder / f"{name}.safetensors", seed) for seed, name in enumerate(names)}


def _method(folder, weights, **changes):
    student = {f"model__{name}": str(weights[name]) for name in ("generator", "fake_score")}
    settings = {**student, **FAST, **changes}
    config = tiny_config(folder, weights["teacher"], **settings)
    return Vdot(config, processes.start(config.parallel), SOURCE.empty_text)


def _batch(method, step):
    batch = SOURCE.batches(step)[0]
    draws = Draws(method.config.seed, step, batch.positions)
    return prepare(batch, draws, method, method.world.device), draws


def _results(folder, weights, **changes) -> dict[str, list[float]]:
    """Update -> its loss and the norm of every network's gradient, all at the first weights."""
    method, results = _method(folder, weights, **changes), {}
    for step in (0, 1):
        batch, draws = _batch(method, step)
        for update in method.updates(step):
            set_trained(method, update.trained)
            total = update.loss(batch, draws).total
            parameters = [p for network in method.networks.values() for p in network.parameters()]
            gradients = torch.autograd.grad(
                total, [p for p in parameters if p.requires_grad], allow_unused=True
            )
            norms = [float(g.norm()) for g in gradients if g is not None]
            results[update.loss.__name__] = [float(total.detach()), *norms]
    return results


@pytest.fixture(scope="module")
def usual(tmp_path_factory, weights):
    """Results of the defaults, and of each group of other keys."""
    cached = {}

    def results(**needed):
        key = repr(needed)
        if key not in cached:
            cached[key] = _results(tmp_path_factory.mktemp("usual"), weights, **needed)
        return cached[key]

    return results


def test_the_table_names_every_setting_of_losses_and_rollout():
    named = {f"losses.{field.name}" for field in dataclasses.fields(LossConfig)}
    named |= {f"rollout.{field.name}" for field in dataclasses.fields(RolloutConfig)}
    assert named <= set(CHANGES) | OTHERS


@pytest.mark.parametrize("key", CHANGES)
def test_a_setting_changes_its_updates_and_no_others(tmp_path, weights, usual, key):
    value, updates, needed = CHANGES[key]
    changed = _results(tmp_path, weights, **{**needed, key.replace(".", "__"): value})
    assert changed.keys() == ALL
    assert {name for name in ALL if changed[name] != usual(**needed)[name]} == updates


@pytest.mark.parametrize("name, latents", [("r1", "real"), ("r2", "fake")])
def test_gradient_penalties_are_added_with_their_weight(tmp_path, weights, name, latents):
    """weight x mean (D(x + sigma n) - D(x))^2, of real latents for R1 and of samples for R2."""
    method = _method(tmp_path, weights, **{f"losses__{name}": 3.0, "losses__penalty_sigma": 0.2})
    batch, draws = _batch(method, 1)
    total = method.critic_gan(batch, draws)
    x0 = method.rollout(batch, draws, "critic", grad=False)
    real, fake, timestep = method.noised_pair(x0, batch, draws, "critic gan", shared=True)
    x = {"real": real, "fake": fake}[latents]
    penalty = approximate_gradient_penalty(
        lambda noised: method.logits(noised, timestep, batch),
        x,
        method.logits(x, timestep, batch),
        0.2,
        draws.noise_source(f"critic {name}"),
    )
    plain = _method(tmp_path, weights).critic_gan(batch, draws)
    assert float(total.metrics[name]) == pytest.approx(float(penalty), rel=1e-5)
    assert float(total.total) == pytest.approx(float(plain.total + 3 * penalty), rel=1e-5)
