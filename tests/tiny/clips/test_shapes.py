"""Drawn clips: the same everywhere, and true to their captions, masks and depth."""

import hashlib
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny.clips import shapes
from tiny.clips.sdf import SHAPES, exact_sdf
from tiny.clips.textures import texture_clip

ROOT = Path(__file__).resolve().parents[3]
SEEDS = [*range(40), *range(2**40, 2**40 + 10), *range(2**41, 2**41 + 10)]


def _digest(frames: torch.Tensor) -> str:
    return hashlib.sha256(frames.numpy().tobytes()).hexdigest()


def test_another_process_draws_the_same_clips():
    code = (
        "import hashlib\nfrom tiny.clips.shapes import clip, figure_clip\n"
        "from tiny.clips.textures import texture_clip\n"
        "figure = figure_clip(3)\n"
        "for frames in (clip(3).frames, texture_clip(3).contiguous(), figure.frames, figure.flow):\n"
        "    print(hashlib.sha256(frames.numpy().tobytes()).hexdigest())"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    figure = shapes.figure_clip(3)
    tensors = (shapes.clip(3).frames, texture_clip(3).contiguous(), figure.frames, figure.flow)
    assert process.stdout.split() == [_digest(frames) for frames in tensors]
    assert _digest(shapes.clip(4).frames) != _digest(shapes.clip(3).frames)


def test_splits_never_meet_and_held_out_pairs_are_kept_out_of_training():
    spans = sorted((r.start, r.stop) for r in shapes.SPLITS.values())
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    size = {"height": 16, "width": 16, "num_frames": 1}
    tensors = {
        split: list(zip(range(300), shapes.clips(split, **size), strict=False)) for split in shapes.SPLITS
    }
    pairs = {s: {(o.color, o.shape) for _, c in clips for o in c.objects} for s, clips in tensors.items()}
    assert all(c.split == split for split, clips in tensors.items() for _, c in clips)
    assert not pairs["train"] & shapes.HELD_OUT and not pairs["validation"] & shapes.HELD_OUT
    assert pairs["evaluation"] >= shapes.HELD_OUT


@pytest.mark.parametrize("seed", SEEDS)
def test_captions_name_the_colors_and_shapes_that_are_in_the_pixels(seed):
    clip = shapes.clip(seed)
    palette = torch.tensor([shapes.COLORS[name] for name in shapes.COLORS])
    for track, mask in zip(clip.objects, clip.object_masks, strict=True):
        inner = -torch.nn.functional.max_pool2d(-mask[:, None], 3, 1, 1)[:, 0] > 0.5
        if inner.sum() < 20:
            continue
        measured = clip.frames[inner].mean(0)
        nearest = list(shapes.COLORS)[int((palette - measured).norm(dim=-1).argmin())]
        assert nearest == track.color
        assert all(track.color in text and track.shape in text for text in clip.captions)
    assert clip.caption in clip.captions


@pytest.mark.parametrize("size", [(64, 64, 17), (48, 96, 9)])
def test_masks_and_depth_agree_with_each_other_and_the_pixels(size):
    height, width, num_frames = size
    for seed in range(12):
        clip = shapes.clip(seed, height=height, width=width, num_frames=num_frames)
        assert clip.frames.shape == (num_frames, height, width, 3)
        assert clip.masks.shape == clip.depth.shape == clip.lines.shape == (num_frames, height, width)
        assert 0 <= clip.frames.min() and clip.frames.max() <= 1
        assert set(clip.masks.unique().tolist()) <= {0.0, 1.0}
        assert torch.equal(clip.object_masks.sum(0), clip.masks), "objects overlap: occlusion is unresolved"
        for f in range(num_frames):
            inside = clip.depth[f][clip.masks[f] > 0]
            outside = clip.depth[f][clip.masks[f] == 0]
            if inside.numel():
                assert inside.min() > outside.max(), "an object is nearer than the background"
                assert clip.depth[f].min() == 0 and clip.depth[f].max() == 1
        if len(clip.objects) == 2:
            far, near = (clip.depth * mask for mask in clip.object_masks)
            both = (far.amax((1, 2)) > 0) & (near.amax((1, 2)) > 0)
            assert (near.amax((1, 2)) > far.amax((1, 2)))[both].all()


def test_masks_are_where_the_shape_is_by_its_exact_distance():
    clip = shapes.clip(2**41 + 5)
    track, mask = clip.objects[-1], clip.object_masks[-1]
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    for f in (0, 8, 16):
        offset = torch.stack([x, y], -1) - track.centers[f]
        cos, sin = track.angles[f].cos(), track.angles[f].sin()
        own = torch.stack(
            [cos * offset[..., 0] + sin * offset[..., 1], cos * offset[..., 1] - sin * offset[..., 0]], -1
        )
        distance = exact_sdf(track.shape, own / track.radius) * track.radius
        sure = distance.abs() > 0.3
        assert torch.equal(mask[f][sure] > 0, distance[sure] < 0)


def test_every_shape_is_negative_inside_and_positive_outside():
    axis = torch.linspace(-1.4, 1.4, 41)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    for shape in SHAPES:
        distance = exact_sdf(shape, points)
        assert distance[0].min() > 0 and distance.min() < -0.1
        steps = distance.diff(dim=0).abs().max() / (axis[1] - axis[0])
        assert steps <= 1.001, f"{shape} is not a distance: it changes faster than the distance moved"


def test_references_show_the_object_on_white():
    clip = shapes.clip(7)
    for image, track in zip(clip.references, clip.objects, strict=True):
        assert torch.equal(image[0, 0], torch.ones(3))
        inner = (image - torch.tensor(track.rgb)).abs().amax(-1) < 1e-4
        assert inner.float().mean() > 0.08


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="outside every split"):
        shapes.clip(2**50)
    with pytest.raises(ValueError, match="16 pixels"):
        shapes.clip(0, height=8)
    with pytest.raises(ValueError, match="expected one of"):
        next(shapes.clips("test"))


def test_textures_have_falling_spectra_and_full_range():
    clips = torch.stack([texture_clip(i, num_frames=1)[0] for i in range(48)])
    power = torch.fft.rfft2(clips.mean(-1) - clips.mean((1, 2, 3))[:, None, None]).abs().square().mean(0)
    low, high = power[1:5, 1:5].mean(), power[20:30, 20:30].mean()
    assert low > 50 * high
    assert np.quantile(clips, 0.02) < 0.1 and np.quantile(clips, 0.98) > 0.9


def test_backgrounds_have_the_color_of_their_name():
    """Every pixel is the named color or between it and one lighter or darker shade."""
    for seed in range(60):
        clip = shapes.clip(seed)
        kind, name = clip.background.split()[:2]
        base = torch.tensor(shapes.COLORS[name])
        away = clip.background_frames - base
        assert (away.abs().amin((0, 1, 2)) < 0.08).all(), "the color itself is there"
        if kind == "plain":
            assert away.abs().max() < 1e-6
        for end in (0.0, 1.0):
            mixed = torch.lerp(base, torch.full((3,), end), 0.33)
            low, high = torch.minimum(base, mixed) - 1e-4, torch.maximum(base, mixed) + 1e-4
            if ((clip.background_frames >= low) & (clip.background_frames <= high)).all():
                break
        else:
            raise AssertionError(f"{clip.background}: pixels between no two shades of {name}")
