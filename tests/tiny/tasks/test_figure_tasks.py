"""Tasks that need a body or a face, against the stick figure's own joints and drawn pixels."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.boxes import grown_box
from tiny.clips.shapes import SPLITS, clip, figure_clip
from tiny.tasks import COMPOSITE, SINGLE, TRAINING
from vdot_core import signals
from vdot_core.vcu import EXPAND_RATIO

HEIGHT, WIDTH, FRAMES = 64, 96, 13
SIZE = {"height": HEIGHT, "width": WIDTH, "num_frames": FRAMES}
SEEDS = [SPLITS["evaluation"][i] for i in (0, 1, 4, 9)]  # who walk and run, arms below the head
HIP, KNEE, HEAD = 8, 9, slice(14, 18)
THIGH_HEADS, HEAD_RADIUS = 1.9, 0.62  # as the figure is built, in heads


@pytest.fixture(scope="module", params=SEEDS)
def scene(request):
    return figure_clip(request.param, **SIZE)


def build(name, scene, seed=None):
    task = (SINGLE | COMPOSITE)[name]
    return task(scene, None if seed is None else np.random.default_rng(seed))


def head_edges(joints, grow=0.0):
    """The box of the head in integer pixels, cut at the frame, from the joints of one frame."""
    head = float(torch.dist(joints[HIP], joints[KNEE])) / THIGH_HEADS
    x, y = joints[HEAD].mean(0).tolist()
    reach = HEAD_RADIUS * head * (1 + grow)
    left, right = max(0, int(np.floor(x - reach))), min(WIDTH, int(np.ceil(x + reach)))
    top, bottom = max(0, int(np.floor(y - reach))), min(HEIGHT, int(np.ceil(y + reach)))
    return left, top, right, bottom


def shown_on_white(crop):
    """A crop [h, w, 3] as large as fits, centered on white, scaled by Pillow."""
    height, width = crop.shape[:2]
    scale = min(HEIGHT / height, WIDTH / width)
    new = int(width * scale), int(height * scale)
    channels = [
        Image.fromarray(crop[..., c].numpy()).resize(new, Image.Resampling.BILINEAR) for c in range(3)
    ]
    canvas = np.ones((HEIGHT, WIDTH, 3), dtype=np.float32)
    left, top = (WIDTH - new[0]) // 2, (HEIGHT - new[1]) // 2
    canvas[top : top + new[1], left : left + new[0]] = np.stack([np.asarray(c) for c in channels], -1)
    return torch.from_numpy(canvas)


def faces(scene, grow=0.0):
    """The head's reference in each frame."""
    edges = [head_edges(joints, grow) for joints in scene.joints]
    return [
        shown_on_white(frame[top:bottom, left:right])
        for frame, (left, top, right, bottom) in zip(scene.frames, edges, strict=True)
        if left < right and top < bottom
    ]


def distance(image, others):
    return min(float((image - other).abs().max()) for other in others)


def check_face(unit, scene):
    """One reference: the head's box with all that is in it, upon white."""
    assert len(unit.references) == 1
    assert distance(unit.references[0], faces(scene)) < 1e-4


@pytest.mark.parametrize("seed", SEEDS)
def test_a_heads_box_holds_the_head_and_touches_it(seed):
    """The drawn disc fills what a disc fills of its box, and touches three sides; the neck is below."""
    scene = figure_clip(seed, height=2 * HEIGHT, width=3 * HEIGHT, num_frames=5)
    for joints, mask, box in zip(
        scene.joints, scene.object_masks[0], scene.objects[0].head_boxes, strict=True
    ):
        reach = float(torch.dist(joints[HIP], joints[KNEE])) / THIGH_HEADS * HEAD_RADIUS
        center = joints[HEAD].mean(0)
        torch.testing.assert_close(box, torch.cat([center - reach, center + reach]), atol=1e-3, rtol=0)
        left, top, right, bottom = box.round().int().tolist()
        inside = mask[top:bottom, left:right]
        assert 0.7 < float(inside.mean()) < 0.9 and not mask[: top - 1].any()
        assert inside[:2].any() and inside[:, :2].any() and inside[:, -2:].any()


def test_face(scene):
    unit = build("face", scene)
    assert (unit.frames == 0.5).all() and (unit.masks == 1).all() and unit.num_frames == FRAMES
    check_face(unit, scene)


def test_faces_of_training_are_detectors_boxes(scene):
    crops = [image for grow in (0.0, 0.15, 0.3) for image in faces(scene, grow)]
    units = [build("face", scene, seed) for seed in range(12)]
    assert all(distance(unit.references[0], crops) < 1e-4 for unit in units)
    assert len({unit.references[0].numpy().tobytes() for unit in units}) > 3


def test_face_and_pose(scene):
    unit = build("face_pose", scene)
    pose = signals.draw_pose(scene.keypoints, pen=256 / HEIGHT)
    assert torch.equal(unit.frames, pose) and unit.masks.min() == 1
    check_face(unit, scene)


def test_replacement(scene):
    """The skeleton in the figure's box, the clip around it bit for bit, and who comes instead on white."""
    unit = build("replacement", scene)
    region = np.stack([grown_box(mask, 0.1) for mask in scene.object_masks[0]])
    assert np.array_equal(unit.masks.numpy(), region.astype(np.float32))
    masked = torch.from_numpy(region)
    pose = signals.draw_pose(scene.keypoints, pen=256 / HEIGHT)
    assert torch.equal(unit.frames[~masked], scene.frames[~masked])
    assert torch.equal(unit.frames[masked], pose[masked])
    bones = pose.amax(-1) > 0.4
    assert bones[masked].sum() > 0.99 * bones.sum(), "the skeleton is where the figure was"
    (image,) = unit.references
    side = (WIDTH - HEIGHT) // 2
    torch.testing.assert_close(image[:, side : WIDTH - side], scene.references[0], atol=1e-6, rtol=0)
    assert (image[:, :side] == 1).all() and (image[:, -side:] == 1).all()


def test_training_hides_who_was_there_in_several_ways():
    scene = figure_clip(SEEDS[0], **SIZE)
    ratios = (0.0, 0.1, EXPAND_RATIO)
    regions = [np.stack([grown_box(mask, ratio) for mask in scene.object_masks[0]]) for ratio in ratios]
    variants = set()
    for seed in range(12):
        masks = TRAINING["replacement"](scene, np.random.default_rng(seed)).masks.numpy() > 0.5
        variants |= {
            ratio for ratio, region in zip(ratios, regions, strict=True) if np.array_equal(masks, region)
        }
        assert any(np.array_equal(masks, region) for region in regions)
    assert len(variants) == 3


def test_a_clip_without_a_figure_has_no_face():
    with pytest.raises(ValueError, match="shows no stick figure"):
        build("face", clip(SEEDS[0], **SIZE))
