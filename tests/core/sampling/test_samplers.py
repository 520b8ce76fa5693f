"""The samplers against flows with known solutions; UniPC against its formula and diffusers' own stepping."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from vdot_core.sampling import (
    SOLVERS,
    Pause,
    Schedule,
    fresh_noise,
    released,
    resume,
    rollout,
    sample,
    sharp,
    trained,
    trajectory,
)

SHAPE = (2, 16, 3, 4, 6)


class Recorded:
    """A velocity that records its calls and gets the true level, which truncated labels hide."""

    def __init__(self, field, schedule):
        self.field, self.schedule, self.calls = field, schedule, []

    def __call__(self, x, timestep):
        sigma = float(self.schedule.sigmas[len(self.calls)])
        self.calls.append((x.shape, x.dtype, timestep))
        return self.field(x, sigma)


def network(x, sigma):
    """Some smooth function of both arguments, in the precision it is asked for."""
    return torch.tanh(0.7 * x + sigma) + 0.3 * x * sigma - 0.2


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    "schedule", [released(), trained(), sharp(), trained(1), sharp(9), released(40, 40.0)]
)
def test_a_single_point_is_found(solver, schedule):
    """All data is one point: v = (x - x0) / sigma, and every solver ends on it, even where labels repeat."""
    target = torch.randn(SHAPE)
    velocity = Recorded(lambda x, sigma: (x - target) / sigma, schedule)
    latents = sample(velocity, torch.randn(SHAPE), schedule, solver, torch.Generator().manual_seed(1))
    torch.testing.assert_close(latents, target, atol=2e-5, rtol=0)
    assert len(velocity.calls) == schedule.num_steps
    for (shape, dtype, timestep), label in zip(velocity.calls, schedule.timesteps, strict=True):
        assert shape == SHAPE and dtype == torch.float32
        assert timestep.dtype == torch.float32 and torch.equal(timestep, label.expand(2))


def gaussian_error(solver, steps, mean=0.8, deviation=1.0):
    """Distance from the exact solution of the flow of Gaussian data, at shift 3."""
    schedule = Schedule.shifted(steps, 3.0)

    def spread(sigma):
        return math.sqrt(((1 - sigma) * deviation) ** 2 + sigma**2)

    def field(x, sigma):
        slope = (sigma - (1 - sigma) * deviation**2) / spread(sigma) ** 2
        return slope * (x - (1 - sigma) * mean) - mean

    noise = torch.randn(SHAPE)
    start = float(schedule.sigmas[0])
    exact = mean + deviation * (noise - (1 - start) * mean) / spread(start)
    latents = sample(Recorded(field, schedule), noise, schedule, solver)
    return float((latents - exact).abs().mean())


@pytest.mark.parametrize("solver, order", [("euler", 1.0), ("unipc", 2.0)])
def test_error_falls_with_the_solvers_order(solver, order):
    errors = [gaussian_error(solver, steps) for steps in (8, 64, 128, 256)]
    assert errors == sorted(errors, reverse=True)
    assert math.log2(errors[1] / errors[3]) / 2 > 0.85 * order
    assert gaussian_error("unipc", 8) < gaussian_error("euler", 8) / 2


def test_renoise_is_its_formula():
    schedule, noise = trained(), torch.randn(SHAPE)
    latents = sample(
        Recorded(network, schedule), noise, schedule, "renoise", torch.Generator().manual_seed(7)
    )
    generator = torch.Generator().manual_seed(7)
    x = noise
    for index, sigma in enumerate(schedule.sigmas[:-1].tolist()):
        x0 = x - sigma * network(x, sigma)
        following = float(schedule.sigmas[index + 1])
        if following > 0:
            x = (1 - following) * x0 + following * torch.randn(SHAPE, generator=generator)
    torch.testing.assert_close(latents, x0)


def unipc_by_hand(field, noise, sigmas):
    """UniPC-2 with B(h) = e^-h - 1 on data predictions, from the paper (arXiv 2302.04867), in float64."""

    def log_snr(sigma):
        return math.log1p(-sigma) - math.log(sigma) if sigma > 0 else math.inf

    x, previous, last_x, last_order = noise.double().numpy(), [], None, 0
    steps = len(sigmas) - 1
    for i in range(steps):
        s = sigmas[i]
        m = x - s * field(torch.from_numpy(x), s).numpy()
        if i > 0:
            r = sigmas[i - 1]
            h = log_snr(s) - log_snr(r)
            first = math.expm1(-h)
            m0 = previous[-1]
            if last_order == 1:
                correction = 0.5 * (m - m0)
            else:
                ratio = (log_snr(sigmas[i - 2]) - log_snr(r)) / h
                phi1 = first / -h - 1
                phi2 = phi1 / -h - 0.5
                rho = np.linalg.solve([[1, 1], [ratio, 1]], [phi1 / first, 2 * phi2 / first])
                correction = rho[0] * (previous[-2] - m0) / ratio + rho[1] * (m - m0)
            x = s / r * last_x - (1 - s) * first * (m0 + correction)
        previous.append(m)
        last_x, last_order = x, min(2, i + 1, steps - i)
        t = sigmas[i + 1]
        h = log_snr(t) - log_snr(s)
        first = math.expm1(-h)
        guess = m
        if last_order == 2:
            ratio = (log_snr(sigmas[i - 1]) - log_snr(s)) / h
            guess = m + 0.5 * (previous[-2] - m) / ratio
        x = t / s * x - (1 - t) * first * guess
    return torch.from_numpy(x)


@pytest.mark.parametrize("schedule", [released(), sharp(), sharp(1), sharp(2), released(12)], ids=str)
def test_unipc_is_its_formula(schedule):
    noise = torch.randn(SHAPE)
    expected = unipc_by_hand(network, noise, schedule.sigmas.double().tolist())
    latents = sample(Recorded(network, schedule), noise, schedule)
    assert float((latents - expected).norm() / expected.norm()) < 2e-6


@pytest.mark.parametrize("start, labels", [(0.999, "wan"), (1.0, "exact")])
@pytest.mark.parametrize("steps, shift", [(4, 16.0), (4, 3.75), (20, 5.0)])
def test_unipc_is_diffusers_stepped_on_its_own_timesteps(steps, shift, start, labels):
    """As a pipeline with Wan's levels: the same latents, the same integer labels for the network."""
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )
    scheduler.set_timesteps(sigmas=np.linspace(start, 0, steps + 1)[:-1])
    schedule, noise = Schedule.shifted(steps, shift, labels=labels), torch.randn(SHAPE)
    theirs, ours = Recorded(network, schedule), Recorded(network, schedule)
    x = noise
    for timestep in scheduler.timesteps:
        x = scheduler.step(theirs(x, timestep), timestep, x, return_dict=False)[0]
    torch.testing.assert_close(sample(ours, noise, schedule), x, atol=1e-6, rtol=1e-6)
    if labels == "wan":
        assert [int(call[2][0]) for call in ours.calls] == [int(call[2]) for call in theirs.calls]


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_view_of_the_loop_is_the_same(solver):
    """sample, its callback, trajectory and rollout agree step by step."""
    schedule, noise = released(), torch.randn(SHAPE)

    def fresh():
        return Recorded(network, schedule), noise, schedule

    calls = []
    latents = sample(
        *fresh(), solver, torch.Generator().manual_seed(3), lambda *arguments: calls.append(arguments)
    )
    assert [step[:2] for step in calls] == [(index, 4) for index in range(4)]
    assert torch.equal(calls[-1][3], latents)
    torch.testing.assert_close(calls[-1][2], latents, atol=1e-5, rtol=1e-5)
    steps = list(trajectory(*fresh(), solver, torch.Generator().manual_seed(3)))
    for index, step in enumerate(steps):
        assert step.index == index and torch.equal(step.x0, calls[index][2])
        assert torch.equal(step.x, noise if index == 0 else calls[index - 1][3])
        alone = rollout(*fresh(), index + 1, solver, torch.Generator().manual_seed(3))
        assert torch.equal(alone.x0, step.x0) and alone.index == index


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("exit_step", [1, 3, 4])
def test_a_rollout_has_the_gradient_of_its_last_step_only(solver, exit_step):
    schedule, noise = trained(), torch.randn(SHAPE)
    weight = torch.tensor(0.7, requires_grad=True)
    modes = []

    def velocity(x, timestep):
        modes.append(torch.is_grad_enabled())
        return torch.tanh(weight * x) * timestep.view(-1, 1, 1, 1, 1) / 1000

    step = rollout(velocity, noise, schedule, exit_step, solver, torch.Generator().manual_seed(0))
    assert modes == [False] * (exit_step - 1) + [True] and not step.x.requires_grad
    (gradient,) = torch.autograd.grad(step.x0.sum(), weight)
    sigma = float(schedule.sigmas[exit_step - 1])
    label = float(schedule.timesteps[exit_step - 1]) / 1000
    expected = (-sigma * label * step.x / torch.cosh(0.7 * step.x) ** 2).sum()
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError, match="exit_step is 5"):
        rollout(velocity, noise, schedule, 5)


def test_sampling_is_differentiable_throughout():
    """Without no_grad around it, the entire trajectory carries gradient (central differences in float32)."""
    schedule, noise = sharp(3), torch.randn(1, 4, 1, 2, 2)

    def loss(weight):
        return sample(lambda x, t: torch.tanh(weight * x), noise, schedule).square().mean()

    weight = torch.tensor(0.4, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(weight), weight)
    numeric = (loss(torch.tensor(0.45)) - loss(torch.tensor(0.35))) / 0.1
    torch.testing.assert_close(gradient, numeric, rtol=2e-2, atol=1e-3)


def test_a_half_precision_network_is_solved_in_float32():
    schedule, noise = released(), torch.randn(SHAPE)

    def velocity(x, timestep):
        assert x.dtype == torch.float32
        return network(x.bfloat16(), 0.5)

    for solver in SOLVERS:
        assert sample(velocity, noise.bfloat16(), schedule, solver).dtype == torch.float32


def test_noise_comes_from_the_generator(monkeypatch):
    schedule, noise = trained(), torch.randn(SHAPE)

    def run(seed):
        return sample(
            Recorded(network, schedule), noise, schedule, "renoise", torch.Generator().manual_seed(seed)
        )

    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))
    # Noise for another device is drawn where the generator lives, and only then moved.
    like, draw, devices = torch.empty(SHAPE, device="meta"), torch.randn, []
    monkeypatch.setattr(torch, "randn", lambda *a, **k: devices.append(k["device"]) or draw(*a, **k))
    assert fresh_noise(like, torch.Generator().manual_seed(1)).device == like.device
    assert devices == [torch.device("cpu")]
    monkeypatch.undo()
    expected = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    assert torch.equal(fresh_noise(torch.empty(SHAPE), torch.Generator().manual_seed(1)), expected)


class Levels:
    """A velocity that knows the schedule's true levels by their labels, at any step."""

    def __init__(self, schedule):
        self.sigmas = dict(zip(schedule.timesteps.tolist(), schedule.sigmas.tolist(), strict=False))

    def __call__(self, x, timestep):
        return network(x, self.sigmas[float(timestep[0])])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("schedule", [released(), released(9)], ids=str)
def test_parts_give_what_one_run_gives(solver, schedule):
    noise, velocity = torch.randn(SHAPE), Levels(schedule)
    expected = sample(velocity, noise, schedule, solver, torch.Generator().manual_seed(3))
    for stops in ([1], [2], [1, 2, 3]):
        generator, pause = torch.Generator().manual_seed(3), Pause(0, noise)
        for stop in [*stops, None]:
            paused = resume(velocity, pause, schedule, stop, solver, generator)
            state = None if stop is None else generator.get_state()
            if stop is not None:  # a pause is not used up
                again = resume(velocity, paused, schedule, None, solver, generator)
                generator.set_state(state)
                assert torch.equal(again.x, expected)
            pause = paused.to("cpu")
        assert torch.equal(pause.x, expected) and pause.step == schedule.num_steps


def test_unipc_without_its_history_starts_anew_at_order_one():
    """From a pause without a history, the steps are those of a schedule that begins there."""
    schedule, x = released(8), torch.randn(SHAPE)
    velocity = Levels(schedule)
    rest = Schedule(schedule.sigmas[3:], schedule.timesteps[3:])
    restarted = resume(velocity, Pause(3, x), schedule).x
    torch.testing.assert_close(restarted, sample(velocity, x, rest), atol=1e-6, rtol=1e-6)
    paused = resume(velocity, Pause(0, x), schedule, 3)
    carried = resume(velocity, paused, schedule).x
    assert not torch.equal(resume(velocity, Pause(3, paused.x), schedule).x, carried)


@pytest.mark.parametrize("start, end", [(2, 2), (3, 1), (-1, 2), (4, None), (0, 5)])
def test_steps_beyond_the_schedule_are_named(start, end):
    with pytest.raises(ValueError, match=r"cannot run from step .* at most 4"):
        resume(lambda x, t: x, Pause(start, torch.zeros(SHAPE)), released(), end)


def test_wrong_calls_are_named():
    schedule, noise = trained(), torch.randn(SHAPE)
    with pytest.raises(ValueError, match="'ddim', expected one of unipc, renoise, euler"):
        sample(lambda x, t: x, noise, schedule, "ddim")
    with pytest.raises(ValueError, match="velocity returned shape"):
        sample(lambda x, t: x[:1], noise, schedule)
    with pytest.raises(ValueError, match="expected float"):
        sample(lambda x, t: x, noise.long(), schedule)


def test_diffusers_is_imported_only_for_unipc():
    code = (
        "import sys, torch\n"
        "from vdot_core.sampling import sample, trained\n"
        "sample(lambda x, t: x, torch.randn(1, 4), trained(), 'renoise')\n"
        "assert not any(name.split('.')[0] in ('diffusers', 'transformers') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
