"""Measures rank what is known to be better or worse."""

import numpy as np
import pytest
import torch

from training.benchmark import control, motion, reference, scores
from training.benchmark.index import Sample, read_benchmark
from training.benchmark.samples import Conditions, fit_video
from training.preparation import niqe
from vdot_core.annotators import make_annotator
from vdot_core.signals import draw_lines, flow_video, luma, to_gray

from .conftest import half_mask, moving

SIGNALS = {
    "gray": lambda clip: to_gray(clip, weights="bt601"),
    "scribble": draw_lines,
    "flow": lambda clip: flow_video(clip).frames,
}


def floats(clip):
    """[F, H, W, 3] float in [0, 1]."""
    return torch.from_numpy(clip).float() / 255


def conditions_of(frames, mask=None, references=()):
    """Of a control or kept clip."""
    mask = torch.ones(frames.shape[:3]) if mask is None else mask
    return Conditions(frames, mask, references, True)


@pytest.mark.parametrize("signal", SIGNALS)
def test_control_fidelity_is_high_for_the_same_clip_and_low_for_another(config, signal):
    clip, other = floats(moving(1, 9, 96, 64)), floats(moving(2, 9, 64, 96)).transpose(1, 2).flip(2)
    conditions = conditions_of(SIGNALS[signal](clip))
    same, off = (control.control_fidelity(c, conditions, signal, config()) for c in (clip, other))
    assert same > 0.95 and off < same - 0.25


def test_control_fidelity_looks_at_the_generated_region_alone(config):
    clip = floats(moving(1))
    mask = (floats(half_mask())[..., 0] > 0.5).float()
    broken = torch.where(mask[..., None] > 0.5, clip, 1 - clip)
    conditions = conditions_of(SIGNALS["gray"](clip), mask)
    assert control.control_fidelity(broken, conditions, "gray", config()) > 0.99
    whole = control.control_fidelity(broken, conditions_of(SIGNALS["gray"](clip)), "gray", config())
    assert whole < 0.9


def test_a_control_that_shows_nothing_has_no_fidelity(config):
    clip = floats(moving(1))
    for signal, empty in (("gray", 0.5), ("flow", 1.0), ("scribble", 1.0), ("pose", 0.0)):
        blank = conditions_of(torch.full_like(clip, empty))
        assert signal == "pose" or control.control_fidelity(clip, blank, signal, config()) is None


def test_tasks_tell_their_signal():
    names = {
        "depth": "depth",
        "reference+Pose": "pose",
        "grey": "gray",
        "optical_flow": "flow",
        "R2V_face": None,
        "extension": None,
        "reference+layout": None,
    }
    assert {name: control.signal_of(name) for name in names} == names


def test_what_cannot_be_estimated_is_said(config):
    assert "depth_model" in control.missing("depth", config())
    assert control.missing("gray", config()) is None
    assert "estimators" in control.missing("flow", config(estimators=["gray"]))
    assert control.missing("pose", config()) == make_annotator("pose").missing()


def test_the_kept_region_is_compared_where_the_mask_is_black():
    clip = floats(moving(1))
    mask = (floats(half_mask())[..., 0] > 0.5).float()
    conditions = conditions_of(clip, mask)
    changed = torch.where(mask[..., None] > 0.5, 1 - clip, clip)
    assert scores.kept_psnr(changed, conditions) == scores.MAX_PSNR
    noisy = changed + 0.1
    assert scores.kept_psnr(noisy, conditions) == pytest.approx(20, abs=0.01)
    assert scores.kept_psnr(clip, conditions_of(clip)) is None


def test_the_reference_is_found_by_its_colors():
    red, blue = torch.tensor([0.85, 0.1, 0.1]), torch.tensor([0.1, 0.2, 0.85])
    picture = torch.ones(40, 40, 3)
    picture[10:30, 10:30] = red
    clip = torch.full((5, 48, 64, 3), 0.5)
    found, other = clip.clone(), clip.clone()
    found[:, 10:30, 20:40], other[:, 10:30, 20:40] = red, blue
    values = [reference.reference_identity(video, [picture]) for video in (found, other, clip)]
    assert values[0] > 0.9 and values[1] < 0.2 and values[2] < 0.2
    small = clip.clone()
    small[:, 10:22, 20:32] = red
    assert reference.reference_identity(small, [picture]) > 0.85
    both = reference.reference_identity(found, [picture, torch.full((20, 20, 3), 0.1) * torch.eye(3)[1]])
    assert both < values[0] and reference.reference_identity(clip, []) is None


def test_motion_has_the_speed_of_a_pan_and_flicker_does_not_come_from_it():
    clip = floats(moving(3, 9, 96, 64))
    speed, change = motion.motion_and_flicker(clip, 16)
    assert speed == pytest.approx(2 / np.hypot(96, 64) * 100 * 16, rel=0.15)
    plain = 255 * (luma(clip[1:]) - luma(clip[:-1])).abs().mean()
    assert change < 0.4 * plain
    flashing = clip.clone()
    flashing[1::2] = (flashing[1::2] + 0.1).clamp(0, 1)
    assert motion.motion_and_flicker(flashing, 16)[1] > change + 10
    still = clip[:1].expand(9, -1, -1, -1).contiguous()
    assert motion.motion_and_flicker(still, 16) == pytest.approx((0, 0), abs=1e-3)
    assert motion.motion_and_flicker(clip[:1], 16) is None


def test_someone_elses_video_is_scored_at_its_own_size(config):
    clip = moving(1, 7)
    larger = torch.from_numpy(np.repeat(np.repeat(clip, 2, 1), 2, 2))
    video, conditions = fit_video(larger, conditions_of(SIGNALS["gray"](floats(clip[:5]))))
    assert video.shape == conditions.frames.shape == (5, 64, 96, 3) and conditions.mask.shape == (5, 64, 96)
    assert control.control_fidelity(video, conditions, "gray", config()) > 0.97


def test_a_row_has_the_measures_that_it_allows(bench, config):
    video = torch.from_numpy(moving(0))
    assets = bench / "assets"
    plain = Sample("text", "0", "p")
    assert set(scores.score(video, plain, config())) == {"motion", "flicker"}
    every = Sample(
        "reference+gray", "0", "p", assets / "gray0.mp4", assets / "mask0.mp4", (assets / "subject0.png",)
    )
    assert set(scores.score(video, every, config())) == {*scores.MEASURES} - {"niqe"}
    if niqe.missing() is None:
        large = scores.score(torch.from_numpy(moving(0, 5, 208, 192)), plain, config(width=208, height=192))
        assert large["niqe"] > 0


@pytest.mark.full
def test_depth_is_estimated_where_a_model_is_there(config, tmp_path):
    """Of random weights, so that equal clips alone agree."""
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    torch.manual_seed(0)
    sizes = DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32,
        patch_size=8, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, backbone_out_indices=[0, 1, 2, 3],
        is_hybrid=False,
    )  # fmt: skip
    DPTForDepthEstimation(sizes).save_pretrained(tmp_path)
    DPTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    settings = config(depth_model=str(tmp_path))
    assert control.missing("depth", settings) is None
    clip = floats(moving(1))
    depth = make_annotator("depth", model=tmp_path).run(clip).control
    same = control.control_fidelity(clip, conditions_of(depth), "depth", settings)
    turned = control.control_fidelity(clip, conditions_of(1 - depth), "depth", settings)
    assert same > 0.99 and turned == 0


def test_other_weights_of_an_estimator_under_one_path_score_again(bench, config, tmp_path):
    (row, *_) = read_benchmark(bench).samples
    video = bench / "real" / f"{row.name}.mp4"
    settings = config(flow_model=str(tmp_path / "weights"))
    (tmp_path / "weights").write_bytes(b"one")
    before = scores.RESULTS.key_of(settings, row, video)
    assert scores.RESULTS.key_of(settings, row, video) == before
    (tmp_path / "weights").write_bytes(b"other")
    assert scores.RESULTS.key_of(settings, row, video) != before


@pytest.mark.full
def test_a_pose_is_found_again_where_the_detector_is_there(config, shared_data):
    from PIL import Image

    annotator = make_annotator("pose")
    if reason := annotator.missing():
        pytest.skip(reason)
    picture = Image.open(shared_data / "girl.png").convert("RGB").resize((256, 256))
    clip = floats(np.array(picture))[None].expand(2, -1, -1, -1).contiguous()
    pose = annotator.run(clip).control
    same = control.control_fidelity(clip, conditions_of(pose), "pose", config())
    moved = control.control_fidelity(clip.roll(40, 2), conditions_of(pose), "pose", config())
    nobody = control.control_fidelity(torch.full_like(clip, 0.5), conditions_of(pose), "pose", config())
    assert same > 0.99 and moved < 0.6 and nobody == 0
