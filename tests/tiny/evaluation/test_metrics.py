"""Scores with known answers: the true clip is right, another clip is wrong, errors count as they should."""

from dataclasses import replace

import pytest
import torch

from tiny.clips.shapes import HELD_OUT, OBJECT_COLORS
from tiny.evaluation import metrics, sets
from tiny.evaluation.accuracy import counted_objects, mask_overlap
from tiny.evaluation.network import SEEN_SHAPES
from vdot_core import vcu

SHARES = ("color", "shape", "pair", "size")


def _mean(records, name):
    values = [record[name] for record in records if name in record]
    return sum(values) / len(values)


def _records(observations, clips):
    return [
        r
        for observation, scene in zip(observations, clips, strict=True)
        for r in metrics.object_scores(observation, scene)
    ]


def test_true_clips_score_one(drawn_clips, perfect):
    records = _records(perfect, drawn_clips)
    assert {name: _mean(records, name) for name in (*SHARES, "motion")} == dict.fromkeys(
        (*SHARES, "motion"), 1.0
    )
    for observation, clip in zip(perfect, drawn_clips, strict=True):
        scene = metrics.scene_scores(observation, clip)
        assert scene["background_color"] == scene["background_kind"] == scene["extra_score"] == 1
        assert scene["extra_objects"] == 0
        assert metrics.object_iou(observation, clip) == 1
        assert metrics.box_iou(observation, clip) > 0.9
        assert metrics.depth_error(observation, clip) < 1e-3
        assert metrics.flow_error_px(observation, clip) < 1e-4


def test_other_clips_score_low(drawn_clips, perfect):
    others = perfect[1:] + perfect[:1]
    records = _records(others, drawn_clips)
    assert _mean(records, "color") < 0.35 and _mean(records, "pair") < 0.15 and _mean(records, "motion") < 0.4
    pairs = list(zip(others, drawn_clips, strict=True))
    assert sum(metrics.object_iou(*pair) for pair in pairs) / len(pairs) < 0.4
    assert sum(metrics.box_iou(*pair) for pair in pairs) / len(pairs) < 0.4
    assert sum(metrics.depth_error(*pair) for pair in pairs) / len(pairs) > 0.03
    assert sum(metrics.flow_error_px(*pair) for pair in pairs) / len(pairs) > 0.5
    assert sum(metrics.scene_scores(*pair)["background_color"] for pair in pairs) / len(pairs) < 0.4


def _recolored(observation, old: int, new: int):
    """The same observation with one object in another color."""
    order = list(range(len(OBJECT_COLORS)))
    order[old], order[new] = order[new], order[old]
    swapped = {
        name: getattr(observation, name)[order] for name in ("presence", "shape", "size", "path", "direction")
    }
    labels = observation.labels.clone()
    labels[observation.labels == 1 + old] = 1 + new
    return replace(
        observation,
        **swapped,
        seen=observation.seen[:, order],
        positions=observation.positions[:, order],
        labels=labels,
    )


def test_an_object_in_another_color_loses_color_and_pair_alone(drawn_clips, perfect):
    scene, observation = next(
        (d, s) for d, s in zip(drawn_clips, perfect, strict=True) if len(d.objects) == 1
    )
    old = OBJECT_COLORS.index(scene.objects[0].color)
    changed = _recolored(observation, old, (old + 1) % len(OBJECT_COLORS))
    (record,) = metrics.object_scores(changed, scene)
    assert (record["color"], record["shape"], record["pair"], record["size"], record["motion"]) == (
        0,
        1,
        0,
        1,
        1,
    )
    assert metrics.object_iou(changed, scene) == 1
    assert metrics.flow_error_px(changed, scene) < 1e-4, "what stands for the object is followed"


def test_swapped_colors_of_two_objects_keep_colors_and_lose_pairs(drawn_clips, perfect):
    both = [(d, s) for d, s in zip(drawn_clips, perfect, strict=True) if len(counted_objects(d)) == 2]
    scene, observation = next(p for p in both if p[0].objects[0].shape != p[0].objects[1].shape)
    slots = [OBJECT_COLORS.index(track.color) for track in scene.objects]
    for record in metrics.object_scores(_recolored(observation, *slots), scene):
        assert (record["color"], record["pair"]) == (1, 0)


def test_a_missing_object_scores_nothing_and_one_too_many_is_counted(drawn_clips, perfect):
    clip, observation = next((d, s) for d, s in zip(drawn_clips, perfect, strict=True) if len(d.objects) == 1)
    empty = replace(
        observation,
        presence=torch.zeros_like(observation.presence),
        labels=torch.zeros_like(observation.labels),
    )
    (record,) = metrics.object_scores(empty, clip)
    assert not any(record[name] for name in (*SHARES, "motion"))
    assert metrics.object_iou(empty, clip) == 0
    crowded = replace(observation, presence=torch.ones_like(observation.presence))
    scene = metrics.scene_scores(crowded, clip)
    assert scene["extra_objects"] == len(OBJECT_COLORS) - 1 and scene["extra_score"] == 0


def test_matching_gives_left_over_objects_to_the_right_shapes(drawn_clips, perfect):
    both = [(d, s) for d, s in zip(drawn_clips, perfect, strict=True) if len(counted_objects(d)) == 2]
    scene, observation = next(p for p in both if p[0].objects[0].shape != p[0].objects[1].shape)
    slots = [OBJECT_COLORS.index(track.color) for track in scene.objects]
    free = [slot for slot in range(len(OBJECT_COLORS)) if slot not in slots][:2]
    for targets in (free, free[::-1]):
        changed = _recolored(_recolored(observation, slots[0], targets[0]), slots[1], targets[1])
        matched = metrics.match_objects(changed, scene)
        assert [matched[0], matched[1]] == targets
        assert [SEEN_SHAPES[int(changed.shape[m].argmax())] for m in targets] == [
            t.shape for t in scene.objects
        ]


def test_held_out_pairs_are_marked(drawn_clips, perfect):
    for observation, scene in zip(perfect, drawn_clips, strict=True):
        records = metrics.object_scores(observation, scene)
        marks = [(scene.objects[n].color, scene.objects[n].shape) in HELD_OUT for n in counted_objects(scene)]
        assert [bool(record["held_out"]) for record in records] == marks


def test_motion_is_measured_in_pixels_a_frame(drawn_clips, perfect):
    scene, observation = next(
        (d, s) for d, s in zip(drawn_clips, perfect, strict=True) if len(d.objects) == 1
    )
    drift = torch.arange(len(scene.frames))[:, None, None] * torch.tensor([3.0, 4.0]) / scene.frames.shape[1]
    moved = replace(observation, positions=observation.positions + drift)
    assert metrics.flow_error_px(moved, scene) == pytest.approx(5.0, abs=1e-3)


def test_kept_pixels_alone_are_compared(drawn_clips):
    scene = drawn_clips[0]
    unit = vcu.inpaint(scene.frames, scene.masks)
    video = torch.where(scene.masks[..., None] > 0, torch.rand_like(scene.frames), scene.frames)
    assert metrics.kept_psnr(video, unit) == metrics.MAX_PSNR
    noisy = torch.where(scene.masks[..., None] > 0, video, scene.frames + 0.1)
    assert metrics.kept_psnr(noisy, unit) == pytest.approx(20.0, abs=0.01)
    text = vcu.text(width=64, height=64, num_frames=17)
    assert metrics.kept_psnr(video, text) is None


def test_flicker_is_rough_and_steady_motion_is_smooth(drawn_clips):
    frames = 0.8 * drawn_clips[0].frames
    still = frames[:1].expand_as(frames)
    flicker = (still + 0.1 * (torch.arange(len(frames)) % 2)[:, None, None, None]).clamp(0, 1)
    assert metrics.smoothness_db(still) == metrics.MAX_PSNR
    assert metrics.smoothness_db(flicker) < 25 and metrics.smoothness_db(frames) > metrics.smoothness_db(
        flicker
    )


def test_overlap_of_half_covered_masks():
    one, other = torch.zeros(4, 4, dtype=torch.bool), torch.zeros(4, 4, dtype=torch.bool)
    assert mask_overlap(one, other) == 1
    one[:2], other[1:3] = True, True
    assert mask_overlap(one, other) == pytest.approx(1 / 3)


def test_frechet_distance_of_gaussians_is_the_closed_form():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(20000, 3, generator=generator)
    scale, shift = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([1.0, 0.0, -2.0])
    expected = float(shift.square().sum() + (scale - 1).square().sum())
    other = torch.randn(20000, 3, generator=generator) * scale + shift
    assert sets.frechet_distance(noise, other) == pytest.approx(expected, rel=0.03)
    assert sets.frechet_distance(noise, noise) == pytest.approx(0, abs=1e-8)
    with pytest.raises(ValueError, match="at least 2"):
        sets.frechet_distance(noise[:1], noise)


def test_frechet_distance_of_correlated_sets_is_by_the_root_of_their_product():
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(2, 6, 6, generator=generator).double()
    one, other = (torch.randn(500, 6, generator=generator).double() @ m for m in mixing)
    product = one.T.cov() @ other.T.cov()
    root_trace = torch.linalg.eigvals(product).real.clamp_min(0).sqrt().sum()
    means = (one.mean(0) - other.mean(0)).square().sum()
    expected = means + one.T.cov().trace() + other.T.cov().trace() - 2 * root_trace
    assert sets.frechet_distance(one, other) == pytest.approx(float(expected), rel=1e-6)


def test_diversity_is_zero_for_equal_seeds_and_the_distance_otherwise():
    same = torch.randn(5, 1, 4).expand(5, 3, 4)
    assert sets.diversity(same) == 0
    pair = torch.tensor([[[0.0, 0.0], [3.0, 4.0]]])
    assert sets.diversity(pair) == pytest.approx(5.0)
    with pytest.raises(ValueError, match="seeds"):
        sets.diversity(torch.zeros(3, 1, 4))
