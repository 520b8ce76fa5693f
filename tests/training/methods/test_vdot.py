"""A step's losses against a plain re-derivation, its forward passes counted, each switch tried."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from tests.support.distill import NoiseSource, tiny_config, write_teacher
from training.data.batch import references
from training.distributed import world as parallel
from training.engine.draws import Draws, keyed_generator
from training.engine.method import pad_text, prepare, set_trained
from training.methods.vdot import Vdot, transport_gradient
from training.methods.vdot_config import update_kinds
from training.methods.vdot_model import Scores, rollout_schedule
from vdot_core.distill import unrolled_gradient
from vdot_core.transport import entropic_ot

SOURCE = NoiseSource(global_batch=2)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


@pytest.fixture
def make(tmp_path, teacher):
    """(method, a step's batch on the device, its draws) of a configuration."""

    def build(step=0, **changes):
        other = write_teacher(tmp_path / "student.safetensors", seed=1)
        fake = write_teacher(tmp_path / "fake.safetensors", seed=2)
        named = {"model__generator": str(other), "model__fake_score": str(fake), **changes}
        config = tiny_config(tmp_path, teacher, **named)
        method = Vdot(config, parallel.start(config.parallel), SOURCE.empty_text)
        batch = SOURCE.batches(step)[0]
        draws = Draws(config.seed, step, batch.positions)
        return method, prepare(batch, draws, method, method.world.device), draws

    return build


def _plain_rollout(method, batch, draws, purpose):
    """The generator's sample: predict x0, add fresh noise, stop at the shared exit step."""
    config, generator = method.config, method.generator
    exit_step = draws.shared_integer(config.rollout.steps, f"{purpose} exit")
    uniform = torch.arange(config.rollout.steps, 0, -1) / config.rollout.steps
    shifted = [
        s * uniform / (1 + (s - 1) * uniform) for s in (config.rollout.noise_shift, config.rollout.shift)
    ]
    text = batch.text
    x = draws.normal(batch.shape, f"{purpose} noise")
    for k in range(exit_step):
        sigma, label = shifted[0][k], 1000 * shifted[1][k]
        x0 = x - sigma * generator(x, label.expand(len(x)), text, batch.contexts)
        if k + 1 < exit_step:
            fresh = draws.normal(batch.shape, f"{purpose} fresh noise {k + 1}")
            x = ((1 - shifted[0][k + 1]) * x0 + shifted[0][k + 1] * fresh).detach()
    count = batch.num_reference_latents
    return torch.cat([batch.latents[:, :, :count], x0[:, :, count:]], dim=2)


def _at(batch, draws, sample, purpose, shift, noise_name="noise"):
    """(x_t, t, sigma [B,1,1,1,1], noise) at a keyed timestep."""
    t = draws.timesteps(f"{purpose} timestep", shift=shift, low=20, high=980)
    noise = draws.normal(batch.shape, f"{purpose} {noise_name}")
    sigma = (t / 1000)[:, None, None, None, None]
    return (1 - sigma) * sample + sigma * noise, t, sigma, noise


def _gradients(parameters, loss):
    return torch.autograd.grad(loss, list(parameters), allow_unused=True)


def _assert_same_gradients(network, loss, expected):
    for (name, _), got, want in zip(
        network.named_parameters(),
        _gradients(network.parameters(), loss),
        _gradients(network.parameters(), expected),
        strict=True,
    ):
        assert (got is None) == (want is None), name
        if got is not None:
            torch.testing.assert_close(got, want, rtol=5e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("step", [0, 10])
def test_matching_update_equals_a_plain_derivation(make, step):
    # An eps at which the solver converges at once, and closely: where it stops must not matter.
    method, batch, draws = make(step, losses__eps=0.5, losses__tol=1e-5)
    count = batch.num_reference_latents
    losses = method.losses
    set_trained(method, ["generator"])
    got = method.generator_matching(batch, draws)

    sample = _plain_rollout(method, batch, draws, "generator")
    with torch.no_grad():
        x, t, sigma, _ = _at(batch, draws, sample, "generator scores", 5.0)
        text = batch.text
        empty = F.pad(SOURCE.empty_text, (0, 0, 0, 3)).expand(len(x), -1, -1)
        fake = x - sigma * method.fake_score(x, t, text, batch.contexts)
        v_c = method.real_score(x, t, text, batch.contexts)
        v_u = method.real_score(x, t, empty, batch.contexts)
        real = x - sigma * (v_u + 3 * (v_c - v_u))
        fake, real, mine = (y[:, :, count:] for y in (fake, real, sample))
        weight = 1 / (mine - real).abs().mean((1, 2, 3, 4), keepdim=True)
        displacement = torch.empty_like(fake)
        for b in range(len(fake)):
            for f in range(fake.shape[2]):
                clouds = [y[b, :, f].flatten(1).T[None] for y in (fake, real)]
                options = {"eps": 0.5, "eps_mode": "mean_cost", "tol": 1e-5}
                plan = entropic_ot(*clouds, debias=True, **options)
                points = plan.grad_a[0] * clouds[0].shape[1] / 2
                displacement[b, :, f] = points.T.view(fake.shape[1], *fake.shape[3:])
    gradient = weight * (displacement + 0.25 * (fake - real))
    expected = (gradient * sample[:, :, count:]).mean()
    _assert_same_gradients(method.generator, got.total, expected)
    assert losses.dmd_weight == 0.25


@pytest.mark.parametrize("shared, passes", [(True, 3), (False, 6)])
def test_one_score_evaluation_serves_both_losses(make, shared, passes):
    method, batch, draws = make(0, losses__shared_scores=shared, rollout__steps=1)
    counted = {"generator": 0, "fake": 0, "real": 0}

    def count(name):
        def hook(module, args):
            counted[name] += len(args[0])

        return hook

    for name, module in (
        ("generator", method.generator),
        ("fake", method.fake_score),
        ("real", method.real_score),
    ):
        module.register_forward_pre_hook(count(name))
    set_trained(method, ["generator"])
    method.generator_matching(batch, draws).total.backward()
    assert counted["fake"] + counted["real"] == passes * len(batch)
    assert counted["real"] == 2 * counted["fake"] and counted["generator"] == len(batch)


def test_batched_guidance_changes_speed_alone(make):
    totals = []
    for batched in (True, False):
        method, batch, draws = make(0, losses__batch_guidance=batched)
        totals.append(method.generator_matching(batch, draws).total.item())
    assert totals[0] == pytest.approx(totals[1], rel=1e-4)


def test_a_tasks_own_guidance_replaces_the_general_one_for_its_samples_alone(make):
    method, batch, _ = make(0)
    tasks = ("outpaint",) + ("text",) * (len(batch) - 1)
    batch = dataclasses.replace(batch, tasks=tasks)
    x = torch.randn(len(batch), *batch.shape, generator=torch.Generator().manual_seed(1))
    timestep = torch.full((len(batch),), 500.0)

    def predicted(**losses):
        method.losses = dataclasses.replace(method.config.losses, **losses)
        return method.real_prediction(x, timestep, batch)

    three, one = predicted(guidance=3.0), predicted(guidance=1.0)
    for batched in (True, False):
        mixed = predicted(guidance=3.0, task_guidance={"outpaint": 1.0}, batch_guidance=batched)
        torch.testing.assert_close(mixed[0], one[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(mixed[1:], three[1:], rtol=1e-4, atol=1e-4)
    assert (three - one).abs().mean() > 1e-3


def test_adversarial_updates_equal_a_plain_derivation(make):
    method, batch, draws = make(6)  # a step with references
    assert batch.num_reference_latents
    text = batch.text
    real_tokens = torch.arange(batch.shape[1]) >= batch.num_reference_latents
    mask = real_tokens.repeat_interleave(batch.shape[2] // 2 * (batch.shape[3] // 2))

    def logits(x, t):
        from vdot_core.networks.layers import sinusoidal_embedding

        time = method.fake_score.time_embedding(sinusoidal_embedding(t, method.sizes.freq_dim)).detach()
        _, features = method.fake_score(x, t, text, batch.contexts, taps=method.taps)
        return method.discriminator(features, time, mask)

    set_trained(method, ["generator"])
    got = method.generator_gan(batch, draws)
    sample = _plain_rollout(method, batch, draws, "generator")
    fake, t, sigma, noise = _at(batch, draws, sample, "generator gan", 12.0)
    real = (1 - sigma) * batch.latents + sigma * noise
    expected = 0.1 * F.softplus(-(logits(fake, t) - logits(real, t))).mean()
    assert got.total.item() == pytest.approx(expected.item(), rel=1e-4)
    _assert_same_gradients(method.generator, got.total, expected)
    assert all(not p.requires_grad for p in method.discriminator.parameters())

    set_trained(method, ["fake_score", "discriminator"])
    got = method.critic_gan(batch, draws)
    sample = _plain_rollout(method, batch, draws, "critic").detach()
    fake, t, sigma, noise = _at(batch, draws, sample, "critic gan", 12.0)
    real = (1 - sigma) * batch.latents + sigma * noise
    expected = 0.1 * F.softplus(-(logits(real, t) - logits(fake, t))).mean()
    assert got.total.item() == pytest.approx(expected.item(), rel=1e-4)
    _assert_same_gradients(method.discriminator, got.total, expected)


def test_the_critic_learns_flow_matching_on_samples(make):
    method, batch, draws = make(6)
    count = batch.num_reference_latents
    set_trained(method, ["fake_score", "discriminator"])
    got = method.critic_matching(batch, draws)
    sample = _plain_rollout(method, batch, draws, "critic").detach()
    x, t, _, _ = _at(batch, draws, sample, "critic", 5.0, "score noise")
    noise = Draws(5, 6, batch.positions).normal(batch.shape, "critic score noise")
    v = method.fake_score(x, t, batch.text, batch.contexts)
    expected = (v - (noise - sample))[:, :, count:].square().mean()
    assert got.total.item() == pytest.approx(expected.item(), rel=1e-5)
    got.total.backward()
    assert all(p.grad is None for p in method.generator.parameters())


def test_references_are_the_given_images_everywhere_and_train_nothing(make):
    method, batch, draws = make(6)
    count = batch.num_reference_latents
    torch.testing.assert_close(references(batch), batch.latents[:, :, :count])
    without = dataclasses.replace(batch, latents=None)
    torch.testing.assert_close(references(without), batch.latents[:, :, :count])
    # A second context that does not bring the images: gray, which is no zero to a VAE, and mask 1.
    gray = torch.full_like(batch.contexts, 0.3)
    gray[:, :, 32:] = 1
    for order in ([batch.contexts, gray], [gray, batch.contexts]):
        two = dataclasses.replace(without, contexts=torch.cat(order, dim=1))
        torch.testing.assert_close(references(two), batch.latents[:, :, :count])
    set_trained(method, ["generator"])
    base = method.generator_matching(batch, draws)
    # The matching losses need no real clip, and do not look at it beyond the references.
    changed = batch.latents.clone()
    changed[:, :, count:] += 1
    other = method.generator_matching(dataclasses.replace(batch, latents=changed), draws)
    assert torch.equal(base.total, other.total)
    with pytest.raises(ValueError, match="clip6-0"):
        method.generator_gan(without, draws)


@pytest.mark.parametrize(
    "changes, names",
    [
        ({"losses__dmd": False}, {"otd"}),
        ({"losses__otd": False}, {"dmd"}),
        ({"losses__otd": False, "losses__gan": False}, {"dmd"}),
        ({"recipe": "released"}, {"dmd", "otd"}),
        ({"losses__otd_through": "xt"}, {"dmd", "otd"}),
        (
            {"losses__otd_pool": 2, "losses__cost": "l1", "losses__rho_fake": 0.5, "losses__debias": False},
            {"dmd", "otd"},
        ),
    ],
)
def test_each_switch_is_a_loss_less(make, changes, names):
    method, batch, draws = make(0, **changes)
    set_trained(method, ["generator"])
    losses = method.generator_matching(batch, draws)
    losses.total.backward()
    assert {"dmd", "otd"} & set(losses.metrics) == names
    gradients = [p.grad for p in method.generator.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)
    assert max(g.abs().max() for g in gradients) > 0
    assert all(p.grad is None for p in method.fake_score.parameters())


def test_transport_through_xt_is_the_chain_rule(make):
    """The gradient at x_t is the fake score's Jacobian, transposed, times the one at its prediction."""
    method, batch, draws = make(0, losses__otd_through="xt", losses__dmd=False, rollout__steps=1)
    set_trained(method, ["generator"])
    got = method.generator_matching(batch, draws)
    sample = method.rollout(batch, draws, "generator", grad=True)
    scores = method.scores(sample, batch, draws, "otd")
    gradient = transport_gradient(sample, scores, method.losses, 1).gradient

    def prediction(x0):
        x, t, sigma, _ = _at(batch, draws, x0, "generator scores", 5.0)
        return x - sigma * method.fake_score(x, t, batch.text, batch.contexts)

    _, pulled = torch.autograd.functional.vjp(prediction, sample.detach(), gradient)
    expected = (pulled * sample)[:, :, 1:].sum() / sample[:, :, 1:].numel()
    _assert_same_gradients(method.generator, got.total, expected)


def test_the_parity_of_steps_gives_both_losses_their_turn(make, tmp_path, teacher):
    for every in (1, 2, 4, 5):
        config = tiny_config(tmp_path, teacher, optim__generator_every=every)
        kinds = [kind for step in range(40) for kind in update_kinds(config, step)]
        assert kinds.count("generator_gan") == kinds.count("generator_matching") == 20 // every
        assert kinds.count("critic_gan") == kinds.count("critic_matching") == 20
    config = tiny_config(tmp_path, teacher)
    assert [s for s in range(20) if len(update_kinds(config, s)) == 2] == [0, 5, 10, 15]
    assert update_kinds(config, 5) == ("generator_gan", "critic_gan")
    assert update_kinds(config, 10) == ("generator_matching", "critic_matching")
    config = tiny_config(tmp_path, teacher, losses__gan=False)
    assert update_kinds(config, 5) == ("generator_matching", "critic_matching")
    config = tiny_config(tmp_path, teacher, losses__dmd=False, losses__otd=False)
    assert update_kinds(config, 10) == ("generator_gan", "critic_matching")


@pytest.mark.parametrize("trains_score", [True, False])
def test_the_critics_adversarial_loss_trains_the_score_only_where_it_is_asked(make, trains_score):
    method, batch, draws = make(5, losses__gan_trains_score=trains_score)
    (update,) = [u for u in method.updates(5) if u.optimizer == "critic"]
    set_trained(method, update.trained)
    update.loss(batch, draws).total.backward()
    assert any(p.grad is not None for p in method.fake_score.parameters()) == trains_score
    assert any(p.grad is not None for p in method.discriminator.parameters())
    assert all(p.grad is None for p in method.generator.parameters())


def test_rollout_levels_are_the_published_ones(tmp_path, teacher):
    corrected = rollout_schedule(tiny_config(tmp_path, teacher).rollout)
    assert corrected.timesteps.tolist() == pytest.approx([1000, 960, 888.89, 727.27], abs=0.01)
    released = rollout_schedule(tiny_config(tmp_path, teacher, recipe="released").rollout)
    assert released.timesteps.tolist() == pytest.approx([1000, 960, 888.89, 727.27], abs=0.01)
    assert (1000 * released.sigmas).tolist() == pytest.approx([1000, 979.6, 941.2, 842.1, 0], abs=0.1)


def test_draws_depend_on_the_sample_and_not_on_its_neighbors():
    all_of = Draws(3, 7, (0, 1, 2, 3))
    some_of = Draws(3, 7, (2, 3))
    for name in ("normal", "uniform"):
        shape = ((2, 3),) if name == "normal" else ()
        assert torch.equal(getattr(all_of, name)(*shape, "x")[2:], getattr(some_of, name)(*shape, "x"))
    assert all_of.shared_integer(1000, "exit") == some_of.shared_integer(1000, "exit")
    draws = {
        float(Draws(s, t, (p,)).uniform(u)) for s in (1, 2) for t in (1, 2) for p in (1, 2) for u in "ab"
    }
    assert len(draws) == 16
    fresh = all_of.noise_source("fresh")
    like = torch.zeros(4, 5)
    assert not torch.equal(fresh(like), fresh(like))


def test_dropped_captions_are_the_empty_one(make):
    _, batch, _ = make(0, losses__text_drop=1.0)
    torch.testing.assert_close(batch.text, pad_text(SOURCE.empty_text, 6).expand(2, -1, -1))
    _, batch, _ = make(0)
    assert torch.equal(batch.text[:, :5], SOURCE.batches(0)[0].text)


def test_released_gradient_has_unit_frames_and_skips_references():
    fake, real = (torch.randn(2, 16, 3, 6, 4, generator=keyed_generator(n)) for n in ("fake", "real"))
    gradient = unrolled_gradient(
        fake, real, eps=0.1, iterations=20, pool=2, scale=0.1, num_reference_latents=1
    )
    assert gradient[:, :, 0].abs().max() == 0
    norms = gradient[:, :, 1:].transpose(1, 2).flatten(2).norm(dim=-1)
    torch.testing.assert_close(norms, torch.full((2, 2), 0.1))
    # Pooling: the four positions of a window share one gradient.
    windows = gradient[:, :, 1, :2, :2].flatten(2)
    torch.testing.assert_close(windows, windows[..., :1].expand_as(windows))


def test_released_gradient_amplifies_rounding_as_the_release_does_and_leaves_zero():
    """Its norm is that of a frame far apart; only where nothing differs at all is there none."""
    real = torch.randn(1, 16, 2, 4, 4, generator=keyed_generator("real"))
    real[:, :, 1] = 0
    noise = 1e-7 * torch.randn(real.shape, generator=keyed_generator("noise"))
    noise[:, :, 1] = 0
    gradient = unrolled_gradient(real + noise, real, eps=0.1, iterations=20, pool=1, scale=0.1)
    assert gradient[:, :, 0].norm().item() == pytest.approx(0.1, rel=1e-5)
    assert (gradient[:, :, 1] == 0).all()


def test_pooled_transport_keeps_units(make):
    """Clouds that are constant over each 2x2 window: pooling changes the number of points alone."""
    method, _, _ = make(0)
    small = [torch.randn(1, 16, 1, 4, 4, generator=keyed_generator(n)) for n in "abc"]
    large = [x.repeat_interleave(2, -1).repeat_interleave(2, -2) for x in small]

    def gradient(parts, pool):
        losses = dataclasses.replace(method.losses, otd_pool=pool, eps=0.2, tol=1e-5, iterations=2000)
        scores = Scores(parts[0], torch.tensor([500.0]), *parts[1:])
        return transport_gradient(parts[0], scores, losses, 0).gradient

    torch.testing.assert_close(gradient(large, 2), gradient(large, 1), rtol=1e-2, atol=1e-3)
