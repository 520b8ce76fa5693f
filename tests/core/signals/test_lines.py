"""Line drawings of shapes whose contours are known."""

from functools import partial

import pytest
import torch

from vdot_core.signals import draw_lines

bright_lines = partial(draw_lines, dark_on_white=False)


def disc(*, center=(32.0, 32.0), radius=18.0, size=64, contrast=0.8, level=0.1) -> torch.Tensor:
    """An antialiased disc [H, W, 3] and nothing else."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    distance = ((x - center[0]) ** 2 + (y - center[1]) ** 2).sqrt()
    return (level + contrast * (radius - distance + 0.5).clamp(0, 1)).unsqueeze(-1).expand(-1, -1, 3)


def radii(size=64, center=(32.0, 32.0)) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return ((x - center[0]) ** 2 + (y - center[1]) ** 2).sqrt()


def test_draws_the_outline_and_nothing_else():
    lines = bright_lines(disc().unsqueeze(0))[0, ..., 0]
    away = (radii() - 18).abs()
    assert float(lines[away > 4].max()) == 0
    for angle in torch.linspace(0, 2 * torch.pi, 73):  # closed: there is ink all around the circle
        x, y = int(32 + 18 * torch.cos(angle)), int(32 + 18 * torch.sin(angle))
        assert float(lines[y - 1 : y + 3, x - 1 : x + 3].max()) > 0.6


@pytest.mark.parametrize("thickness", [1.5, 3.0, 6.0])
def test_line_width_is_the_thickness(thickness):
    frames = torch.zeros(1, 48, 96, 3)
    frames[:, :, 48:] = 0.9
    lines = bright_lines(frames, thickness=thickness)[0, 24, :, 0]
    assert float(lines.max()) == pytest.approx(1, abs=0.01)
    assert float(lines.sum()) == pytest.approx(
        thickness, rel=0.25
    )  # area of the profile: about its half-height width


def test_dark_on_white_is_the_negative():
    frames = disc().unsqueeze(0)
    torch.testing.assert_close(draw_lines(frames), 1 - bright_lines(frames))


def test_higher_threshold_draws_less():
    frames = torch.stack([disc(contrast=c) for c in (0.05, 0.2, 0.8)])
    ink = [float(bright_lines(frames, threshold=t).sum()) for t in (0.05, 0.3, 0.9)]
    assert ink[0] > ink[1] > ink[2] > 0


def test_softness_grades_weak_edges():
    """At softness 0 lines are all or nothing; at 1 a weaker edge is drawn weaker."""
    frames = torch.stack([disc(contrast=0.8), disc(contrast=0.3)])
    hard = bright_lines(frames, threshold=0.3, softness=0.0).flatten(1).amax(1)
    soft = bright_lines(frames, threshold=0.3, softness=1.0).flatten(1).amax(1)
    assert hard.tolist() == pytest.approx([1, 1], abs=0.02)
    assert float(soft[0]) > 0.95 and 0.1 < float(soft[1]) < 0.9


def test_one_threshold_for_the_entire_clip():
    """A frame is drawn the same at any position: a faint frame among strong ones is not amplified."""
    faint, strong = disc(contrast=0.1), disc(contrast=0.8)
    together = bright_lines(torch.stack([strong, faint, strong, faint]))
    assert torch.equal(together[1], together[3]) and torch.equal(together[0], together[2])
    assert float(together[1].max()) < 0.1 < float(bright_lines(faint.unsqueeze(0)).max())


def test_exposure_does_not_matter():
    """Halving the clip's contrast does not change the drawing: the threshold is relative to the clip."""
    bright = torch.stack([disc(contrast=0.8, radius=r) for r in (14.0, 18.0)])
    torch.testing.assert_close(bright_lines(bright), bright_lines(bright / 2), atol=0.02, rtol=0)


def test_flat_and_noisy_flat_clips_stay_black():
    assert float(bright_lines(torch.full((2, 32, 32, 3), 0.4)).max()) == 0
    noise = 0.4 + torch.randn(2, 64, 64, 3) * 0.5 / 255
    assert float(bright_lines(noise).mean()) < 0.01


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (9, 3), (33, 17)])
def test_any_size(size):
    assert bright_lines(torch.rand(1, *size, 3)).shape == (1, *size, 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [("threshold", 0), ("threshold", 1.5), ("thickness", 0.5), ("softness", -0.1), ("blur", 0)],
)
def test_bad_parameters_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        bright_lines(torch.rand(1, 8, 8, 3), **{name: value})


def test_bad_clips_are_refused(bad_clip):
    clip, message = bad_clip
    with pytest.raises(ValueError, match=message):
        bright_lines(clip)
