"""The signal nodes inside the real ComfyUI."""

import sys

import pytest
import torch

from tests.support import pack as pack_support

IDS = [
    "VDOTGray",
    "VDOTLines",
    "VDOTFlow",
    "VDOTNormalizeDepth",
    "VDOTPose",
    "VDOTMatte",
    "VDOTFace",
    "VDOTDrawPose",
]


@pytest.fixture(scope="module")
def call(node_classes):
    """call('VDOTGray', frames=..) runs a signal node as ComfyUI does."""
    return lambda node_id, **inputs: pack_support.run_node(node_classes[node_id], **inputs)


@pytest.fixture
def flow_folder(pack, tmp_path, monkeypatch):
    """models/optical_flow, empty and the test's own."""
    import folder_paths

    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, "optical_flow", ([str(tmp_path)], {".pth", ".safetensors"})
    )
    folder_paths.filename_list_cache.pop("optical_flow", None)
    yield tmp_path
    folder_paths.filename_list_cache.pop("optical_flow", None)


def test_schemas(node_classes):
    schemas = [node.GET_SCHEMA() for node in node_classes.values()]
    assert [schema.node_id for schema in schemas if schema.category == "VDOT/signals"] == IDS
    for schema in schemas:
        assert schema.description
        assert all(port.tooltip for port in [*schema.inputs, *schema.outputs])


def test_gray(call):
    frames = torch.rand(3, 16, 16, 3)
    (control,) = call("VDOTGray", frames=frames).result
    assert control.shape == frames.shape
    assert torch.equal(control[..., 0], control[..., 2])
    for options in ({}, {"weights": "vace"}):
        (control,) = call("VDOTGray", frames=frames, **options).result
        expected = frames @ torch.tensor([0.114, 0.587, 0.299])
        torch.testing.assert_close(control[..., 1], expected, atol=1e-6, rtol=0)


def test_lines(call):
    frames = torch.zeros(2, 32, 32, 3)
    frames[:, 8:24, 8:24] = 1
    (control,) = call("VDOTLines", frames=frames, threshold=0.25, thickness=1.5, softness=0.5).result
    assert float(control[0, 6:10, 16].min()) < 0.1 and float(control[0, 16, 16].min()) == 1


def test_a_drawing_of_nothing_is_said(call):
    frames = torch.zeros(2, 32, 32, 3)
    frames[0, 8:24, 8:24] = 1
    out = call("VDOTLines", frames=frames, threshold=0.25, thickness=1.5, softness=0.5)
    assert out.ui["text"] == ["no line in 1 of 2 frames; lower the threshold"]
    nobody = [{"people": [], "canvas_width": 64, "canvas_height": 64}] * 3
    out = call("VDOTDrawPose", keypoints=nobody, width=0, height=0, face=True, hands=False)
    assert out.ui["text"] == ["no pose in 3 of 3 frames; look at the pose estimator, or lower the threshold"]


def test_flow_says_who_made_it(call, flow_folder):
    pytest.importorskip("cv2")
    frames = torch.rand(3, 32, 32, 3)
    output = call("VDOTFlow", frames=frames, estimator="auto", scale="frame")
    control, report = output.result
    assert control.shape == frames.shape
    assert "OpenCV DIS" in report and "no RAFT weights" in report
    assert output.ui["text"] == [report]
    with pytest.raises(ValueError, match="models/optical_flow"):
        call("VDOTFlow", frames=frames, estimator="raft", scale="frame")


def test_flow_without_opencv_says_what_to_install(call, flow_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"pip install opencv-python-headless.*models/optical_flow"):
        call("VDOTFlow", frames=torch.rand(2, 32, 32, 3), estimator="auto", scale="frame")


def test_flow_takes_raft_from_the_models_folder(call, flow_folder):
    from torchvision.models.optical_flow import raft_small

    torch.save(raft_small(weights=None, progress=False).state_dict(), flow_folder / "raft_small_C_T_V2.pth")
    control, report = call("VDOTFlow", frames=torch.rand(2, 32, 32, 3), estimator="auto", scale="clip").result
    assert control.shape == (2, 32, 32, 3)
    assert "RAFT (small)" in report and "raft_small_C_T_V2.pth" in report


def test_flow_takes_comfyuis_own_optical_flow_model(call, flow_folder):
    import comfy.model_patcher
    from torchvision.models.optical_flow import raft_small

    network = raft_small(weights=None, progress=False).eval()
    patcher = comfy.model_patcher.ModelPatcher(network, torch.device("cpu"), torch.device("cpu"))
    _, report = call(
        "VDOTFlow", frames=torch.rand(2, 32, 32, 3), estimator="dis", scale="frame", optical_flow=patcher
    ).result
    assert "from the optical_flow input" in report


def test_depth_reports_flicker(call):
    depth = torch.rand(1, 24, 24, 1).expand(8, -1, -1, 3) * (1 + 0.2 * torch.rand(8, 1, 1, 1))
    control, report = call("VDOTNormalizeDepth", depth=depth, mode="stable", values="disparity").result
    assert control.shape == depth.shape
    before, after = (float(part.split("%")[0].split()[-1]) for part in (report, report.split(" before, ")[1]))
    assert after < 0.1 * before
    assert "cuts" not in report


def test_draw_pose_reads_what_sdpose_writes(call):
    """Raw whole-body estimates through ComfyUI's own SDPose packing."""
    from comfy_extras.nodes_sdpose import _to_openpose_frames

    points = torch.rand(133, 2).numpy() * [320, 240]
    keypoints = _to_openpose_frames([[points], []], [[torch.ones(133).numpy()], []], 240, 320)
    (control,) = call("VDOTDrawPose", keypoints=keypoints, width=0, height=0, face=True, hands=False).result
    assert control.shape == (2, 240, 320, 3)
    assert float(control[0].max()) == 1 and float(control[1].max()) == 0
