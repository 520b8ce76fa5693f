"""Every task as a unit made from a drawn clip, by the functions that the nodes call.

`TASKS[name](clip, generator)` gives the unit; the generator chooses what is left open (margins, moments), so
equal seeds give equal units. For `removal`, and for `swap` with another clip's references, the clip itself is
not what the video should become: these are for trying, not for learning from.

Letters: F frames, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vdot_core import signals, vcu

from .shapes import FRAME_RATE, Clip

STEP_SECONDS, SCORE = 0.9, 0.9

Build = Callable[[Clip, torch.Generator], vcu.VCU]


def _canvas(clip: Clip) -> dict[str, int]:
    num_frames, height, width = clip.frames.shape[:3]
    return {"width": width, "height": height, "num_frames": num_frames}


def _grey_rgb(maps: Tensor) -> Tensor:
    return maps[..., None].expand(*maps.shape, 3)


def _pick(generator: torch.Generator, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def exact_flow(clip: Clip) -> Tensor:
    """Motion from each frame to the next as it was drawn, [F-1, 2, H, W] (x, y) in pixels.

    The background drifts by the clip's pan; what an object covers moves with its centre and turns with it.
    """
    num_frames, height, width = clip.frames.shape[:3]
    x, y = torch.arange(width) + 0.5, torch.arange(height)[:, None] + 0.5
    flow = torch.tensor(clip.pan).div(FRAME_RATE)[None, :, None, None]
    flow = flow.expand(num_frames - 1, 2, height, width).clone()
    for track, masks in zip(clip.objects, clip.object_masks, strict=True):
        for frame in range(num_frames - 1):
            (here_x, here_y), (next_x, next_y) = track.centres[frame : frame + 2].tolist()
            turn = float(track.angles[frame + 1] - track.angles[frame])
            dx, dy = x - here_x, y - here_y
            moved_x = math.cos(turn) * dx - math.sin(turn) * dy + next_x - x
            moved_y = math.sin(turn) * dx + math.cos(turn) * dy + next_y - y
            covered = masks[frame] > 0
            flow[frame, 0][covered] = moved_x.expand(height, width)[covered]
            flow[frame, 1][covered] = moved_y.expand(height, width)[covered]
    return flow


def walking_skeleton(clip: Clip) -> list[dict]:
    """Someone walking along with the clip's nearest object: OpenPose keypoints, one dict for each frame."""
    num_frames, height, width = clip.frames.shape[:3]
    track = clip.objects[-1]
    unit, middle = 0.88 * height / 8, 0.46 * height  # a body is eight heads high
    side = 1.0 if track.centres[-1, 0] >= track.centres[0, 0] else -1.0
    frames = []
    for frame in range(num_frames):
        phase = 2 * math.pi * frame / FRAME_RATE / STEP_SECONDS
        x = float(track.centres[frame, 0])
        points = [(x + side * unit * px, middle + unit * py, SCORE) for px, py in _stride(phase)]
        person = {"pose_keypoints_2d": [value for point in points for value in point]}
        frames.append({"people": [person], "canvas_width": width, "canvas_height": height})
    return frames


def _stride(phase: float) -> list[tuple[float, float]]:
    """COCO-18 joints of one moment of a walk to the right, in heads from the body's middle, y down."""
    bob = 0.12 * abs(math.sin(phase))

    def limb(x: float, y: float, swing: float, bend: float, upper: float, lower: float):
        joint = (x + upper * math.sin(swing), y + upper * math.cos(swing))
        return joint, (joint[0] + lower * math.sin(swing + bend), joint[1] + lower * math.cos(swing + bend))

    nose, neck = (0.45, -3.2 - bob), (0.05, -2.5 - bob)
    shoulders = [(0.05 + 0.35 * s, -2.4 - bob) for s in (-1, 1)]
    hips = [(0.22 * s, 0.1 - bob) for s in (-1, 1)]
    arms = [limb(*shoulders[i], -0.55 * s * math.sin(phase), 0.35, 1.3, 1.2) for i, s in enumerate((-1, 1))]
    legs = [
        limb(*hips[i], 0.5 * s * math.sin(phase), -0.35 * max(0.0, s * math.cos(phase)), 1.9, 1.9)
        for i, s in enumerate((-1, 1))
    ]
    eyes, ears = [(0.42, -3.4 - bob), (0.58, -3.4 - bob)], [(0.05, -3.3 - bob), (0.2, -3.3 - bob)]
    joints = [nose, neck]
    for shoulder, arm in zip(shoulders, arms, strict=True):
        joints += [shoulder, *arm]
    for hip, leg in zip(hips, legs, strict=True):
        joints += [hip, *leg]
    return joints + eyes + ears


def boxes_of(clip: Clip) -> list[dict[int, list[int]]]:
    """Each object's box (left, top, right, bottom) in every frame where it is seen."""
    things = []
    for masks in clip.object_masks:
        boxes = {}
        for frame, mask in enumerate(masks):
            rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
            if len(rows):
                boxes[frame] = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
        if boxes:
            things.append(boxes)
    return things


def _depth(clip: Clip, generator: torch.Generator) -> vcu.VCU:
    return vcu.depth(clip.depth)


def _pose(clip: Clip, generator: torch.Generator) -> vcu.VCU:
    return vcu.control(signals.draw_pose(walking_skeleton(clip)))


def _flow(clip: Clip, generator: torch.Generator) -> vcu.VCU:
    maps = signals.flow_to_frames(exact_flow(clip))
    return vcu.control(torch.cat([maps[:1], maps]))


def _gray(clip: Clip, generator: torch.Generator) -> vcu.VCU:
    return vcu.control(signals.to_gray(clip.frames))


def _scribble(clip: Clip, generator: torch.Generator) -> vcu.VCU:
    """VACE's scribbles are dark on white; the clip's lines are bright on black."""
    return vcu.control(_grey_rgb(1 - clip.lines))


def _layout(clip: Clip, generator: torch.Generator) -> vcu.VCU:
    return vcu.layout(boxes_of(clip), colors=[track.rgb for track in _seen(clip)], **_canvas(clip))


def _layout_track(clip: Clip, generator: torch.Generator) -> vcu.VCU:
    seen = [masks for masks in clip.object_masks if masks.any()]
    return vcu.layout_masks(seen, colors=[track.rgb for track in _seen(clip)])


def _seen(clip: Clip) -> list:
    return [track for track, masks in zip(clip.objects, clip.object_masks, strict=True) if masks.any()]


def _inpainting(clip: Clip, generator: torch.Generator) -> vcu.VCU:
    return vcu.inpaint(clip.frames, clip.masks)


def _outpainting(clip: Clip, generator: torch.Generator) -> vcu.VCU:
    """The clip's middle is kept; the canvas is the clip's own size."""
    height, width = clip.frames.shape[1:3]
    left, right = (16 * _pick(generator, 0, max(0, width // 64)) + 8 for _ in range(2))
    top, bottom = (16 * _pick(generator, 0, max(0, height // 64)) + 8 for _ in range(2))
    kept = clip.frames[:, top : height - bottom, left : width - right]
    return vcu.outpaint(kept, left=left, right=right, top=top, bottom=bottom)


def _ends(first: int, last: int) -> Build:
    """Keep so many frames of the start and of the end."""

    def build(clip: Clip, generator: torch.Generator) -> vcu.VCU:
        start = clip.frames[:first] if first else None
        end = clip.frames[len(clip.frames) - last :] if last else None
        return vcu.extend(start, end, num_frames=len(clip.frames))

    return build


def _keyframes(clip: Clip, generator: torch.Generator) -> vcu.VCU:
    """An image at the start, one at the end, and a short clip between."""
    total = len(clip.frames)
    at = _pick(generator, 2, total - 5)
    images = [clip.frames[0], clip.frames[at : at + 3], clip.frames[-1]]
    return vcu.keyframes(images, [0, at, -1], num_frames=total)


def _reference(clip: Clip, generator: torch.Generator) -> vcu.VCU:
    """The nearest object cut out of the frame that shows most of it."""
    masks = clip.object_masks[-1]
    frame = int(masks.flatten(1).sum(1).argmax())
    return vcu.reference(clip.frames[frame], masks=masks[frame], **_canvas(clip))


def _references(clip: Clip, generator: torch.Generator) -> vcu.VCU:
    """Every object, on white already."""
    return vcu.reference(list(clip.references), **_canvas(clip))


def _swap_region(clip: Clip, generator: torch.Generator) -> vcu.VCU:
    return vcu.inpaint(clip.frames, clip.object_masks[-1], mask_shape="box", expand=vcu.EXPAND_RATIO)


def _garment(clip: Clip, generator: torch.Generator) -> vcu.VCU:
    """What is worn is replaced, not who wears it: the exact outline, rounded and a little wider."""
    return vcu.inpaint(clip.frames, clip.object_masks[-1], grow_px=2, blur_px=1.0)


def _removal(clip: Clip, generator: torch.Generator) -> vcu.VCU:
    mask = clip.object_masks[-1]
    return vcu.inpaint(clip.frames, mask, mask_shape="hull", expand=vcu.EXPAND_RATIO)


def _expand(clip: Clip, generator: torch.Generator) -> vcu.VCU:
    """The first frame's middle, to be widened and continued, with every object as a reference."""
    wide = _outpainting(clip, generator).replace(notes=())
    frames, masks = vcu.text(**_canvas(clip)).frames.clone(), torch.ones(clip.frames.shape[:3])
    frames[0], masks[0] = wide.frames[0], wide.masks[0]
    return vcu.compose(vcu.VCU(frames, masks, kind="extension"), _references(clip, generator))


def _move(clip: Clip, generator: torch.Generator) -> vcu.VCU:
    """The first frame, and the boxes of the nearest object."""
    return vcu.move(clip.frames[0], boxes_of(clip)[-1], num_frames=len(clip.frames))


def _both(first: Build, second: Build) -> Build:
    return lambda clip, generator: vcu.compose(first(clip, generator), second(clip, generator))


def _with_reference(build: Build) -> Build:
    return _both(_reference, build)


CONTROLS = {
    "depth": _depth,
    "pose": _pose,
    "flow": _flow,
    "gray": _gray,
    "scribble": _scribble,
    "layout": _layout,
    "layout_track": _layout_track,
}
SINGLE: dict[str, Build] = {
    "text": lambda clip, generator: vcu.text(**_canvas(clip)),
    **CONTROLS,
    "inpainting": _inpainting,
    "outpainting": _outpainting,
    "firstframe": _ends(1, 0),
    "lastframe": _ends(0, 1),
    "firstlast": _ends(1, 1),
    "firstclip": _ends(5, 0),
    "lastclip": _ends(0, 5),
    "firstlastclip": _ends(5, 5),
    "keyframes": _keyframes,
    "reference": _reference,
    "references": _references,
}
COMPOSITE: dict[str, Build] = {
    **{f"reference_{name}": _with_reference(build) for name, build in CONTROLS.items()},
    "reference_inpainting": _with_reference(_inpainting),
    "reference_outpainting": _with_reference(_outpainting),
    "reference_firstframe": _with_reference(_ends(1, 0)),
    "firstframe_pose": _both(_ends(1, 0), _pose),
    "inpainting_depth": _both(_inpainting, _depth),
    "animate": _both(_references, _pose),
    "swap": _with_reference(_swap_region),
    "try_on": _with_reference(_garment),
    "expand": _expand,
    "move": _move,
    "removal": _removal,
}
TASKS: dict[str, Build] = {**SINGLE, **COMPOSITE}
