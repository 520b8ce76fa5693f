"""Entropic optimal transport against closed forms, POT in float64 and autograd of the dual."""

import math

import numpy as np
import pytest
import torch

from benchmarks._transport_methods import clouds as benchmark_clouds
from vdot_core.transport import entropic_ot


def clouds(num_a=60, num_b=50, dims=16, frames=2, shift=0.3):
    return torch.randn(frames, num_a, dims), torch.randn(frames, num_b, dims) + shift


def squared_cost(a, b):
    return (a.double()[:, None] - b.double()[None]).square().sum(-1)


def pot_plan(a, b, eps, cost=None, weights=None):
    """Converged float64 plan of one frame by POT's log-domain Sinkhorn."""
    import ot  # seconds to import

    cost = (squared_cost(a, b) if cost is None else cost).numpy()
    weights_a, weights_b = weights or [np.full(n, 1 / n) for n in cost.shape]
    plan = ot.bregman.sinkhorn_log(weights_a, weights_b, cost, eps, numItermax=50_000, stopThr=1e-13)
    return torch.from_numpy(plan)


def envelope(plan, a, b):
    return 2 * (plan.sum(1, keepdim=True) * a.double() - plan @ b.double())


def relative(x, y):
    return ((x.double() - y.double()).norm() / y.double().norm()).item()


@pytest.mark.parametrize("eps", [10.0, 3.0, 1.0])
def test_gradient_and_value_equal_pot(eps):
    a, b = clouds()
    result = entropic_ot(a, b, eps=eps, tol=1e-6, max_iter=3000)
    assert result.converged.all()
    for frame in range(2):
        plan = pot_plan(a[frame], b[frame], eps)
        assert relative(result.grad_a[frame], envelope(plan, a[frame], b[frame])) < 2e-5
        kl = (plan * (plan * plan.numel()).clamp_min(1e-300).log()).sum()
        value = (plan * squared_cost(a[frame], b[frame])).sum() + eps * kl
        assert result.value[frame].item() == pytest.approx(value.item(), rel=1e-5)


def test_weights_equal_pot():
    a, b = clouds(frames=1)
    weights_a, weights_b = torch.rand(60) + 0.1, torch.rand(50) + 0.1
    result = entropic_ot(a, b, eps=2.0, weights_a=weights_a, weights_b=weights_b, tol=1e-6, max_iter=3000)
    weights = [(w.double() / w.double().sum()).numpy() for w in (weights_a, weights_b)]
    plan = pot_plan(a[0], b[0], 2.0, weights=weights)
    assert relative(result.grad_a[0], envelope(plan, a[0], b[0])) < 2e-5


def test_l1_cost_equals_pot():
    a, b = clouds(frames=1, dims=4)
    difference = a[0].double()[:, None] - b[0].double()[None]
    plan = pot_plan(a[0], b[0], 0.5, cost=difference.abs().sum(-1))
    result = entropic_ot(a, b, eps=0.5, cost="l1", tol=1e-6, max_iter=3000)
    assert relative(result.grad_a[0], (plan[..., None] * difference.sign()).sum(1)) < 2e-5


@pytest.mark.parametrize(("rho_a", "rho_b"), [(5.0, 20.0), (5.0, 5.0)])
def test_unbalanced_equals_pot(rho_a, rho_b):
    import ot

    a, b = clouds(frames=1)
    eps, cost = 2.0, squared_cost(a[0], b[0]).numpy()
    weights = [np.full(n, 1 / n) for n in cost.shape]
    options = {"method": "sinkhorn", "reg_type": "kl", "numItermax": 50_000, "stopThr": 1e-14}
    plan = ot.unbalanced.sinkhorn_unbalanced(*weights, cost, eps, (rho_a, rho_b), **options)
    result = entropic_ot(a, b, eps=eps, rho_a=rho_a, rho_b=rho_b, tol=1e-7, max_iter=3000)
    assert relative(result.grad_a[0], envelope(torch.from_numpy(plan), a[0], b[0])) < 2e-5


def test_semi_unbalanced_keeps_the_hard_marginal():
    a, b = clouds(frames=1)
    result = entropic_ot(a, b, eps=2.0, rho_a=4.0, tol=1e-7, max_iter=3000)
    exponent = (result.f[0][:, None] + result.g[0][None]).double() - squared_cost(a[0], b[0])
    plan = (exponent / 2.0).exp() / (60 * 50)
    torch.testing.assert_close(plan.sum(0), torch.full((50,), 1 / 50, dtype=torch.float64), rtol=1e-4, atol=0)
    # KL optimality of the relaxed side: its mass is a_i exp(-f_i / rho).
    torch.testing.assert_close(plan.sum(1), (-result.f[0].double() / 4.0).exp() / 60, rtol=1e-4, atol=0)
    assert plan.sum(1).std() * 60 > 1e-2


def test_large_rho_does_not_stall():
    a, b = clouds(frames=1)
    relaxed = entropic_ot(a, b, eps=2.0, rho_a=1e5, rho_b=1e5, tol=1e-5)
    balanced = entropic_ot(a, b, eps=2.0, tol=1e-5)
    assert relaxed.converged.all()
    assert relative(relaxed.grad_a, balanced.grad_a) < 1e-3


def test_two_by_two_closed_form():
    # Points 0, 1 on both sides: P has diagonal 1/2 s and off-diagonal 1/2 (1 - s), s = 1 / (1 + exp(-1/eps)).
    points = torch.tensor([[[0.0], [1.0]]])
    eps = 0.5
    stay = 1 / (1 + math.exp(-1 / eps))
    gradient = entropic_ot(points, points, eps=eps, tol=1e-7).grad_a
    expected = torch.tensor([[[-(1 - stay)], [1 - stay]]])
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-6)


def test_large_eps_pulls_to_the_mean():
    a, b = clouds()
    gradient = entropic_ot(a, b, eps=1e6).grad_a
    torch.testing.assert_close(gradient, 2 * (a - b.mean(1, keepdim=True)) / 60, rtol=1e-4, atol=1e-6)


def test_gradients_sum_to_the_difference_of_means():
    a, b = clouds()
    total = entropic_ot(a, b, eps=1.0, tol=1e-6, max_iter=3000).grad_a.sum(1)
    torch.testing.assert_close(total, 2 * (a.mean(1) - b.mean(1)), rtol=1e-4, atol=1e-5)


def test_translation_adds_a_constant():
    a, _ = clouds()
    step = torch.full((16,), 0.7)
    moved, still = (entropic_ot(a, x, eps=2.0, tol=1e-7, max_iter=3000).grad_a for x in (a + step, a))
    torch.testing.assert_close(moved, still - 2 * step / 60, rtol=0, atol=5e-5)


def test_permutation_is_recovered():
    a, _ = clouds(frames=1)
    order = torch.randperm(60)
    b = a[:, order] + 0.01 * torch.randn(1, 60, 16)
    gradient = entropic_ot(a, b, eps=0.02, tol=1e-5, max_iter=2000).grad_a
    torch.testing.assert_close(gradient, 2 * (a - b[:, order.argsort()]) / 60, rtol=0, atol=1e-4)


def test_gaussian_slope_in_one_dimension():
    # The gradient of a 1-D Gaussian pair is linear, 2 (1 - slope) (x - mean) / N + mean shift.
    quantiles = torch.distributions.Normal(0.0, 1.0).icdf(
        (torch.arange(3000, dtype=torch.float64) + 0.5) / 3000
    )
    sigma_a, sigma_b, eps = 1.0, 2.0, 0.8
    a, b = (sigma_a * quantiles)[None, :, None], (sigma_b * quantiles)[None, :, None]
    gradient = entropic_ot(a.float(), b.float(), eps=eps, tol=1e-6, max_iter=500).grad_a[0, :, 0]
    target = (a[0, :, 0] - gradient * 3000 / 2)[1000:2000]
    slope = (target * a[0, 1000:2000, 0]).sum() / a[0, 1000:2000, 0].square().sum()
    s2 = eps / 2
    expected = (math.sqrt(4 * sigma_a**2 * sigma_b**2 + s2**2) - s2) / (2 * sigma_a**2)
    assert slope.item() == pytest.approx(expected, rel=1e-4)


def test_sorted_limit_in_one_dimension_is_approached_as_eps_falls():
    a, b = torch.randn(1, 80, 1), torch.randn(1, 80, 1) * 1.5 + 1
    exact = 2 * (a.sort(1).values - b.sort(1).values) / 80
    order = a.argsort(1)
    errors = []
    for eps in (1.0, 0.3, 0.1, 0.03):
        gradient = entropic_ot(a, b, eps=eps, tol=1e-5, max_iter=5000).grad_a.gather(1, order)
        errors.append((gradient - exact).norm().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.25 * errors[0]


def test_envelope_equals_autograd_of_the_regularized_objective_and_not_of_the_transport_cost():
    """Differentiating <P, C> through the iterations, without the entropy, even points the wrong way."""
    base = torch.randn(1, 40, 8, dtype=torch.float64)
    a = (base + 0.05 * torch.randn_like(base)).requires_grad_()
    b = base + 0.05 * torch.randn_like(base)
    cost = (a[0][:, None] - b[0][None]).square().sum(-1)
    eps = 0.1 * cost.detach().mean().item()
    log_mass = -math.log(40)
    f = g = torch.zeros(40, dtype=torch.float64)
    for _ in range(3000):
        f = -eps * ((g - cost) / eps + log_mass).logsumexp(1)
        g = -eps * ((f[:, None] - cost) / eps + log_mass).logsumexp(0)
    plan = ((f[:, None] + g - cost) / eps + 2 * log_mass).exp()
    (dual,) = torch.autograd.grad(f.mean() + g.mean() - eps * (plan.sum() - 1), a, retain_graph=True)
    (transport_cost,) = torch.autograd.grad((plan * cost).sum(), a)
    ours = entropic_ot(a.detach().float(), b.float(), eps=eps, tol=1e-7, max_iter=2000).grad_a
    assert relative(ours, dual) < 1e-4
    assert torch.cosine_similarity(transport_cost.flatten(), dual.flatten(), dim=0) < 0


@pytest.mark.parametrize("rho", [math.inf, 20.0, 2.0])
def test_debiasing(rho):
    """Equal clouds stay; from others the self-transport is subtracted, here solved as any other."""
    a, b = clouds()
    options = {"eps": 5.0, "rho_a": rho, "rho_b": rho, "max_iter": 2000}
    same = entropic_ot(a, a, debias=True, tol=1e-6, **options)
    own, plain, other = (entropic_ot(*pair, tol=1e-7, **options) for pair in ((a, a), (a, b), (b, b)))
    assert same.grad_a.norm() < 1e-3 * own.grad_a.norm()
    assert same.value.abs().max() < 1e-3
    debiased = entropic_ot(a, b, debias=True, tol=1e-7, **options)
    assert relative(debiased.grad_a, plain.grad_a - own.grad_a) < 1e-3
    expected = plain.value - (own.value + other.value) / 2
    torch.testing.assert_close(debiased.value, expected, rtol=1e-3, atol=1e-4)


def test_debiasing_with_one_relaxed_marginal_is_refused():
    """Its self term, relaxed on both sides or on one, is not what a plan between equal clouds has."""
    a, b = clouds()
    with pytest.raises(ValueError, match=r"rho_a is 2.0, rho_b inf.*give both the same, or debias=False"):
        entropic_ot(a, b, eps=1.0, rho_a=2.0, debias=True)


def test_an_unconverged_self_transport_is_reported():
    """The clouds' own plan starts from its solution and takes one pass; theirs onto themselves need more."""
    a, b = clouds()
    options = {"eps": 5.0, "tol": 1e-3}
    solved = entropic_ot(a, b, max_iter=3000, **{**options, "tol": 1e-5})
    start = solved.f, solved.g
    assert entropic_ot(a, b, init=start, max_iter=1, **options).converged.all()
    short = entropic_ot(a, b, init=start, max_iter=1, debias=True, **options)
    assert not short.converged.any() and (short.marginal_error > 1e-3).all()
    enough = entropic_ot(a, b, init=start, max_iter=300, debias=True, **options)
    assert enough.converged.all() and (enough.num_iter == 1).all()
    assert relative(short.grad_a, enough.grad_a) > 1e-3, "half of the gradient was not solved for"


@pytest.mark.parametrize(("mode", "scale"), [("absolute", 4.0), ("mean_cost", 1.0)])
def test_eps_modes_scale_as_they_say(mode, scale):
    a, b = clouds()
    small = entropic_ot(a, b, eps=0.5, eps_mode=mode, tol=1e-6, max_iter=3000)
    large = entropic_ot(2 * a, 2 * b, eps=0.5 * scale, eps_mode=mode, tol=1e-6, max_iter=3000)
    assert relative(large.grad_a, 2 * small.grad_a) < 1e-4
    torch.testing.assert_close(large.value, 4 * small.value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "eps"), [("indep", 0.1), ("real", 0.32), ("small", 0.64)])
def test_a_quarter_of_the_plain_iterations_suffices(kind, eps):
    """The benchmark's clouds, as large as a pooled 480p frame: with fewer points there is less to save."""
    a, b = (points[None] for points in benchmark_clouds(kind, 1560))
    plain = entropic_ot(a, b, eps=eps, tol=1e-3, max_iter=1000, anderson=0, init="zeros")
    fast = entropic_ot(a, b, eps=eps, tol=1e-3, max_iter=1000)
    assert plain.converged.all() and fast.converged.all()
    assert fast.num_iter.item() <= plain.num_iter.item() / 4
    assert relative(fast.grad_a, plain.grad_a) < 3e-2


def test_anderson_halves_the_iterations_to_a_smaller_error_at_a_larger_eps():
    a, b = torch.randn(1, 400, 16), torch.randn(1, 400, 16)
    options = {"eps": 0.05, "eps_mode": "mean_cost", "max_iter": 3000, "tol": 1e-4}
    plain = entropic_ot(a, b, anderson=0, init="zeros", **options)
    fast = entropic_ot(a, b, **options)
    assert plain.converged.all() and fast.converged.all()
    assert fast.num_iter.item() <= plain.num_iter.item() / 2
    assert relative(fast.grad_a, plain.grad_a) < 1e-2


@pytest.mark.parametrize(("scale", "noise", "eps"), [(1.0, 0.1, 0.3), (1.4, 0.1, 0.3)])
def test_the_gaussian_start_saves_iterations_on_related_clouds(scale, noise, eps):
    """Points on a curved sheet, and the same ones moved, stretched and blurred a little."""
    side = torch.linspace(-2, 2, 20)
    place = torch.cartesian_prod(side, side)
    sheet = torch.cat([torch.sin(k * place) for k in (0.5, 1.0, 1.5, 2.0)], 1)[None]
    a = scale * (sheet + noise * torch.randn_like(sheet)) + 0.3
    options = {"eps": eps, "max_iter": 2000}
    gaussian, zeros = (entropic_ot(a, sheet, init=init, **options) for init in ("gaussian", "zeros"))
    assert gaussian.converged.all() and zeros.converged.all()
    assert gaussian.num_iter.item() <= 0.75 * zeros.num_iter.item()


def test_warm_start_from_its_own_potentials_takes_one_pass():
    a, b = clouds()
    first = entropic_ot(a, b, eps=1.0, tol=1e-5, max_iter=3000)
    again = entropic_ot(a, b, eps=1.0, tol=1e-4, init=(first.f, first.g))
    assert (again.num_iter == 1).all()
