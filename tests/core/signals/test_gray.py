"""The gray control against OpenCV, and what every signal refuses."""

import numpy as np
import pytest
import torch

from vdot_core.progress import reporting
from vdot_core.signals import to_gray
from vdot_core.signals.frames import check_frames, map_chunks, spread

cv2 = pytest.importorskip("cv2")


@pytest.mark.parametrize(("weights", "code"), [("bt601", cv2.COLOR_RGB2GRAY), ("vace", cv2.COLOR_BGR2GRAY)])
def test_luma_is_opencvs(weights, code):
    """VACE's annotator applies BGR2GRAY to RGB arrays: "vace" is that call, "bt601" the luma itself."""
    frames = (torch.rand(3, 20, 30, 3) * 255).round()
    expected = np.stack([cv2.cvtColor(frame.numpy().astype(np.uint8), code) for frame in frames])
    gray = to_gray(frames / 255, weights=weights)
    assert gray.shape == frames.shape
    assert torch.equal(gray[..., 0], gray[..., 1]) and torch.equal(gray[..., 0], gray[..., 2])
    assert np.abs(gray[..., 0].numpy() * 255 - expected).max() <= 0.51


def test_the_control_is_vaces_unless_told_otherwise():
    """Saturated blue is where the two differ most: 76 of 255 and not 29."""
    frames = (torch.rand(3, 20, 30, 3) * 255).round()
    frames[0] = torch.tensor([0.0, 0.0, 255.0])
    expected = np.stack(
        [cv2.cvtColor(frame.numpy().astype(np.uint8), cv2.COLOR_BGR2GRAY) for frame in frames]
    )
    assert np.abs(to_gray(frames / 255)[..., 0].numpy() * 255 - expected).max() <= 0.51


def test_weights_differ_only_in_red_and_blue():
    frames = torch.rand(2, 8, 8, 3)
    torch.testing.assert_close(to_gray(frames, weights="vace"), to_gray(frames.flip(-1), weights="bt601"))


def test_half_precision_in_float_out():
    frames = torch.rand(2, 8, 8, 3)
    gray = to_gray(frames.half())
    assert gray.dtype == torch.float32
    torch.testing.assert_close(gray, to_gray(frames), atol=1e-3, rtol=0)


def test_resize_overshoot_is_clamped():
    frames = torch.full((1, 4, 4, 3), 1.05)
    assert float(to_gray(frames).max()) <= 1


def test_bad_clips_are_refused(bad_clip):
    clip, message = bad_clip
    with pytest.raises(ValueError, match=message):
        to_gray(clip)


def test_unknown_weights_are_refused():
    with pytest.raises(ValueError, match="bt601, vace"):
        to_gray(torch.rand(1, 4, 4, 3), weights="rec709")


def test_minimum_length_names_both_numbers():
    with pytest.raises(ValueError, match=r"clip has 1 frame; this needs at least 2"):
        check_frames(torch.rand(1, 4, 4, 3), minimum=2, what="clip")


def test_chunks_cover_every_frame_once():
    calls = []
    frames = torch.rand(7, 4, 4, 3)
    with reporting(lambda count, total: calls.append((count, total))):
        out = map_chunks(lambda chunk: chunk, frames, size=3)
    assert torch.equal(out, frames)
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(("num_frames", "limit"), [(1, 16), (5, 16), (81, 16), (2, 1)])
def test_spread_stays_in_the_clip(num_frames, limit):
    indices = list(spread(num_frames, limit))
    assert len(indices) == len(set(indices)) == min(num_frames, limit)
    assert indices[0] == 0 and all(0 <= index < num_frames for index in indices)
    assert limit == 1 or indices[-1] == num_frames - 1
