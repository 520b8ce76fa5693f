"""Properties of depth normalization and of the flicker measure."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdot_core.signals import cut_frames, flicker, normalize_depth

from .conftest import textured

MODES = ["frame", "clip", "stable"]


def scene(num_frames=16, height=48, width=64, *, mover=True) -> torch.Tensor:
    """A static room in disparity [F, H, W], with a near ball that crosses it."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    room = y / height + 0.3 * textured(height, width)[..., 0]
    frames = room.repeat(num_frames, 1, 1)
    if mover:
        for index, frame in enumerate(frames):
            ball = ((x - index * width / num_frames) ** 2 + (y - height / 2) ** 2) < 8**2
            frame[ball] = 2.2
    return frames


def jittered(clip: torch.Tensor, seed=0) -> torch.Tensor:
    """As from a frame-by-frame estimator: each frame with its own scale and shift."""
    generator = torch.Generator().manual_seed(seed)
    scale = 1 + 0.2 * torch.randn(len(clip), 1, 1, generator=generator).clamp(-2, 2)
    return clip * scale + 0.3 * torch.randn(len(clip), 1, 1, generator=generator)


def test_frame_mode_is_the_annotators_formula():
    depth = torch.randn(4, 9, 11) * 7 + 3
    low, high = depth.amin((1, 2), keepdim=True), depth.amax((1, 2), keepdim=True)
    expected = ((depth - low) / (high - low)).unsqueeze(-1).expand(-1, -1, -1, 3)
    torch.testing.assert_close(normalize_depth(depth), expected, atol=1e-6, rtol=0)


def test_clip_mode_uses_the_clips_percentiles():
    depth = scene()
    low, high = torch.quantile(depth.flatten(), torch.tensor([0.01, 0.99])).tolist()
    expected = ((depth - low) / (high - low)).clamp(0, 1)
    torch.testing.assert_close(normalize_depth(depth, mode="clip")[..., 0], expected, atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(
    mode=st.sampled_from(MODES),
    scale=st.floats(0.01, 1000),
    shift=st.floats(-100, 100),
)
def test_scale_and_shift_of_the_clip_do_not_matter(mode, scale, shift):
    depth = scene(6).double()
    changed = (depth * scale + shift * scale).float()
    torch.testing.assert_close(
        normalize_depth(changed, mode=mode), normalize_depth(depth.float(), mode=mode), atol=2e-3, rtol=0
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("values", ["disparity", "depth", "metric"])
def test_near_is_bright(mode, values):
    disparity = scene(5) + 0.5
    given_depth = {"disparity": disparity, "depth": 5 - disparity, "metric": 1 / disparity}[values]
    video = normalize_depth(given_depth, mode=mode, values=values)
    assert video.shape == (5, 48, 64, 3)
    assert 0 <= float(video.min()) and float(video.max()) <= 1
    near, far = disparity > disparity.quantile(0.9), disparity < disparity.quantile(0.1)
    assert float(video[..., 0][near].min()) > float(video[..., 0][far].max())
    torch.testing.assert_close(video, normalize_depth(disparity, mode=mode), atol=2e-3, rtol=0)


@pytest.mark.parametrize("mode", ["frame", "stable"])
@pytest.mark.parametrize("seed", range(3))
def test_flicker_decreases(mode, seed):
    depth = jittered(scene(), seed)
    before, after = flicker(depth), flicker(normalize_depth(depth, mode=mode))
    assert before > 0.05
    assert after < (0.25 if mode == "stable" else 0.7) * before


@pytest.mark.parametrize("seed", range(5))
def test_stable_mode_restores_the_still_room(seed):
    """Scale and shift jitter go, and the ball that crosses the room does not drag its brightness along."""
    clip = scene()
    steady = normalize_depth(jittered(clip, seed), mode="stable")
    still = clip[0] == clip.median(0).values
    for frame in clip:
        still &= frame == clip.median(0).values
    changes = (steady[1:] - steady[:-1])[..., 0].abs()[:, still]
    assert float(changes.mean()) < 0.01
    assert float(steady.flatten(1).std(1).min()) > 0.15  # not by washing the contrast out


def test_stable_mode_survives_a_flat_sky():
    """Most pixels at one value fix the shift only: the scale must come from the rest, which moves."""
    clip = scene(24)
    clip[:, :30] = 0
    generator = torch.Generator().manual_seed(5)
    clip[:, 30:] += 0.01 * torch.randn(24, 18, 64, generator=generator)
    steady = normalize_depth(jittered(clip), mode="stable")[..., 0]
    ground = steady[:, 44:, :].mean(dim=(1, 2))
    assert float((ground[1:] - ground[:-1]).abs().mean()) < 0.01
    assert float(ground.min()) > 0.2 > 0.1 > float(steady[:, :30].max())


def test_stable_mode_does_not_lose_contrast_over_a_long_noisy_clip():
    """With one range for all, a fit that shrinks a little every frame would show."""
    depth = jittered(scene(90, 24, 32)) + 0.05 * torch.randn(90, 24, 32)
    spread = normalize_depth(depth, mode="stable", window=1e4).flatten(1).std(1)
    assert float(spread[-10:].mean()) == pytest.approx(float(spread[:10].mean()), rel=0.15)


def test_frame_mode_pumps_when_something_near_comes_in_and_stable_does_not():
    clip = scene()
    clip[:8] = scene(mover=False)[:8]
    pumping, steady = normalize_depth(clip, mode="frame"), normalize_depth(clip, mode="stable", window=8.0)
    corner = (slice(None), slice(40, 48), slice(0, 4), 0)
    jump = [float((video[corner][8] - video[corner][7]).abs().mean()) for video in (pumping, steady)]
    assert jump[0] > 0.2 and jump[1] < 0.25 * jump[0]


def test_cuts_are_found_and_restart_the_range():
    first, second = scene(6, mover=False), 40 + 9 * scene(6, mover=False).flip(1)
    clip = torch.cat([first, second])
    assert cut_frames(clip) == [6]
    assert cut_frames(first) == [] and cut_frames(jittered(scene())) == []
    video = normalize_depth(clip, mode="stable")
    torch.testing.assert_close(video[:6], normalize_depth(first, mode="stable"))
    torch.testing.assert_close(video[6:], normalize_depth(second, mode="stable"), atol=1e-4, rtol=0)


def test_flicker_has_the_unit_it_says():
    """A still scene whose brightness steps by 1 % of the contrast every frame flickers by 0.01."""
    still = scene(9, mover=False)
    low, high = still.flatten().quantile(torch.tensor([0.01, 0.99]))
    steps = torch.tensor([0.0, 1.0] * 4 + [0.0]).view(-1, 1, 1)
    stepped = still + 0.01 * (high - low) * steps
    assert flicker(still) == 0
    assert flicker(stepped) == pytest.approx(0.01, rel=0.05)
    assert flicker(stepped * 3 + 8) == pytest.approx(flicker(stepped), rel=1e-3)
    assert flicker(stepped, guide=torch.rand(1, 48, 64, 3).expand(9, -1, -1, -1)) == pytest.approx(
        0.01, rel=0.05
    )


def test_motion_is_not_flicker():
    """Where the scene itself moves, the guide says so; without one, the trimmed fit leaves the mover out."""
    clip = scene()
    assert flicker(clip) < 0.002
    assert flicker(clip, guide=clip.unsqueeze(-1).expand(-1, -1, -1, 3) / 3) < 1e-6
    assert flicker(clip[:1]) == 0 and flicker(torch.ones(4, 8, 8)) == 0


@pytest.mark.parametrize("layout", ["[F,H,W]", "[F,H,W,1]", "[F,H,W,3]"])
def test_layouts_agree(layout):
    depth = scene(3)
    shaped = {
        "[F,H,W]": depth,
        "[F,H,W,1]": depth[..., None],
        "[F,H,W,3]": depth[..., None].expand(-1, -1, -1, 3),
    }
    for mode in MODES:
        assert torch.equal(normalize_depth(shaped[layout], mode=mode), normalize_depth(depth, mode=mode))


@pytest.mark.parametrize("mode", MODES)
def test_no_relief_is_black_and_never_nan(mode):
    clip = torch.cat([torch.full((2, 8, 8), 3.0), scene(2, 8, 8, mover=False), torch.full((1, 8, 8), -1.0)])
    video = normalize_depth(clip, mode=mode)
    assert torch.isfinite(video).all()
    assert float(normalize_depth(torch.full((2, 8, 8), 3.0), mode=mode).max()) == 0


@pytest.mark.parametrize(
    ("depth", "options", "message"),
    [
        (torch.rand(4, 4), {}, r"\[F, H, W\]"),
        (torch.rand(2, 4, 4, 4), {}, "without alpha"),
        (torch.rand(0, 4, 4), {}, "empty"),
        (torch.rand(2, 4, 4).log().mul(0).div(0), {}, "NaN"),
        (torch.zeros(2, 4, 4, dtype=torch.int32), {}, "int32 numbers, expected float"),
        (torch.rand(2, 8, 8, 3), {}, "heat map"),
        (torch.rand(2, 4, 4), {"mode": "video"}, "'frame', 'clip' or 'stable'"),
        (torch.rand(2, 4, 4), {"values": "inverse"}, "'disparity', 'depth' or 'metric'"),
        (torch.rand(2, 4, 4) - 0.5, {"values": "metric"}, "distances must be above 0"),
        (torch.rand(2, 4, 4), {"percentiles": (60.0, 40.0)}, "low < high"),
        (torch.rand(2, 4, 4), {"mode": "stable", "window": 0.0}, "window is 0.0"),
    ],
)
def test_bad_input_is_refused(depth, options, message):
    with pytest.raises(ValueError, match=message):
        normalize_depth(depth, **options)


def test_a_stray_colored_pixel_is_no_heat_map():
    depth = torch.rand(5, 16, 16, 1).expand(-1, -1, -1, 3).clone()
    depth[2, 3, 4, 0] += 8 / 255
    torch.testing.assert_close(normalize_depth(depth), normalize_depth(depth.mean(-1)))


def test_guide_of_another_size_is_refused():
    with pytest.raises(ValueError, match="same size"):
        flicker(torch.rand(3, 8, 8), guide=torch.rand(3, 8, 9, 3))
