"""The annotators' nodes inside the real ComfyUI; tests with a picture skip without the models."""

import json

import numpy as np
import pytest
import torch

from tests.nodes.fuzz import check_sentence
from tests.nodes.test_image_kinds import ANNOTATORS, skip_without_parts
from tests.support.memory import peak_bytes
from tests.support.pack import submodule

CLIP = torch.zeros(2, 64, 64, 3)


@pytest.fixture(scope="module")
def girl(pack, shared_data):
    """[2, 256, 256, 3]: a drawn girl who faces us, alone and at the right of another frame."""
    from PIL import Image

    skip_without_parts("VDOTPose")
    picture = Image.open(shared_data / "girl.png").convert("RGB").resize((256, 256))
    frame = torch.from_numpy(np.array(picture)).float() / 255
    return torch.stack([frame, torch.roll(frame, 20, dims=1)])


@pytest.fixture(scope="module")
def pose(run, girl):
    return run("VDOTPose", frames=girl)


@pytest.mark.parametrize("node_id", ANNOTATORS)
def test_what_is_missing_is_said_with_the_commands(run, node_id, tmp_path, monkeypatch):
    monkeypatch.setenv("VDOT_CACHE", str(tmp_path / ("deep " * 30)))
    models = submodule("vdot_core.annotators.models")
    for installed in (True, False):
        monkeypatch.setattr(models.importlib.util, "find_spec", lambda name, there=installed: there or None)
        with pytest.raises(ValueError, match=r"`python vdot_core/annotators/fetch\.py`") as refusal:
            run(node_id, frames=CLIP)
        check_sentence(str(refusal.value))
        assert ("pip install ai-edge-litert" in str(refusal.value)) != installed


def test_the_control_is_the_drawing_of_the_key_points(run, pose):
    control, keypoints = pose.args
    (again,) = run("VDOTDrawPose", keypoints=keypoints, width=0, height=0, face=True, hands=True).args
    assert torch.equal(control, again) and control.amax((1, 2, 3)).min() > 0.9
    assert pose.ui["text"] == ["people in a frame: 1"]
    assert json.loads(json.dumps(keypoints)) == keypoints


def test_key_points_feed_comfyuis_own_nodes(pose, comfy):
    """SDPose's drawing has joints where ours has; its face boxes contain the nose."""
    from comfy_extras.nodes_sdpose import SDPoseDrawKeypoints, SDPoseFaceBBoxes

    _, keypoints = pose.args
    options = dict.fromkeys(("draw_body", "draw_hands", "draw_face", "draw_head"), True)
    options |= {"draw_feet": False, "stick_width": 4, "face_point_size": 3, "score_threshold": 0.3}
    (theirs,) = SDPoseDrawKeypoints.execute(keypoints, **options).args
    boxes = SDPoseFaceBBoxes.execute(keypoints, 1.5, True).args[0]
    for frame, drawing, (box,) in zip(keypoints, theirs, boxes, strict=True):
        body = np.array(frame["people"][0]["pose_keypoints_2d"]).reshape(18, 3)
        inside = body[(body[:, 2] > 0) & (body[:, :2] < 250).all(1)].astype(int)
        assert len(inside) > 8 and all(drawing[y, x].max() > 0.3 for x, y, _ in inside)
        assert 0 < body[0, 0] - box["x"] < box["width"] and 0 < body[0, 1] - box["y"] < box["height"]


@pytest.mark.parametrize("node_id", ANNOTATORS)
def test_no_peak_is_above_twice_the_clip(run, girl, node_id):
    """Of tensors; the models' own memory is that of one frame."""
    clip = girl[:1].expand(17, -1, -1, -1).contiguous()
    run(node_id, frames=clip[:2])  # loads the models
    assert peak_bytes(lambda: run(node_id, frames=clip)) <= 2 * clip.nbytes


def test_small_pictures_get_a_thicker_pen(run, girl, pose):
    small = torch.nn.functional.interpolate(girl[:1].permute(0, 3, 1, 2), (128, 128), mode="area")
    small = small.permute(0, 2, 3, 1)
    usual, thin = (run("VDOTPose", frames=small, face=False, pen=pen).args[0] for pen in (0.0, 1.0))
    assert (usual > 0.1).any(-1).sum() > 1.4 * (thin > 0.1).any(-1).sum()
    assert torch.equal(run("VDOTPose", frames=girl, pen=1.0).args[0], pose.args[0])


def test_faces_can_be_left_out_and_scores_decide(run, girl, pose):
    bare = run("VDOTPose", frames=girl, face=False).args[0]
    white = (pose.args[0] == 1).all(-1).sum()
    assert (bare == 1).all(-1).sum() < 0.1 * white
    strict = run("VDOTPose", frames=girl[:1], threshold=0.99).args[1][0]["people"][0]
    assert sum(strict["pose_keypoints_2d"][2::3]) < sum(
        pose.args[1][0]["people"][0]["pose_keypoints_2d"][2::3]
    )


def test_a_matte_goes_into_vdot_mask(run, girl):
    (mask,) = run("VDOTMatte", frames=girl).args
    assert mask.shape == (2, 256, 256) and (mask[0] > 0.5).float().mean() > 0.15
    inputs = {"mask_shape": "original", "expand": 0.0, "width": 0, "height": 0, "length": 0}
    (unit,) = run("VDOTMask", frames=girl[:1], mask=mask[:1], **inputs).args
    assert unit.masks.mean() > 0.15


def test_faces_are_boxes_for_box_mask(run, girl, monkeypatch):
    """The drawn girl is none for the detector: its answer is put in its place."""
    face, annotator = submodule("vdot_core.annotators.face"), submodule("vdot_core.annotators.annotator")
    answers = [[annotator.Box(100, 80, 140, 120, 0.9), annotator.Box(-50, 0, 10, 60, 0.7)], []]
    annotation = annotator.Annotation("a test", boxes=answers)
    monkeypatch.setattr(face.Face, "annotate", lambda self, frames: annotation)
    out = run("VDOTFace", frames=girl, which="all", expand=0.25)
    mask, boxes = out.args
    assert boxes == [
        [{"x": 90, "y": 70, "width": 60, "height": 60}, {"x": 0, "y": 0, "width": 25, "height": 75}],
        [],
    ]
    (again,) = run("VDOTBoxMask", image=girl, bboxes=boxes, which="all").args
    assert torch.equal(mask, again) and mask[0].sum() == 60 * 60 + 25 * 75 and not mask[1].any()
    assert run("VDOTFace", frames=girl, which="first", expand=0.0).args[0].sum() == 40 * 40
    assert out.ui["text"] == ["faces in a frame: 0 to 2", "no face in 1 of 2 frames"]


def test_nobody_is_said(run, girl):
    blank = torch.full((2, 64, 96, 3), 0.5)
    assert run("VDOTPose", frames=blank).ui["text"] == ["no person in 2 of 2 frames"]
    assert "no person in 2 of 2 frames" in run("VDOTMatte", frames=blank).ui["text"][0]
    mask, boxes = run("VDOTFace", frames=blank).args
    assert not mask.any() and boxes == [[], []]


@pytest.mark.parametrize("node_id", ANNOTATORS)
def test_a_run_reports_progress_and_can_be_interrupted(run, girl, node_id, monkeypatch):
    progress = submodule("nodes.comfy_progress")
    steps = []

    def stop_after_one():
        def report(count, total):
            steps.append((count, total))
            raise InterruptedError

        return report

    monkeypatch.setattr(progress, "progress_bar", stop_after_one)
    with pytest.raises(InterruptedError):
        run(node_id, frames=girl)
    assert steps == [(1, 2)]


@pytest.mark.parametrize("node_id", ANNOTATORS)
def test_a_fourth_channel_is_ignored_and_said(run, girl, node_id):
    out = run(node_id, frames=torch.cat([girl[:1], girl[:1, ..., :1]], -1))
    assert torch.equal(out.args[0], run(node_id, frames=girl[:1]).args[0])
    assert "frames: alpha channel ignored" in out.ui["text"]
