"""The transport's gradient pulled back through the fake score: by autograd, differences and a closed form."""

import pytest
import torch

from vdot_core.distill import MatchingGradient, add_noise, otd_gradient, predict_x0, through_score
from vdot_core.transport import entropic_ot

SHAPE = (2, 4, 3, 3, 4)
TIMESTEP = torch.tensor([250.0, 700.0])


class Score(torch.nn.Module):
    """A velocity in which every latent frame sees its neighbors, as attention would let it."""

    def __init__(self):
        super().__init__()
        self.first, self.last = (torch.nn.Conv3d(4, 4, 3, padding=1) for _ in range(2))

    def forward(self, x):
        return self.last(torch.tanh(self.first(x)))


def noised(sample, noise):
    return add_noise(sample, noise, TIMESTEP)


def test_equals_autograd_from_the_sample():
    score, sample, noise = Score(), torch.randn(SHAPE, requires_grad=True), torch.randn(SHAPE)
    gradient = torch.randn(SHAPE)
    x = noised(sample, noise)
    (expected,) = torch.autograd.grad((predict_x0(x, score(x), TIMESTEP) * gradient).sum(), sample)
    x_t = x.detach().requires_grad_()
    fake = predict_x0(x_t, score(x_t), TIMESTEP)
    got = through_score(MatchingGradient(gradient), fake, x_t, TIMESTEP)
    torch.testing.assert_close(got.gradient, expected)
    assert all(parameter.grad is None for parameter in score.parameters())
    assert not got.gradient.requires_grad


def test_is_the_slope_of_the_transport_cost():
    """Central differences of the transport's own value along a direction of the sample."""
    score, sample, noise, real = Score(), *(torch.randn(SHAPE) for _ in range(3))
    options = {"eps": 1.0, "tol": 1e-6, "max_iter": 2000}

    def value(x0):
        with torch.no_grad():
            x = noised(x0, noise)
            fake = predict_x0(x, score(x), TIMESTEP)
        clouds = [y.permute(0, 2, 3, 4, 1).reshape(6, 12, 4) for y in (fake, real)]
        return entropic_ot(*clouds, **options).value.double().sum() * 12 / 2

    x_t = noised(sample, noise).requires_grad_()
    fake = predict_x0(x_t, score(x_t), TIMESTEP)
    stopped = otd_gradient(sample, fake, real, normalized=False, **options)
    passed = through_score(stopped, fake, x_t, TIMESTEP)
    direction = passed.gradient / passed.gradient.norm()
    slope = (value(sample + 0.02 * direction) - value(sample - 0.02 * direction)) / 0.04
    assert slope.item() == pytest.approx((passed.gradient * direction).sum().item(), rel=2e-3)
    assert passed.transport is stopped.transport
    # Stopping at the prediction points elsewhere.
    assert torch.cosine_similarity(stopped.gradient.flatten(), passed.gradient.flatten(), dim=0) < 0.99


def test_a_gaussian_score_scales_it():
    # Data N(0, s^2) has the prediction c x_t with c = (1 - sigma) s^2 / ((1 - sigma)^2 s^2 + sigma^2).
    x_t, gradient, variance = torch.randn(SHAPE, requires_grad=True), torch.randn(SHAPE), 1.7
    sigma = (TIMESTEP / 1000).view(-1, 1, 1, 1, 1)
    slope = (1 - sigma) * variance / ((1 - sigma) ** 2 * variance + sigma**2)
    got = through_score(MatchingGradient(gradient), slope * x_t, x_t, TIMESTEP).gradient
    torch.testing.assert_close(got, (1 - sigma) * slope * gradient)


def test_references_get_nothing_and_give_nothing():
    score, sample, real = Score(), torch.randn(SHAPE), torch.randn(SHAPE)
    x_t = torch.randn(SHAPE, requires_grad=True)
    fake = predict_x0(x_t, score(x_t), TIMESTEP)
    stopped = otd_gradient(sample, fake, real, eps=1.0, num_reference_latents=1)
    got = through_score(stopped, fake, x_t, TIMESTEP, num_reference_latents=1).gradient
    assert (got[:, :, :1] == 0).all() and got[:, :, 1:].abs().min() > 0


@pytest.mark.parametrize("case", ["no graph", "another tensor"])
def test_a_prediction_without_its_graph_is_refused(case):
    x_t = torch.randn(SHAPE, requires_grad=True)
    fake = x_t.detach() if case == "no graph" else torch.randn(SHAPE, requires_grad=True) * 2
    with pytest.raises(ValueError, match=r"fake score|depend on x_t"):
        through_score(MatchingGradient(torch.randn(SHAPE)), fake, x_t, TIMESTEP)
