"""The distillation's losses: closed forms, gradients by autograd, and toy problems whose optimum is known."""

import pytest
import torch
import torch.nn.functional as F

from vdot_core.distill import (
    add_noise,
    approximate_gradient_penalty,
    dmd_gradient,
    flow_matching_loss,
    gan_losses,
    matching_loss,
    otd_gradient,
    predict_x0,
    sample_timestep,
)
from vdot_core.sampling import guided

SHAPE = (2, 16, 3, 4, 6)


def latents(count=3):
    return [torch.randn(SHAPE) for _ in range(count)]


def test_matching_loss_passes_exactly_the_gradient_on():
    sample, gradient, _ = latents()
    sample.requires_grad_()
    matching_loss(sample, gradient).backward()
    torch.testing.assert_close(sample.grad, gradient / gradient.numel())


def test_dmd_points_from_the_real_to_the_fake_prediction():
    sample, fake, real = latents()
    plain = dmd_gradient(sample, fake, real, weighting="none").gradient
    torch.testing.assert_close(plain, fake - real)
    weighted = dmd_gradient(sample, fake, real).gradient
    for index in range(2):
        mean = (sample[index] - real[index]).abs().mean()
        torch.testing.assert_close(weighted[index], (fake[index] - real[index]) / mean)
    timestep = torch.tensor([250.0, 900.0])
    by_time = dmd_gradient(sample, fake, real, weighting="timestep", timestep=timestep).gradient
    torch.testing.assert_close(by_time[1], 0.9 * (fake[1] - real[1]))


def test_the_summed_loss_is_of_one_sample_s_elements():
    sample, gradient, _ = latents()
    loss = matching_loss(sample, gradient, 1, "sum")
    torch.testing.assert_close(loss, 0.5 * gradient[:, :, 1:].square().sum() / len(sample))


def test_otd_equals_dmd_where_the_plan_is_the_identity_and_not_elsewhere():
    sample, real, _ = latents()
    fake = real + 0.05 * torch.randn(SHAPE)
    options = {"eps": 0.01, "tol": 1e-4, "max_iter": 2000}
    near = otd_gradient(sample, fake, real, normalized=False, **options)
    torch.testing.assert_close(near.gradient, fake - real, rtol=0, atol=1e-3)
    assert near.transport.converged.all()
    # Positions exchanged within a frame are no cost to transport, and a large one to DMD.
    moved = otd_gradient(sample, fake.flip(-1), real, normalized=False, **options)
    assert moved.gradient.norm() < 0.1 * (fake.flip(-1) - real).norm()


def test_otd_has_the_units_and_the_normalizer_of_dmd():
    sample, real, _ = latents()
    fake = real + 0.05 * torch.randn(SHAPE)
    options = {"eps": 0.01, "tol": 1e-4, "max_iter": 2000}
    otd = otd_gradient(sample, fake, real, **options).gradient
    torch.testing.assert_close(otd, dmd_gradient(sample, fake, real).gradient, rtol=0, atol=1e-3)


def test_frames_are_transported_apart():
    sample, fake, real = latents()
    options = {"eps": 1.0, "tol": 1e-5, "max_iter": 2000}
    whole = otd_gradient(sample, fake, real, normalized=False, **options).gradient
    one = otd_gradient(*(x[:, :, 1:2] for x in (sample, fake, real)), normalized=False, **options).gradient
    torch.testing.assert_close(whole[:, :, 1:2], one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gradient_of", [dmd_gradient, lambda *a, **k: otd_gradient(*a, eps=1.0, **k)])
def test_references_are_left_alone(gradient_of):
    sample, fake, real = latents()
    with_reference = gradient_of(sample, fake, real, num_reference_latents=1).gradient
    without = gradient_of(sample[:, :, 1:], fake[:, :, 1:], real[:, :, 1:]).gradient
    assert (with_reference[:, :, :1] == 0).all()
    torch.testing.assert_close(with_reference[:, :, 1:], without)
    sample.requires_grad_()
    whole = gradient_of(sample.detach(), fake, real, num_reference_latents=1)
    loss = matching_loss(sample, whole, num_reference_latents=1)
    torch.testing.assert_close(loss, matching_loss(sample[:, :, 1:], without))
    (gradient,) = torch.autograd.grad(loss, sample)
    assert (gradient[:, :, :1] == 0).all()


@pytest.mark.parametrize("pool", [2, 3, 9])
@pytest.mark.parametrize("method", ["envelope", "unrolled"])
def test_pooling_gives_each_window_one_gradient(pool, method):
    """Windows at the edge are smaller; the mean of each is one point of the cloud."""
    sample, fake, real = (torch.randn(1, 16, 2, 4, 5) for _ in range(3))
    options = {"eps": 1.0, "tol": 1e-5, "max_iter": 50, "method": method}
    gradient = otd_gradient(sample, fake, real, pool=pool, **options).gradient
    for top in range(0, 4, pool):
        for left in range(0, 5, pool):
            window = gradient[..., top : top + pool, left : left + pool].flatten(3)
            torch.testing.assert_close(window, window[..., :1].expand_as(window))
    if method == "envelope":
        window = min(pool, 4), min(pool, 5)
        small = [F.avg_pool2d(x[0].transpose(0, 1), window, ceil_mode=True) for x in (fake, real)]
        small = [x.transpose(0, 1)[None] for x in small]
        options |= {"normalized": False}
        expected = otd_gradient(small[0], *small, **options).gradient
        whole = otd_gradient(sample, fake, real, pool=pool, **options).gradient
        torch.testing.assert_close(whole[..., ::pool, ::pool], expected)


def test_identical_predictions_give_no_push():
    sample, fake, _ = latents()
    assert (dmd_gradient(fake, fake, fake).gradient == 0).all()
    debiased = otd_gradient(fake, fake, fake, eps=0.05, eps_mode="mean_cost", debias=True).gradient
    biased = otd_gradient(sample, fake, fake, eps=0.05, eps_mode="mean_cost").gradient
    assert debiased.isfinite().all() and biased.isfinite().all()


def test_descending_the_transport_gradient_matches_the_clouds():
    real = torch.randn(1, 2, 1, 6, 6) + 3
    sample = torch.randn(1, 2, 1, 6, 6)
    start = (sample.mean() - real.mean()).abs()
    for _ in range(60):
        sample = sample - 0.2 * otd_gradient(sample, sample, real, normalized=False, eps=0.2).gradient
    assert (sample.mean() - real.mean()).abs() < 0.02 * start
    matched = torch.cdist(sample.flatten(2)[0].T, real.flatten(2)[0].T).min(1).values
    assert matched.mean() < 0.3


def test_gan_losses_are_relativistic():
    real, fake = torch.randn(5), torch.randn(5)
    losses = gan_losses(real, fake)
    torch.testing.assert_close(losses.generator, F.softplus(-(fake - real)).mean())
    torch.testing.assert_close(losses.discriminator, F.softplus(-(real - fake)).mean())
    shifted = gan_losses(real + 7, fake + 7)
    torch.testing.assert_close(shifted.generator, losses.generator)
    linear = gan_losses(real, fake, form="linear")
    torch.testing.assert_close(linear.generator, (real - fake).mean())
    assert linear.discriminator == -linear.generator


def test_gradient_penalty_approximates_the_gradient_norm():
    weight = torch.randn(16)
    discriminate = lambda x: torch.einsum("bcthw,c->b", x, weight)  # noqa: E731
    x = torch.randn(4000, 16, 1, 1, 1)
    penalty = approximate_gradient_penalty(discriminate, x, discriminate(x), sigma=0.01)
    torch.testing.assert_close(penalty / 0.01**2, weight.square().sum(), rtol=0.1, atol=0)


def test_noise_velocity_and_prediction_agree():
    x0, noise, _ = latents()
    timestep = torch.tensor([120.5, 870.25])
    x = add_noise(x0, noise, timestep)
    torch.testing.assert_close(predict_x0(x, noise - x0, timestep), x0, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        add_noise(x0, noise, torch.tensor([0.0, 1000.0])), torch.stack([x0[0], noise[1]])
    )
    assert flow_matching_loss(noise - x0, x0, noise) == 0
    off = noise - x0
    off[:, :, 0] += 1
    assert flow_matching_loss(off, x0, noise, num_reference_latents=1) == 0
    torch.testing.assert_close(flow_matching_loss(off, x0, noise), torch.tensor(1 / 3))


def test_guidance_and_timesteps():
    conditional, unconditional, _ = latents()
    torch.testing.assert_close(guided(conditional, unconditional, 1.0), conditional)
    torch.testing.assert_close(guided(conditional, unconditional, 3.0), 3 * conditional - 2 * unconditional)
    timestep = sample_timestep(20_000, shift=5, low=20, high=980)
    assert timestep.min() >= 20 and timestep.max() <= 980
    # The median of the uniform draw, 1/2, is shifted to 5/6.
    assert timestep.median().item() == pytest.approx(1000 * 5 / 6, rel=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, b, c: dmd_gradient(a, b, c[:1]), "expected one shape"),
        (lambda a, b, c: dmd_gradient(a, b, c, weighting="time"), "weighting is 'time'"),
        (lambda a, b, c: dmd_gradient(a, b, c, weighting="timestep"), "needs the timestep"),
        (lambda a, b, c: dmd_gradient(a, b, c, num_reference_latents=3), "at least one frame"),
        (lambda a, b, c: otd_gradient(a, b, c, eps=-1), "eps is -1"),
        (lambda a, b, c: otd_gradient(a, b, c, eps=1, method="unrolled", debias=True), "ignores eps_mode"),
        (lambda a, b, c: otd_gradient(a, b, c, eps=1, method="exact"), "method is 'exact'"),
        (lambda a, b, c: matching_loss(a, b, reduction="max"), "reduction is 'max'"),
        (lambda a, b, c: gan_losses(a[0, 0, 0, 0], b[:1, 0, 0, 0, 0]), "need pairs"),
        (lambda a, b, c: gan_losses(a, b, form="hinge"), "form is 'hinge'"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(*latents())


def test_frames_whose_transport_did_not_converge_do_not_steer():
    """The others' gradients are what they are alone, and the result counts the frames."""
    fake, real = torch.randn(2, 4, 3, 6, 6), torch.randn(2, 4, 3, 6, 6)
    # Equal up to a shift: solved by the start. The other frames are not, in one pass.
    fake[0, :, 1], fake[1, :, 2] = real[0, :, 1] + 0.5, real[1, :, 2] - 0.5
    options = {"eps": 1e-3, "eps_mode": "mean_cost", "max_iter": 1, "tol": 1e-2}
    result = otd_gradient(fake, fake, real, **options)
    converged = result.transport.converged.view(2, 3)
    assert converged.tolist() == [[False, True, False], [False, False, True]]
    gradient = result.gradient.transpose(1, 2)
    assert (gradient[~converged] == 0).all() and (gradient[converged].abs() > 0).any()
    solved = otd_gradient(fake, fake, real, **{**options, "eps": 0.1, "max_iter": 3000})
    assert solved.transport.converged.all() and (solved.gradient != 0).flatten(3).any(-1).all()
