"""Models that a user names for an annotator: RAFT for flow, ViTPose for bodies."""

import json

import numpy as np
import pytest
import torch

from tests.core.annotators.test_models import depth
from vdot_core.annotators import make_annotator
from vdot_core.annotators.openpose_points import COCO, body_points
from vdot_core.annotators.people import Person
from vdot_core.annotators.regions import Region
from vdot_core.annotators.sam import Sam
from vdot_core.annotators.vitpose import VitPose
from vdot_core.foreign import UnusableModelError


def test_flow_by_raft_is_the_signals_own(tmp_path):
    from torchvision.models.optical_flow import raft_small

    from vdot_core.signals import flow_video, load_raft

    torch.save(raft_small(weights=None, progress=False).state_dict(), tmp_path / "raft.pth")
    flow = make_annotator("flow", model=tmp_path / "raft.pth")
    assert flow.missing() is None
    clip = torch.rand(2, 48, 64, 3)
    result = flow.run(clip)
    assert result.estimator == "RAFT (small)"
    expected = flow_video(clip, network=load_raft(tmp_path / "raft.pth"))
    torch.testing.assert_close(result.control, expected.frames)
    assert "does not exist" in make_annotator("flow", model=tmp_path / "gone.pth").missing()
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(UnusableModelError, match="holds no RAFT weights"):
        make_annotator("flow", model=tmp_path / "other.pth").run(clip)


@pytest.mark.parametrize("network", [VitPose, Sam])
def test_a_folder_of_another_model_is_a_sentence(network, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert", "hidden_size": "x"}')
    with pytest.raises(UnusableModelError, match="transformers cannot load"):
        network(tmp_path)


def test_cocos_joints_are_openposes():
    """The body of a person who faces us, right side on our left: names of both orders by hand."""
    coco = "nose leye reye lear rear lsho rsho lelb relb lwri rwri lhip rhip lkne rkne lank rank".split()
    openpose = "nose - rsho relb rwri lsho lelb lwri rhip rkne rank lhip lkne lank reye leye rear lear"
    points = np.random.default_rng(0).random((17, 3))
    body = body_points(points, COCO)
    for joint, name in enumerate(openpose.split()):
        if name != "-":
            np.testing.assert_array_equal(body[joint], points[coco.index(name)])
    np.testing.assert_allclose(body[1, :2], (points[5, :2] + points[6, :2]) / 2)


@pytest.fixture(params=[1, 6], ids=["plain", "experts"])
def vitpose(request, tmp_path):
    """Folder of a ViTPose of one layer with random weights."""
    from transformers import (
        VitPoseBackboneConfig,
        VitPoseConfig,
        VitPoseForPoseEstimation,
        VitPoseImageProcessor,
    )

    backbone = VitPoseBackboneConfig(
        image_size=[64, 48], patch_size=[16, 16], hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_experts=request.param, part_features=4 if request.param > 1 else 0, out_indices=[1],
    )  # fmt: skip
    network = VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone, num_labels=17))
    network.save_pretrained(tmp_path)
    VitPoseImageProcessor(size={"height": 64, "width": 48}).save_pretrained(tmp_path)
    return tmp_path


def test_vitpose_estimates_joints_of_the_people_that_were_found(vitpose, monkeypatch):
    bodies = VitPose(vitpose)
    corners = np.repeat([[60.0, 30, 1], [100, 110, 1]], [16, 17], axis=0)
    landmarks = [corners, corners + np.array([40, 0, 0])]
    people = [Person(points, Region(0, 0, 1, 1)) for points in landmarks]
    points = bodies(torch.rand(128, 160, 3), people)
    assert [one.shape for one in points] == [(18, 3)] * 2
    assert all(np.isfinite(one).all() and (one[:, 2] >= 0).all() and (one[:, 2] <= 1).all() for one in points)
    assert bodies(torch.rand(128, 160, 3), []) == []
    # Whatever the network sees in the middle of its picture is in the middle of the person's box.
    heat = torch.zeros(2, 17, 16, 12)
    heat[:, :, 8, 6] = 1
    outputs = type("Outputs", (), {"heatmaps": heat})()
    monkeypatch.setattr(bodies, "network", _Fixed(bodies.network, outputs))
    for one, middle in zip(bodies(torch.rand(128, 160, 3), people), ([80, 70], [120, 70]), strict=True):
        assert np.abs(one[:, :2] - middle).max() < 8


def sam2(folder):
    """A SAM 2 of four layers with random weights."""
    from transformers import Sam2Config, Sam2ImageProcessor, Sam2Model, Sam2Processor

    backbone = {
        "model_type": "sam2_hiera_det_model", "hidden_size": 8, "num_attention_heads": 1,
        "image_size": [64, 64], "blocks_per_stage": [1, 1, 2, 1], "global_attention_blocks": [3],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [4, 4, 4, 2],
    }  # fmt: skip
    vision = {
        "backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": 32,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    }  # fmt: skip
    config = Sam2Config(vision_config=vision, **sam_parts(64, 16))
    Sam2Model(config).save_pretrained(folder)
    Sam2Processor(Sam2ImageProcessor(**sam_sizes(64))).save_pretrained(folder)


def sam3(folder):
    """A SAM 3's tracker of one layer with random weights."""
    from transformers import Sam3ImageProcessor, Sam3TrackerConfig, Sam3TrackerModel, Sam3TrackerProcessor

    backbone = {
        "model_type": "sam3_vit_model", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 56, "pretrain_image_size": 56, "window_size": 4,
        "global_attn_indexes": [0],
    }  # fmt: skip
    vision = {
        "model_type": "sam3_vision_model", "backbone_config": backbone, "fpn_hidden_size": 32,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    }  # fmt: skip
    config = Sam3TrackerConfig(vision_config=vision, **sam_parts(56, 14))
    Sam3TrackerModel(config).save_pretrained(folder)
    Sam3TrackerProcessor(Sam3ImageProcessor(**sam_sizes(56))).save_pretrained(folder)


def sam_parts(side, patch):
    small = {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    prompts = {"hidden_size": 32, "image_size": side, "patch_size": patch}
    return {"prompt_encoder_config": prompts, "mask_decoder_config": small}


def sam_sizes(side):
    return {"size": {"height": side, "width": side}, "mask_size": {"height": 16, "width": 16}}


@pytest.mark.parametrize(("make", "name"), [(sam2, "SAM 2"), (sam3, "SAM 3")], ids=["2", "3"])
def test_sam_masks_the_people_that_were_found(make, name, tmp_path, monkeypatch):
    import transformers

    if make is sam3 and not hasattr(transformers, "Sam3TrackerModel"):
        pytest.skip("this transformers has no SAM 3")
    make(tmp_path)
    sam = Sam(tmp_path)
    assert sam.name == name
    points = np.array([[20.0, 10, 1], [40, 40, 1]])
    people = [Person(points + np.array([dx, 0, 0]), Region(0, 0, 1, 1)) for dx in (0, 20)]
    mask = sam(torch.rand(48, 80, 3), people)
    assert mask.shape == (48, 80) and 0 <= mask.min() and mask.max() <= 1
    assert not sam(torch.rand(48, 80, 3), []).any()
    # One person at the left, one at the right: the mask is of both.
    logits = torch.full((1, 2, 1, 16, 16), -9.0)
    logits[0, 0, 0, :, :4] = logits[0, 1, 0, :, 12:] = 9
    monkeypatch.setattr(sam, "network", _Fixed(sam.network, type("Outputs", (), {"pred_masks": logits})()))
    mask = sam(torch.rand(48, 80, 3), people) > 0.5
    assert mask[:, :18].all() and mask[:, 62:].all() and not mask[:, 24:56].any()


def depth_of(folder):
    return make_annotator("depth", model=folder).run(torch.rand(1, 32, 48, 3))


@pytest.mark.parametrize("broken", [{"image_mean": [0.5] * 2}, {"size": {"width": 32}}, {"size": "large"}])
@pytest.mark.parametrize(("make", "load"), [(sam2, Sam), (depth, depth_of)], ids=["SAM 2", "depth"])
def test_a_broken_preprocessor_is_the_models_fault(make, load, broken, tmp_path):
    """Found when the model is loaded: otherwise each clip would be rejected for it."""
    make(tmp_path)
    load(tmp_path)
    _break(tmp_path, broken)
    with pytest.raises(UnusableModelError, match="transformers cannot load") as error:
        load(tmp_path)
    assert tmp_path.name in str(error.value) and len(str(error.value)) <= 400


@pytest.mark.parametrize("vitpose", [1], indirect=True)
def test_a_broken_preprocessor_of_vitpose_is_the_models_fault(vitpose):
    _break(vitpose, {"size": {"height": 40, "width": 40}})
    with pytest.raises(UnusableModelError, match="as a ViTPose"):
        VitPose(vitpose)


def _break(folder, values):
    """Change values of a folder's preprocessor, whose file has one of two names."""
    path = next(file for file in folder.glob("*processor*config.json"))
    content = json.loads(path.read_text())
    content.get("image_processor", content).update(values)
    path.write_text(json.dumps(content))


def test_transformers_without_this_sam_is_a_sentence(tmp_path, monkeypatch):
    import transformers

    (tmp_path / "config.json").write_text('{"model_type": "sam3_video"}')
    monkeypatch.setattr(transformers, "Sam3TrackerModel", None, raising=False)
    with pytest.raises(UnusableModelError, match=r"has no SAM 3; `pip install -U transformers`"):
        Sam(tmp_path)


class _Fixed:
    """A network that gives the same for every picture."""

    def __init__(self, network, outputs):
        self.config, self.device, self.outputs = network.config, network.device, outputs

    def __call__(self, **_):
        return self.outputs


def test_vitpose_needs_its_folder(tmp_path):
    from tests.support.annotators import skip_without

    skip_without("pose")
    assert "holds no config.json" in make_annotator("pose", model=tmp_path).missing()


def test_a_skeleton_of_vitpose_is_drawn(vitpose, shared_data):
    from PIL import Image

    from tests.support.annotators import skip_without

    skip_without("pose")
    picture = Image.open(shared_data / "girl.png").convert("RGB").resize((256, 256))
    pose = make_annotator("pose", model=vitpose)
    result = pose.run(torch.from_numpy(np.array(picture))[None] / 255)
    assert result.estimator == "ViTPose" and len(result.keypoints[0]["people"]) == 1
