"""Annotators without their models: sentences; with them: key points and masks of a drawn girl."""

import numpy as np
import pytest
import torch

from tests.support.annotators import fetched_models
from vdot_core.annotators import NAMES, make_annotator
from vdot_core.annotators.detectors import PERSON, far_places
from vdot_core.annotators.models import Model, load_model


def test_every_annotator_has_the_members_of_the_protocol():
    for name in NAMES:
        annotator = make_annotator(name)
        assert annotator.name == name and annotator.version >= 1 and annotator.needs
    with pytest.raises(ValueError, match="annotator is 'poses'; expected one of scribble"):
        make_annotator("poses")


def test_missing_models_are_named_with_the_command(tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install ai-edge-litert")
    monkeypatch.setenv("VDOT_CACHE", str(tmp_path))
    for name in ("pose", "matte", "face"):
        annotator = make_annotator(name)
        assert "run `python vdot_core/annotators/fetch.py`" in annotator.missing()
        with pytest.raises(ValueError, match=r"lacks .*\.tflite"):
            annotator.run(torch.zeros(1, 32, 32, 3))


def test_another_file_is_refused_before_it_is_read(tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install ai-edge-litert")
    monkeypatch.setenv("VDOT_CACHE", str(tmp_path))
    (tmp_path / "annotators").mkdir()
    (tmp_path / "annotators" / "selfie_segmentation.tflite").write_bytes(b"TFL3" * 100)
    with pytest.raises(ValueError, match="is damaged or another file"):
        Model("selfie_segmentation.tflite")


def test_depth_asks_for_its_folder(tmp_path):
    assert "has no model" in make_annotator("depth").missing()
    assert "holds no config.json" in make_annotator("depth", model=tmp_path).missing()


def depth(folder):
    """A tiny DPT with random weights."""
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    config = DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32,
        patch_size=8, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, backbone_out_indices=[0, 1, 2, 3],
        is_hybrid=False,
    )  # fmt: skip
    DPTForDepthEstimation(config).save_pretrained(folder)
    DPTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


@pytest.mark.full
def test_depth_runs_a_model_of_transformers(tmp_path):
    depth(tmp_path)
    annotator = make_annotator("depth", model=tmp_path)
    assert annotator.missing() is None
    result = annotator.run(torch.rand(5, 32, 48, 3))
    assert result.control.shape == (5, 32, 48, 3) and result.estimator == "transformers dpt"
    assert result.control.amin((1, 2, 3)).max() == 0 and result.control.amax((1, 2, 3)).min() == 1


@pytest.fixture(scope="module")
def models():
    """Skips where the models were not fetched."""
    return fetched_models()


@pytest.fixture(scope="module")
def girl(models, shared_data):
    """[2, H, W, 3]: a drawn girl who faces us, arms down, and her mirror image."""
    from PIL import Image

    picture = Image.open(shared_data / "girl.png").convert("RGB").resize((256, 256))
    frame = torch.from_numpy(np.array(picture)).float() / 255
    return torch.stack([frame, frame.flip(1)])


def test_networks_have_the_inputs_that_the_code_gives_them(models):
    sides = {
        "pose_detection": 224,
        "pose_landmark_full": 256,
        "selfie_segmentation": 256,
        "face_landmark": 192,
    }
    for name, side in sides.items():
        model = load_model(f"{name}.tflite")
        assert (model.width, model.height) == (side, side)


def test_a_pose_has_its_joints_in_place(girl):
    result = make_annotator("pose").run(girl)
    assert [len(frame["people"]) for frame in result.keypoints] == [1, 1]
    for frame in result.keypoints:
        person = frame["people"][0]
        body = np.array(person["pose_keypoints_2d"]).reshape(18, 3)
        nose, neck, right, left = body[[0, 1, 2, 5], :2]
        assert body[[0, 1, 2, 5], 2].min() > 0.8
        assert np.hypot(*(nose - (113, 97))) < 15 or np.hypot(*(nose - (143, 97))) < 15
        assert right[0] < neck[0] < left[0] and nose[1] < neck[1]
        face = np.array(person["face_keypoints_2d"]).reshape(68, 3)
        assert np.hypot(*(face[36:48, :2].mean(0) - body[[14, 15], :2].mean(0))) < 15
    assert result.control.shape == girl.shape and result.control.max() > 0.9


def test_a_matte_covers_the_subject(girl):
    masks = make_annotator("matte").run(girl).masks
    subject = (girl.mean(-1) < 0.9).float()
    both = (masks > 0.5).float()
    union = ((both + subject) > 0).float().sum()
    assert float((both * subject).sum() / union) > 0.85
    assert float((masks[0] - masks[1].flip(1)).abs().mean()) < 0.05


def test_someone_far_away_is_found_and_cut_out(girl):
    """The same girl as a sixth of a frame's width."""
    far = torch.ones(1, 576, 768, 3)
    small = torch.nn.functional.interpolate(girl[:1].permute(0, 3, 1, 2), (128, 128), mode="area")
    far[0, 200:328, 400:528] = small[0].permute(1, 2, 0)
    (frame,) = make_annotator("pose").run(far).keypoints
    assert len(frame["people"]) == 1
    nose = frame["people"][0]["pose_keypoints_2d"][:2]
    assert abs(nose[0] - 456) < 12 and abs(nose[1] - 248) < 12
    mask = make_annotator("matte").run(far).masks[0] > 0.5
    assert mask[210:320, 410:518].float().mean() > 0.4 and mask.float().mean() < 0.04


def test_a_blank_frame_has_nobody(models):
    blank = torch.full((1, 64, 96, 3), 0.5)
    assert make_annotator("pose").run(blank).keypoints[0]["people"] == []
    assert make_annotator("face").run(blank).boxes == [[]]


def test_small_frames_have_no_tiles(models):
    assert far_places(PERSON, torch.zeros(200, 224, 3), (0.5,)) == []
    assert len(far_places(PERSON, torch.zeros(200, 260, 3), (0.5,))) > 8
