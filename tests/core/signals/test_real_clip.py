"""Every signal on a real 480p clip of 81 frames: right shape, real content, bounded memory."""

import pytest
import torch

from vdot_core.progress import reporting
from vdot_core.signals import draw_lines, flicker, flow_video, luma, normalize_depth, to_gray

pytest.importorskip("cv2")


def test_gray(real_clip, peak_mib):
    output = real_clip.numel() * 4 / 2**20
    assert peak_mib(lambda: to_gray(real_clip)) < output + 120
    assert float((to_gray(real_clip[:4]).mean(-1) - luma(real_clip[:4], "vace")).abs().max()) < 1e-6


def test_lines(real_clip, peak_mib):
    clip = real_clip[:24]
    output = clip.numel() * 4 / 2**20
    assert peak_mib(lambda: draw_lines(clip)) < output + 320
    lines = draw_lines(clip, dark_on_white=False)
    assert 0.01 < float(lines.mean()) < 0.2
    per_frame = lines.mean(dim=(1, 2, 3))
    assert float((per_frame[1:] - per_frame[:-1]).abs().max()) < 0.2 * float(per_frame.mean())


@pytest.mark.parametrize("scale", ["frame", "clip"])
def test_flow(real_clip, peak_mib, scale):
    clip = real_clip[32:44]
    output = clip.numel() * 4 / 2**20
    flow_mib = output * 2 / 3 if scale == "clip" else 0  # the flows wait for the clip's longest vector
    counts = []

    def run():
        with reporting(lambda count, total: counts.append(count)):
            video = flow_video(clip, preset="ultrafast", scale=scale)
        assert video.frames.shape == clip.shape
        assert max(video.peak_px) > 5  # boxers
        assert 0.3 < float(video.frames.mean()) < 0.99

    assert peak_mib(run) < output + flow_mib + 150
    assert counts == list(range(1, 12))


def test_depth(real_clip, peak_mib):
    """The clip's luma stands in for disparity; each frame gets its own scale and shift."""
    disparity = luma(real_clip[:40])
    generator = torch.Generator().manual_seed(0)
    scale = 1 + 0.2 * torch.rand(40, 1, 1, generator=generator)
    jittered = disparity * scale + 0.2 * torch.randn(40, 1, 1, generator=generator)
    output = 3 * jittered.numel() * 4 / 2**20
    results = {}
    peak = peak_mib(lambda: results.update(video=normalize_depth(jittered, mode="stable")))
    assert peak < output + jittered.numel() * 4 / 2**20 + 100
    before, after = flicker(jittered), flicker(results["video"])
    assert after < 0.1 * before
