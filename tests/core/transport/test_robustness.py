"""Hard inputs: non-finite values, degenerate clouds, offsets, scales, dtypes, chunking, wrong arguments."""

import logging

import pytest
import torch

import vdot_core.transport.gibbs as gibbs_module
import vdot_core.transport.tiling as tiling_module
from vdot_core.transport import entropic_ot

A = torch.Generator().manual_seed(1)


def pair(num=40, frames=3, dims=16):
    return torch.randn(frames, num, dims, generator=A), torch.randn(frames, num, dims, generator=A) + 0.5


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("cost", ["sqeuclidean", "l1"])
def test_a_bad_frame_does_not_spoil_the_batch(bad, cost, caplog):
    a, b = pair()
    clean = entropic_ot(a, b, eps=1.0, cost=cost)
    broken = a.clone()
    broken[1, 3, 5] = bad
    with caplog.at_level(logging.WARNING, "vdot"):
        result = entropic_ot(broken, b, eps=1.0, cost=cost)
    assert result.valid.tolist() == [True, False, True]
    assert result.converged.tolist() == [True, False, True]
    assert (result.grad_a[1] == 0).all() and result.value[1] == 0
    torch.testing.assert_close(result.grad_a[[0, 2]], clean.grad_a[[0, 2]], rtol=0, atol=0)
    assert "1 of 3 frames" in caplog.text


def test_identical_clouds_are_finite_and_unbiased():
    a, _ = pair()
    result = entropic_ot(a, a.clone(), eps=0.05, eps_mode="mean_cost", debias=True)
    assert result.grad_a.isfinite().all()
    assert result.grad_a.norm() < 1e-3 * (2 * a / 40).norm()


@pytest.mark.parametrize("both", [True, False])
def test_constant_clouds(both):
    a, b = pair()
    a = torch.full_like(a, 0.3)
    if both:
        b = a.clone()
    result = entropic_ot(a, b, eps=0.1, eps_mode="mean_cost")
    assert result.grad_a.isfinite().all() and result.converged.all()
    expected = 2 * (a - b.mean(1, keepdim=True)) / 40
    torch.testing.assert_close(result.grad_a, expected, rtol=1e-4, atol=1e-5)


def test_offset_and_scale_do_not_lose_precision():
    a, b = pair()
    plain = entropic_ot(a, b, eps=0.1, eps_mode="mean_cost", tol=1e-5, max_iter=1000)
    offset = entropic_ot(
        (a + 1e3).double(), (b + 1e3).double(), eps=0.1, eps_mode="mean_cost", tol=1e-5, max_iter=1000
    )
    torch.testing.assert_close(offset.grad_a, plain.grad_a, rtol=1e-3, atol=1e-5)
    scaled = entropic_ot(a * 1e4, b * 1e4, eps=0.1, eps_mode="mean_cost", tol=1e-5, max_iter=1000)
    torch.testing.assert_close(scaled.grad_a / 1e4, plain.grad_a, rtol=1e-3, atol=1e-5)


def test_a_tiny_eps_is_floored_and_logged(caplog):
    a, b = pair()
    with caplog.at_level(logging.WARNING, "vdot"):
        result = entropic_ot(a, b, eps=1e-9, eps_mode="mean_cost", max_iter=50)
    assert "eps raised" in caplog.text
    assert result.grad_a.isfinite().all()


def test_bfloat16_is_solved_in_float32():
    a, b = (x.bfloat16() for x in pair())
    low = entropic_ot(a, b, eps=1.0)
    high = entropic_ot(a.float(), b.float(), eps=1.0)
    assert low.f.dtype == low.grad_a.dtype == torch.float32
    torch.testing.assert_close(low.grad_a, high.grad_a, rtol=0, atol=0)


@pytest.mark.parametrize("kept_rows", [0, 130])
@pytest.mark.parametrize("options", [{}, {"debias": True}, {"cost": "l1", "eps": 5.0}])
def test_chunking_does_not_change_the_result(monkeypatch, options, kept_rows):
    """At so many plain iterations: accelerated ones amplify rounding."""
    a, b = pair(num=130)
    options = {"eps": 1.0, "tol": 1e-12, "max_iter": 60, "anderson": 0, **options}
    whole = entropic_ot(a, b, **options)
    monkeypatch.setitem(tiling_module.CHUNK_ELEMENTS, "cpu", 130 * 7)
    monkeypatch.setitem(tiling_module.KEPT_ELEMENTS, "cpu", 130 * kept_rows)
    chunked = entropic_ot(a, b, **options)
    assert (chunked.grad_a - whole.grad_a).norm() < 1e-5 * whole.grad_a.norm()
    torch.testing.assert_close(chunked.value, whole.value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{"eps": 0.2}, {"eps": 0.5, "rho_a": 2.0}, {"eps": 0.3, "debias": True}])
def test_a_kept_kernel_gives_what_a_streamed_one_gives(monkeypatch, options):
    """At a small eps potentials move by hundreds: a kept kernel must notice and be computed again."""
    a, b = pair(num=130)
    options = {**options, "init": "zeros", "tol": 1e-4, "max_iter": 3000}
    stored = entropic_ot(a, b, **options)
    monkeypatch.setitem(tiling_module.KEPT_ELEMENTS, "cpu", 0)
    monkeypatch.setitem(tiling_module.CHUNK_ELEMENTS, "cpu", 130 * 20)
    streamed = entropic_ot(a, b, **options)
    assert stored.converged.all() and streamed.converged.all()
    scale = streamed.grad_a.abs().max().item()
    torch.testing.assert_close(stored.grad_a, streamed.grad_a, rtol=0, atol=2e-3 * scale)
    torch.testing.assert_close(stored.value, streamed.value, rtol=1e-4, atol=1e-4)


def test_a_kept_kernel_costs_no_exponential(monkeypatch):
    computed = []
    exponents = gibbs_module.Exponents.chunk
    monkeypatch.setattr(gibbs_module.Exponents, "chunk", lambda *x: computed.append(1) or exponents(*x))
    a, b = pair(frames=1)
    result = entropic_ot(a, b, eps=5.0, tol=1e-9, max_iter=30)
    assert result.num_iter.item() == 30 and len(computed) <= 3


def test_frames_are_independent():
    a, b = pair()
    together = entropic_ot(a, b, eps=1.0, tol=1e-5, max_iter=500)
    for frame in range(3):
        alone = entropic_ot(a[frame : frame + 1], b[frame : frame + 1], eps=1.0, tol=1e-5, max_iter=500)
        torch.testing.assert_close(together.grad_a[frame : frame + 1], alone.grad_a, rtol=1e-5, atol=1e-7)


def test_no_gradient_graph_is_kept():
    a, b = pair()
    assert not entropic_ot(a.requires_grad_(), b, eps=1.0).grad_a.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": torch.zeros(3, 40)}, "expected \\[F, I, D\\]"),
        ({"b": torch.zeros(2, 40, 16)}, "same F and D"),
        ({"b": torch.zeros(3, 0, 16)}, "expected \\[F, I, D\\]"),
        ({"a": torch.zeros(3, 40, 16, dtype=torch.long)}, "floating-point"),
        ({"eps": 0.0}, "eps is 0.0"),
        ({"eps": float("nan")}, "eps is nan"),
        ({"rho_a": -1.0}, "rho_a is -1.0"),
        ({"cost": "cosine"}, "expected one of sqeuclidean, l1"),
        ({"eps_mode": "median"}, "expected one of absolute, mean_cost"),
        ({"init": "random"}, "init is 'random'"),
        ({"weights_a": torch.ones(3, 41)}, "weights_a has shape"),
        ({"weights_b": -torch.ones(40)}, "finite and positive"),
        ({"anderson": -1}, "anderson is -1"),
    ],
)
def test_wrong_arguments_are_refused_with_the_cure(change, message):
    a, b = pair()
    with pytest.raises(ValueError, match=message):
        entropic_ot(**{"a": a, "b": b, "eps": 1.0, **change})


def _unit_cube(seed, *, frames=6, num_a=40, num_b=50):
    """Points in the unit cube of R^5 with random weights: nothing converges at a tiny eps."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(frames, num, 5, generator=generator) for num in (num_a, num_b))
    weights_a, weights_b = (torch.rand(frames, n, generator=generator) + 0.01 for n in (num_a, num_b))
    return a, b, {"weights_a": weights_a, "weights_b": weights_b}


@pytest.mark.parametrize("cost", ["sqeuclidean", "l1"])
@pytest.mark.parametrize("eps", [1e-6, 1e-4, 1e-3])
def test_acceleration_never_ends_worse_than_plain_iterations(eps, cost):
    """Nor in a gradient beyond its bound, the mass of a point times the slope of its cost."""
    for seed in range(2):
        a, b, weights = _unit_cube(seed)
        options = {"eps": eps, "max_iter": 60, "cost": cost, **weights}
        fast, plain = (entropic_ot(a, b, anderson=memory, **options) for memory in (8, 0))
        assert fast.valid.all() and not fast.converged.any(), "the case is meant to be a hard one"
        assert (fast.marginal_error <= plain.marginal_error + 1e-6).all()
        mass = weights["weights_a"] / weights["weights_a"].sum(-1, keepdim=True)
        slope = 2 * torch.cdist(a, b).amax(-1) if cost == "sqeuclidean" else 5**0.5
        assert (fast.grad_a.norm(dim=-1) <= 1.5 * slope * mass).all()


def test_frames_that_acceleration_solves_take_no_further_passes():
    """In a batch with one that it does not solve; their results are those of a batch without it."""
    a, b, _ = _unit_cube(0, frames=3)
    a[1] *= 1e-3  # far denser than the cost's scale: not solved in so few iterations
    a[1, 0] = 1
    options = {"eps": 0.05, "eps_mode": "mean_cost", "max_iter": 40}
    together = entropic_ot(a, b, **options)
    easy = [0, 2]
    alone = entropic_ot(a[easy], b[easy], **options)
    assert together.converged[easy].all()
    for name in ("grad_a", "f", "g", "num_iter", "value"):
        torch.testing.assert_close(getattr(together, name)[easy], getattr(alone, name), rtol=1e-5, atol=1e-6)


def test_a_solution_that_is_not_finite_is_marked_and_zero(monkeypatch):
    from vdot_core.transport.sinkhorn import SinkhornStep

    gradient, frames = SinkhornStep.gradient, []

    def overflowing(self, f, g):
        """The second frame's is not finite; frames are solved one by one."""
        result = gradient(self, f, g)
        frames.extend(result)
        return result * float("nan") if len(frames) == 2 else result

    monkeypatch.setattr(SinkhornStep, "gradient", overflowing)
    a, b, _ = _unit_cube(0, frames=3)
    result = entropic_ot(a, b, eps=0.1)
    assert len(frames) == 3
    assert result.valid.tolist() == [True, False, True] == result.converged.tolist()
    assert (result.grad_a[1] == 0).all() and (result.grad_a[0] != 0).any()
