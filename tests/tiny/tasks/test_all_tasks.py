"""Plain examples of every task of tiny/tasks.py against the clips' own masks, boxes and motion."""

import numpy as np
import pytest
import torch

from tests.support.boxes import box, grown_box
from tiny.clips.shapes import SPLITS, clip
from tiny.clips.units import skeleton
from tiny.tasks import COMPOSITE, SINGLE
from vdot_core import signals

cv2 = pytest.importorskip("cv2", reason="outlines are compared with OpenCV's")

HEIGHT, WIDTH, FRAMES = 48, 80, 13
SIZE = {"height": HEIGHT, "width": WIDTH, "num_frames": FRAMES}
FACES = {"face", "face_pose"}  # test_figure_tasks.py has those
SEEDS = [SPLITS["evaluation"][i] for i in (11, 18, 2)]  # two clips of two things, one of one


@pytest.fixture(scope="module", params=SEEDS)
def scene(request):
    return clip(request.param, **SIZE)


def build(name, scene):
    return (SINGLE | COMPOSITE)[name](scene)


def drawn_box(width, height, edges):
    """A box's outline as VACE draws it, as bool [H, W]."""
    left, top, right, bottom = (int(edge) for edge in edges)
    return cv2.rectangle(np.zeros((height, width), np.uint8), (left, top), (right, bottom), 1, 2) > 0


# What each control shows, computed from the clip's annotations alone: [F, H, W, 3].
def _rgb(maps):
    return maps[..., None].expand(*maps.shape, 3)


def _layout(scene):
    frames = np.ones((FRAMES, HEIGHT, WIDTH, 3), dtype=np.float32)
    for track, masks in zip(scene.objects, scene.object_masks, strict=True):
        for frame, mask in enumerate(masks):
            frames[frame][drawn_box(WIDTH, HEIGHT, box(mask))] = track.rgb
    return torch.from_numpy(frames)


def _layout_track(scene):
    frames = np.ones((FRAMES, HEIGHT, WIDTH, 3), dtype=np.float32)
    for track, masks in zip(scene.objects, scene.object_masks, strict=True):
        for frame, mask in enumerate(masks):
            outlines, _ = cv2.findContours(mask.byte().numpy(), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            frames[frame] = cv2.drawContours(frames[frame].copy(), outlines, -1, track.rgb, 3)
    return torch.from_numpy(frames)


CONTROLS = {
    "depth": lambda scene: _rgb(scene.depth),
    "pose": lambda scene: signals.draw_pose(skeleton(scene), pen=256 / HEIGHT),
    "flow": lambda scene: signals.flow_to_frames(scene.flow[[0, *range(FRAMES - 1)]]),
    "gray": lambda scene: _rgb(scene.frames @ torch.tensor([0.299, 0.587, 0.114])),
    "scribble": lambda scene: _rgb(1 - scene.lines),
    "layout": _layout,
    "layout_track": _layout_track,
}
REGIONS = {
    "inpainting": lambda scene: scene.masks.bool().numpy(),
    "swap": lambda scene: np.stack([grown_box(mask) for mask in scene.object_masks[-1]]),
}
KEPT = {
    "firstframe": [0],
    "lastframe": [12],
    "firstlast": [0, 12],
    "firstclip": [0, 1, 2, 3, 4],
    "lastclip": [8, 9, 10, 11, 12],
    "firstlastclip": [0, 1, 2, 3, 4, 8, 9, 10, 11, 12],
}


def check_control(unit, expected):
    assert unit.masks.min() == 1 and unit.num_frames == FRAMES
    # OpenCV clips thick contours at the frame's border in its own way: a few pixels there.
    differ = (unit.frames - expected).abs().amax(-1) > 2e-6
    assert differ[:, 2:-2, 2:-2].sum() == 0 and differ.sum() <= 0.0002 * differ.numel()


def check_region(unit, scene, region):
    assert np.array_equal(unit.masks.numpy() > 0.5, region)
    outside = torch.from_numpy(~region)
    assert torch.equal(unit.frames[outside], scene.frames[outside]) and (unit.frames[~outside] == 0.5).all()


def check_kept(unit, scene, indices):
    free = [frame for frame in range(FRAMES) if frame not in indices]
    assert unit.masks[indices].max() == 0 and unit.masks[free].min() == 1
    assert torch.equal(unit.frames[indices], scene.frames[indices]) and (unit.frames[free] == 0.5).all()


def check_outpainting(frames, masks, scene):
    """Kept is one rectangle, off every border, that shows the clip; the rest is gray."""
    center = masks == 0
    left, top, right, bottom = box(center[0])
    assert (
        center.sum() == len(center) * (right - left) * (bottom - top)
        and center[:, top:bottom, left:right].all()
    )
    assert 0 < left < right < WIDTH and 0 < top < bottom < HEIGHT and right - left >= WIDTH // 3
    assert torch.equal(frames[center], scene.frames[: len(frames)][center]) and (frames[~center] == 0.5).all()


def check_subject(images, scene):
    """One reference, on white, as large as fits, of the nearest thing's colors only."""
    assert len(images) == 1 and images[0].shape == (HEIGHT, WIDTH, 3)
    masks = scene.object_masks[-1]
    frame = int(masks.sum((1, 2)).argmax())
    left, top, right, bottom = box(masks[frame])
    scale = min(HEIGHT / (bottom - top), WIDTH / (right - left))
    colored = (images[0] < 0.999).any(-1)
    x0, y0, x1, y1 = box(colored)
    assert abs((x1 - x0) - scale * (right - left)) <= 2 and abs((y1 - y0) - scale * (bottom - top)) <= 2
    assert abs((x0 + x1) / 2 - WIDTH / 2) <= 1.5 and abs((y0 + y1) / 2 - HEIGHT / 2) <= 1.5
    share = float(masks[frame].sum() / ((right - left) * (bottom - top)))
    assert abs(float(colored.float().sum() / ((x1 - x0) * (y1 - y0))) - share) < 0.25


def check_all_references(images, scene):
    """Each complete object on white, in the clip's order, centered."""
    assert len(images) == len(scene.objects)
    for image, own in zip(images, scene.references, strict=True):
        middle = image[:, (WIDTH - HEIGHT) // 2 : (WIDTH + HEIGHT) // 2]
        torch.testing.assert_close(middle, own, atol=1e-6, rtol=0)
        assert (image[:, : (WIDTH - HEIGHT) // 2] == 1).all() and (
            image[:, -(WIDTH - HEIGHT) // 2 :] == 1
        ).all()


def check_frames(task, unit, scene):
    if task in CONTROLS:
        check_control(unit, CONTROLS[task](scene))
    elif task in REGIONS:
        check_region(unit, scene, REGIONS[task](scene))
    elif task in KEPT:
        check_kept(unit, scene, KEPT[task])
    elif task == "outpainting":
        check_outpainting(unit.frames, unit.masks, scene)
    else:
        assert (unit.frames == 0.5).all() and (unit.masks == 1).all()


@pytest.mark.parametrize("task", [name for name in SINGLE if name not in FACES])
def test_single_tasks_hold_what_the_clip_says(task, scene):
    unit = build(task, scene)
    if task == "keyframes":
        indices = (unit.masks[:, 0, 0] == 0).nonzero().flatten().tolist()
        assert indices[0] == 0 and indices[-1] == FRAMES - 1 and np.diff(indices[1:-1]).tolist() == [1, 1]
        check_kept(unit, scene, indices)
        return
    check_frames(task if task not in ("reference", "references") else "text", unit, scene)
    if task == "reference":
        check_subject(unit.references, scene)
    elif task == "references":
        check_all_references(unit.references, scene)
    else:
        assert unit.references == ()


@pytest.mark.parametrize("task", [name for name in COMPOSITE if name.startswith("reference_")])
def test_reference_and_another_task(task, scene):
    unit = build(task, scene)
    check_frames(task.removeprefix("reference_"), unit, scene)
    check_subject(unit.references, scene)


def test_animate(scene):
    unit = build("animate", scene)
    check_frames("pose", unit, scene)
    check_all_references(unit.references, scene)


def test_swap(scene):
    unit = build("swap", scene)
    check_frames("swap", unit, scene)
    check_subject(unit.references, scene)


def test_try_on(scene):
    """The clothes are covered, and at most four pixels around them."""
    unit = build("try_on", scene)
    check_subject(unit.references, scene)
    masked = unit.masks.bool()
    check_region(unit, scene, masked.numpy())
    worn = scene.object_masks[-1]
    near = torch.nn.functional.max_pool2d(worn[:, None], 9, 1, 4)[:, 0].bool()
    assert masked[worn.bool()].float().mean() > 0.98 and not (masked & ~near).any()


def test_removal(scene):
    """The object's enlarged convex hull is covered, so that its outline reveals nothing; no reference."""
    unit = build("removal", scene)
    masked = unit.masks.bool().numpy()
    check_region(unit, scene, masked)
    boxes = np.stack([grown_box(mask) for mask in scene.object_masks[-1]])
    assert (masked >= scene.object_masks[-1].bool().numpy()).all() and (masked <= boxes).all()
    assert unit.references == ()


def test_expand(scene):
    unit = build("expand", scene)
    check_outpainting(unit.frames[:1], unit.masks[:1], scene)
    assert (unit.frames[1:] == 0.5).all() and (unit.masks[1:] == 1).all()
    check_all_references(unit.references, scene)


def test_move(scene):
    unit = build("move", scene)
    assert torch.equal(unit.frames[0], scene.frames[0]) and unit.masks[0].max() == 0
    assert unit.masks[1:].min() == 1
    for frame in range(1, FRAMES):
        outline = drawn_box(WIDTH, HEIGHT, box(scene.object_masks[-1][frame]))
        expected = torch.from_numpy(1.0 - outline.astype(np.float32))
        assert torch.equal(unit.frames[frame], _rgb(expected))


def test_two_kinds_at_once(scene):
    unit = build("firstframe_pose", scene)
    pose = CONTROLS["pose"](scene)
    assert torch.equal(unit.frames[0], scene.frames[0]) and torch.equal(unit.frames[1:], pose[1:])
    assert unit.masks[0].max() == 0 and unit.masks[1:].min() == 1
    unit = build("inpainting_depth", scene)
    masked = scene.masks.bool()
    assert torch.equal(unit.masks.bool(), masked)
    torch.testing.assert_close(unit.frames, _rgb(scene.depth).where(masked[..., None], scene.frames))


def test_flow_is_the_motion_that_was_drawn(scene):
    """A pixel of an object, carried along the flow, lies on the object in the next frame."""
    flow = scene.flow
    masks = scene.object_masks
    hits = []
    for thing in range(len(masks)):
        for frame in range(0, FRAMES - 1, 3):
            ys, xs = masks[thing, frame].nonzero().unbind(1)
            moved_x = (xs + flow[frame, 0][ys, xs]).round().long()
            moved_y = (ys + flow[frame, 1][ys, xs]).round().long()
            inside = (moved_x >= 0) & (moved_x < WIDTH) & (moved_y >= 0) & (moved_y < HEIGHT)
            landed = masks[thing:, frame + 1].amax(0)[moved_y[inside], moved_x[inside]]
            hits.append(float(landed.mean()))
    assert min(hits) > 0.85


def test_skeleton_is_a_person(scene):
    people = signals.parse_keypoints(skeleton(scene))
    body = np.stack([crowd[0].body[:, :2] * (WIDTH, HEIGHT) for crowd in people])
    limbs = body[:, [8, 9, 11, 12]], body[:, [9, 10, 12, 13]]
    lengths = np.linalg.norm(limbs[0] - limbs[1], axis=-1)
    assert np.allclose(lengths, lengths[0], rtol=1e-6) and (body[:, [10, 13], 1] > body[:, [8, 11], 1]).all()
    assert (body[..., 1] > 0).all() and (body[..., 1] < HEIGHT).all()


def test_equal_seeds_give_equal_units():
    scene = clip(SEEDS[0], **SIZE)
    for name in (SINGLE | COMPOSITE).keys() - FACES:
        assert build(name, scene) == build(name, scene)
