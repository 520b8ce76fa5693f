"""Our nodes read the output of ComfyUI's detectors: their real code with fake networks.

What the networks say is known here (distances, heat maps, logits), so polarity, ranges, order and shapes can
be held against it.
"""

import asyncio
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.support import pack as pack_support

FRAMES, HEIGHT, WIDTH = 5, 64, 96


@pytest.fixture(scope="module")
def nodes(comfy):
    """ComfyUI's node classes by id, of the modules that the workflows use; nothing is moved to a device."""
    import comfy.model_management
    from comfy_extras import nodes_depth_anything_3, nodes_rtdetr, nodes_sam3, nodes_sdpose

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comfy.model_management, "load_model_gpu", lambda model: None)
        node_classes = {}
        for module in (nodes_depth_anything_3, nodes_rtdetr, nodes_sam3, nodes_sdpose):
            listed = asyncio.run(asyncio.run(module.comfy_entrypoint()).get_node_list())
            node_classes |= {node.GET_SCHEMA().node_id: node for node in listed}
        yield node_classes


@pytest.fixture(scope="module")
def call(nodes):
    """call('DA3Render', ..) runs one of ComfyUI's nodes or ours and returns its outputs."""
    ours = pack_support.load_nodes()
    return lambda node_id, **inputs: pack_support.run_node((nodes | ours)[node_id], **inputs).result


def model_of(network):
    """A MODEL as the detectors use it."""
    inner = SimpleNamespace(diffusion_model=network, get_dtype=lambda: torch.float32)
    return SimpleNamespace(model=inner, model_options={}, clone=lambda: model_of(network))


def clip():
    return torch.rand(FRAMES, HEIGHT, WIDTH, 3)


def disc(x, y, radius, height=HEIGHT, width=WIDTH):
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    return ((columns - x) ** 2 + (rows - y) ** 2 < radius**2).float()


# Depth Anything 3
class DepthNetwork:
    """A ball at 2 m that moves before a wall at 10 m, and sky above, for which the network says nonsense."""

    dtype = torch.float32

    def __init__(self, sky: bool):
        self.sky, self.frame = sky, 0

    def __call__(self, x):
        height, width = x.shape[-2:]
        ball = disc(width * (0.3 + 0.1 * self.frame), height * 0.6, height / 5, height, width)
        self.frame += 1
        depth = (10 - 8 * ball)[None]
        sky = torch.zeros(1, height, width)
        sky[:, : height // 5] = 1
        return {"depth": depth.where(sky == 0, 300), "sky": sky} if self.sky else {"depth": depth}


def depth_of(call, sky, **output):
    model = model_of(DepthNetwork(sky))
    options = {"resolution": 504, "resize_method": "upper_bound_resize", "mode": {"mode": "mono"}}
    (geometry,) = call("DA3Inference", da3_model=model, image=clip(), **options)
    (image,) = call("DA3Render", da3_geometry=geometry, output=output)
    assert image.shape == (FRAMES, HEIGHT, WIDTH, 3) and image.dtype == torch.float32
    return image


def balls():
    return [disc(WIDTH * (0.3 + 0.1 * frame), HEIGHT * 0.6, HEIGHT / 5) for frame in range(FRAMES)]


def check_near_is_bright(frames):
    """The ball white, the wall black, as VACE reads depth; their border is blurred by the resizing."""
    assert frames.min() >= 0 and frames.max() <= 1 and torch.equal(frames[..., 0], frames[..., 2])
    for frame, ball in zip(frames[..., 0], balls(), strict=True):
        assert frame[ball > 0].median() > 0.95 and frame[-4:].max() < 0.05


@pytest.mark.parametrize("mode", ["frame", "clip", "stable"])
def test_raw_distances_become_disparity(call, mode):
    """As the workflow is wired; Mono models see sky, Small ones do not."""
    for sky in (True, False):
        raw = depth_of(call, sky, output="depth", normalization="raw", apply_sky_clip=sky)
        assert raw.min() > 1.9 and raw.max() < 11, "meters, and the sky no farther than what is seen"
        control, report = call("VDOTNormalizeDepth", depth=raw, mode=mode, values="metric")
        check_near_is_bright(control)
        if sky:
            assert control[:, :6].max() < 0.05, "the sky is far"
        assert "flicker" in report
        size = {"width": 0, "height": 0, "length": 0}
        (unit,) = call("VDOTDepth", depth=control, normalization="none", invert=False, **size)
        assert torch.equal(unit.frames, control) and (unit.masks == 1).all()


def test_metric_distances_are_inverted_not_only_flipped(call):
    """1 / distance is what VACE's estimator gives, up to scale and shift."""
    ramp = torch.linspace(2, 10, WIDTH).expand(FRAMES, HEIGHT, WIDTH)
    geometry = {"depth": ramp, "image": clip(), "mode": "mono"}
    output = {"output": "depth", "normalization": "raw", "apply_sky_clip": False}
    (raw,) = call("DA3Render", da3_geometry=geometry, output=output)
    control, _ = call("VDOTNormalizeDepth", depth=raw, mode="frame", values="metric")
    expected = (1 / ramp - 0.1) / 0.4
    torch.testing.assert_close(control[..., 0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("normalization", ["v2_style", "min_max"])
def test_its_own_normalizations_are_near_bright_already(call, normalization):
    image = depth_of(call, False, output="depth", normalization=normalization, apply_sky_clip=False)
    size = {"width": 0, "height": 0, "length": 0}
    (unit,) = call("VDOTDepth", depth=image, normalization="frame", invert=False, **size)
    check_near_is_bright(unit.frames)


def test_colors_are_refused(call):
    image = depth_of(call, False, output="depth_colored", normalization="min_max", apply_sky_clip=False)
    for node, options in (
        ("VDOTNormalizeDepth", {"mode": "frame", "values": "disparity"}),
        ("VDOTDepth", {"normalization": "frame", "invert": False, "width": 0, "height": 0, "length": 0}),
    ):
        with pytest.raises(ValueError, match="color"):
            call(node, depth=image, **options)


# SDPose
COCO_BODY = {
    "nose": (48, 10), "left eye": (50, 8), "right eye": (46, 8), "left ear": (53, 9), "right ear": (43, 9),
    "left shoulder": (57, 20), "right shoulder": (39, 20), "left elbow": (62, 30), "right elbow": (34, 30),
    "left wrist": (64, 40), "right wrist": (32, 40), "left hip": (53, 40), "right hip": (43, 40),
    "left knee": (54, 50), "right knee": (42, 50), "left ankle": (54, 60), "right ankle": (42, 60),
}  # fmt: skip
OPENPOSE = (
    "nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow",
    "left wrist", "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle",
    "right eye", "left eye", "right ear", "left ear",
)  # fmt: skip
NUM_POINTS, NUM_FEET, FIRST_FACE, NUM_FACE = 133, 6, 23, 68


def face_points():
    angles = np.linspace(0, 2 * np.pi, NUM_FACE, endpoint=False)
    return np.stack([48 + 4 * np.cos(angles), 10 + 5 * np.sin(angles)], 1)


def true_points():
    """[133, 2] in pixels of the clip, of COCO's whole-body points; feet and hands are not seen."""
    points = np.full((NUM_POINTS, 2), np.nan)
    points[:17] = list(COCO_BODY.values())
    points[FIRST_FACE : FIRST_FACE + NUM_FACE] = face_points()
    return points


@pytest.fixture
def keypoints(call, monkeypatch):
    """Through SDPose's own extractor and its own head: only the U-Net before them is left out."""
    import comfy.ops
    import comfy.sample
    from comfy.ldm.modules.sdpose import HeatmapHead

    head = HeatmapHead(deconv_out_channels=(), deconv_kernel_sizes=(), conv_out_channels=(),
                       conv_kernel_sizes=(), operations=comfy.ops.disable_weight_init)  # fmt: skip
    with torch.no_grad():
        head.final_layer.weight.copy_(torch.eye(NUM_POINTS, 640)[:, :, None, None])
        head.final_layer.bias.zero_()
    columns, rows = (int(side) for side in head.heatmap_size)

    def sample(model, noise, *args, **kwargs):
        features = torch.zeros(len(noise), 640, rows, columns)
        for index, (x, y) in enumerate(true_points()):
            if not np.isnan(x):
                # The network's input is 4 times as large, and corners lie on corners (UDP).
                at_x = 4 * x / WIDTH * columns / float(head.scale_factor[0])
                at_y = 4 * y / HEIGHT * rows / float(head.scale_factor[1])
                dx, dy = torch.arange(columns) - at_x, torch.arange(rows)[:, None] - at_y
                features[:, index] = 0.9 * torch.exp(-(dx**2 + dy**2) / 8)
        (patch,) = model.model_options["transformer_options"]["patches"]["output_block_patch"]
        patch(features, None, {})

    monkeypatch.setattr(comfy.sample, "sample", sample)
    vae = SimpleNamespace(encode=lambda image: torch.zeros(len(image), 4, 8, 8))
    model = model_of(SimpleNamespace(heatmap_head=head))
    with torch.no_grad():
        return call("SDPoseKeypointExtractor", model=model, vae=vae, image=clip(), batch_size=2)[0]


def test_keypoints_are_openpose_frames_in_pixels(keypoints):
    assert len(keypoints) == FRAMES and json.loads(json.dumps(keypoints)) == keypoints
    for frame in keypoints:
        assert (frame["canvas_width"], frame["canvas_height"]) == (WIDTH, HEIGHT)
        (person,) = frame["people"]
        body = np.reshape(person["pose_keypoints_2d"], (18, 3))
        neck = np.mean([COCO_BODY["left shoulder"], COCO_BODY["right shoulder"]], 0)
        expected = [neck if name == "neck" else COCO_BODY[name] for name in OPENPOSE]
        assert np.abs(body[:, :2] - expected).max() < 0.6 and body[:, 2].min() > 0.7
        assert max(person["hand_left_keypoints_2d"][2::3]) <= 0, "what is not seen has no score"


def test_drawn_poses_are_those_of_the_true_points(call, keypoints):
    size = {"width": 8 * WIDTH, "height": 8 * HEIGHT}
    (picture,) = call("VDOTDrawPose", keypoints=keypoints, **size, face=True, hands=True)
    assert picture.shape == (FRAMES, 8 * HEIGHT, 8 * WIDTH, 3) and picture.dtype == torch.float32
    neck = np.mean([COCO_BODY["left shoulder"], COCO_BODY["right shoulder"]], 0)
    body = [(*(neck if name == "neck" else COCO_BODY[name]), 0.9) for name in OPENPOSE]
    person = {
        "pose_keypoints_2d": np.ravel(body).tolist(),
        "face_keypoints_2d": np.ravel([(x, y, 0.9) for x, y in face_points()]).tolist(),
    }
    exact = [{"people": [person], "canvas_width": WIDTH, "canvas_height": HEIGHT}]
    draw_pose = pack_support.submodule("vdot_core.signals").draw_pose
    (expected,) = draw_pose(exact, **size)
    for frame in picture:
        lit, expected_lit = frame.amax(-1) > 0.2, expected.amax(-1) > 0.2
        assert (lit & expected_lit).sum() / (lit | expected_lit).sum() > 0.75
        shoulder = slice(150, 170), slice(302, 322)
        torch.testing.assert_close(
            frame[shoulder].mean((0, 1)), expected[shoulder].mean((0, 1)), atol=0.1, rtol=0
        )


def test_a_clip_without_people_is_black(call):
    nobody = [{"people": [], "canvas_width": WIDTH, "canvas_height": HEIGHT}] * FRAMES
    (picture,) = call("VDOTDrawPose", keypoints=nobody, width=0, height=0, face=True, hands=False)
    assert picture.shape == (FRAMES, HEIGHT, WIDTH, 3) and not picture.any()


def test_a_face_box_cuts_the_face_out(call, keypoints):
    """As the workflow is wired: SDPose Face Bounding Boxes, VDOT Box Mask, VDOT Reference."""
    picture = torch.zeros(1, HEIGHT, WIDTH, 3)
    ys, xs = face_points()[:, 1].round().astype(int), face_points()[:, 0].round().astype(int)
    picture[0, ys, xs] = torch.tensor([1.0, 0, 0])
    (boxes,) = call("SDPoseFaceBBoxes", keypoints=keypoints[:1], scale=1.5, force_square=True)
    (mask,) = call("VDOTBoxMask", image=picture, bboxes=boxes, which="largest")
    assert mask.shape == (1, HEIGHT, WIDTH) and mask[0, ys, xs].mean() > 0.8 and mask.mean() < 0.1
    size = {"width": 64, "height": 64, "length": 5}
    (unit,) = call("VDOTReference", images={"image0": picture}, masks={"mask0": mask}, **size)
    (canvas,) = unit.references
    red = (canvas[..., 0] - canvas[..., 1] > 0.3).nonzero()
    assert (red.amax(0) - red.amin(0)).min() > 28, "the face fills the reference"


# SAM 3 and RT-DETR
def moving_discs():
    return torch.stack([disc(30 + 6 * frame, 30, 14) for frame in range(FRAMES)])


def tracked(masks):
    """SAM 3's tracker output: packed masks [F, objects, h, w/8], at its own resolution."""
    from comfy.ldm.sam3.tracker import pack_masks

    small = torch.nn.functional.interpolate(masks[:, None], size=(256, 256), mode="bilinear")
    return {"packed_masks": pack_masks(small - 0.5), "n_frames": len(masks), "scores": [0.9]}


def track(call, result):
    network = SimpleNamespace(forward_video=lambda **options: result)
    words = [[torch.zeros(1, 4, 8), {}]]
    options = {"detection_threshold": 0.5, "max_objects": 4, "detect_interval": 1}
    (data,) = call("SAM3_VideoTrack", images=clip(), model=model_of(network), conditioning=words, **options)
    return call("SAM3_TrackToMask", track_data=data, object_indices="")[0]


def test_a_tracked_mask_is_repainted(call):
    mask, frames, truth = track(call, tracked(moving_discs())), clip(), moving_discs()
    assert mask.shape == (FRAMES, HEIGHT, WIDTH) and 0 <= mask.min() and mask.max() <= 1
    size = {"width": 0, "height": 0, "length": 0}
    (unit,) = call("VDOTMask", frames=frames, mask=mask, mask_shape="original", expand=0.0, **size)
    assert (unit.masks - truth).abs().mean() < 0.01
    unmasked = unit.masks == 0
    assert torch.equal(unit.frames[unmasked], frames[unmasked]) and (unit.frames[~unmasked] == 0.5).all()
    (unit,) = call("VDOTMask", frames=frames, mask=mask, mask_shape="hull", expand=0.3, **size)
    assert unit.masks[truth > 0].min() == 1
    (layout,) = call(
        "VDOTLayout", masks={"mask0": mask}, boxes="", width=0, height=0, length=0, colors="",
        box_width=16, box_height=16, mask_shape="original", line_width=0,
    )  # fmt: skip
    assert layout.num_frames == FRAMES and (layout.frames < 0.5).any(-1).any(2).any(1).all()


def test_empty_detections_are_reported(call):
    mask = track(call, {"packed_masks": None, "n_frames": FRAMES})
    assert mask.shape == (FRAMES, HEIGHT, WIDTH) and not mask.any()
    size = {"width": 0, "height": 0, "length": 0}
    (unit,) = call("VDOTMask", frames=clip(), mask=mask, mask_shape="original", expand=0.0, **size)
    assert any("mask is empty" in note for note in unit.notes)


class DetectorNetwork:
    """Two objects a frame: logits of masks at its own resolution, boxes in pixels, scores as logits."""

    def __call__(self, frame, *, orig_size, **prompt):
        masks = torch.stack([disc(30, 30, 14), disc(80, 50, 6)])
        logits = (
            torch.nn.functional.interpolate(masks[:, None], size=(288, 288), mode="bilinear")[:, 0] * 8 - 4
        )
        boxes = torch.tensor([[16.0, 16, 44, 44], [74, 44, 86, 56]])
        return {"boxes": boxes[None], "scores": torch.tensor([[3.0, 2.0]]), "masks": logits[None]}


def detect(call, **options):
    words = [[torch.zeros(1, 4, 8), {"sam3_multi_cond": [
        {"cond": torch.zeros(1, 4, 8), "attention_mask": None, "max_detections": 5}
    ]}]]  # fmt: skip
    options = {"threshold": 0.5, "refine_iterations": 0, "individual_masks": False, **options}
    return call("SAM3_Detect", model=model_of(DetectorNetwork()), image=clip(), conditioning=words, **options)


def test_detected_masks_and_boxes(call):
    masks, boxes = detect(call)
    truth = disc(30, 30, 14) + disc(80, 50, 6)
    assert masks.shape == (FRAMES, HEIGHT, WIDTH) and (masks - truth).abs().mean() < 0.01
    (box,) = call("VDOTBoxMask", image=clip(), bboxes=boxes, which="largest")
    expected = torch.zeros(FRAMES, HEIGHT, WIDTH)
    expected[:, 16:44, 16:44] = 1
    assert torch.equal(box, expected)


def test_masks_of_single_objects_are_refused_with_a_cure(call):
    masks, _ = detect(call, individual_masks=True)
    assert masks.shape == (2 * FRAMES, HEIGHT, WIDTH)
    with pytest.raises(ValueError, match="mask has 10 frames, the clip in frames has 5; give"):
        call(
            "VDOTMask",
            frames=clip(),
            mask=masks,
            mask_shape="original",
            expand=0.0,
            width=0,
            height=0,
            length=0,
        )


def test_people_that_rt_detr_finds(call):
    def network(images, size):
        assert images.shape[1:] == (3, 640, 640) and size == (WIDTH, HEIGHT)
        boxes = torch.tensor([[10.5, 5.0, 40.0, 60.0], [50.0, 8.0, 60.0, 30.0]])
        detections = {"boxes": boxes, "labels": torch.tensor([0, 2]), "scores": torch.tensor([0.9, 0.8])}
        return [detections] * len(images)

    options = {"threshold": 0.5, "class_name": "person", "max_detections": 4}
    (boxes,) = call("RTDETR_detect", model=model_of(network), image=clip(), **options)
    (mask,) = call("VDOTBoxMask", image=clip(), bboxes=boxes, which="all")
    expected = torch.zeros(FRAMES, HEIGHT, WIDTH)
    expected[:, 5:60, 10:40] = 1
    assert torch.equal(mask, expected)
