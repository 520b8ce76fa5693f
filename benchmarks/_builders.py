"""Cases of `memory.py`: every function of `vdot_core.vcu` and `vdot_core.signals` on one drawn clip.

Shape letters: F pixel frames, H W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from vdot_core import signals, vcu

EXEMPT = {
    "cut_frames": "flicker's fits",
    "find_nothing_kept": "masks alone are read",
    "latent_shape": "numbers",
    "widened_shape": "numbers",
    "load_raft": "a file of weights",
    "num_latent_frames": "numbers",
    "parse_keypoints": "numbers",
    "path_boxes": "numbers",
    "boxes_per_frame": "numbers",
    "raft_flow": "a network that the user chooses",
    "rounded_length": "numbers",
    "rounding_named": "errors",
    "snap_length": "numbers",
    "snap_size": "numbers",
    "strength_curve": "numbers",
    "strip": "a picture of 480 pixels",
    "track_boxes": "numbers",
    "window_strip": "a picture of 480 pixels",
}
"""Functions that are not measured: what they take and make is no clip, or whose time is another's."""


class DrawnClip:
    """A subject that moves over a still, textured background, with its mask, and inputs made from them.

    Args:
        num_frames, height, width: of the clip, and of 480p in proportion.
    """

    def __init__(self, num_frames: int, height: int, width: int):
        self.num_frames, self.height, self.width = num_frames, height, width
        rng = torch.Generator().manual_seed(0)
        coarse = torch.rand(1, 3, height // 16, width // 16, generator=rng)
        fine = torch.rand(height, width, 3, generator=rng)
        background = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
        background = (background.permute(1, 2, 0) * 0.8 + fine * 0.1).clamp(0, 1)
        self.frames = torch.empty(num_frames, height, width, 3)
        self.masks = torch.empty(num_frames, height, width)
        x, y = torch.arange(width), torch.arange(height)[:, None]
        self.boxes = []
        for index in range(num_frames):
            share = index / max(1, num_frames - 1)
            cx, cy = width * (0.3 + 0.4 * share), height * (0.45 + 0.1 * share)
            rx, ry = width * 0.144, height * 0.3125
            self.masks[index] = (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1).float()
            color = torch.tensor([0.2, 0.5, 0.9]) * (0.7 + 0.3 * (x / width))[None, :, None]
            self.frames[index] = torch.where(self.masks[index, ..., None] > 0, color, background)
            self.boxes.append([cx - rx, cy - ry, cx + rx, cy + ry])

    @property
    def size(self) -> dict[str, int]:
        return {"width": self.width, "height": self.height, "num_frames": self.num_frames}

    @property
    def half(self) -> dict[str, int]:
        """A canvas of half the side."""
        return {"width": self.width // 2, "height": self.height // 2}

    @property
    def people(self) -> list[dict]:
        """One person of 18 joints in every frame."""
        joints = [[0.5 + 0.2 * ((7 * k) % 5 - 2) / 2, 0.1 + 0.045 * k, 1.0] for k in range(18)]
        flat = [number for joint in joints for number in joint]
        return [
            {
                "people": [{"pose_keypoints_2d": flat}],
                "canvas_width": self.width,
                "canvas_height": self.height,
            }
        ] * self.num_frames

    @cached_property
    def flow(self) -> Tensor:
        motion = torch.stack([self.frames[..., 0] - 0.5, self.frames[..., 1] - 0.5], 1)
        return motion[1:] * 12


def pooling_vae(video: Tensor) -> Tensor:
    """Wan's latent shapes, one latent frame at a time, so that it holds nothing."""
    batch, total, height, width, _ = video.shape
    out = torch.zeros(batch, 16, (total - 1) // 4 + 1, height // 8, width // 8)
    for t in range(out.shape[2]):
        part = video[:, max(0, 4 * t - 3) : 4 * t + 1].mean(1)
        out[:, :3, t] = part.reshape(batch, height // 8, 8, width // 8, 8, 3).mean((2, 4)).permute(0, 3, 1, 2)
    return out


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        function: name in `vdot_core.vcu` or `vdot_core.signals` that it is an entry for.
        inputs: makes what is given to `run`, which is not counted.
        run: the call.
        node: the node whose work it is; empty = none.
    """

    function: str
    inputs: Callable[[DrawnClip], Any]
    run: Callable[[DrawnClip, Any], Any]
    node: str = ""


def _case(function: str, run: Callable[[DrawnClip], Any], node: str = "") -> Case:
    return Case(function, lambda clip: clip, lambda clip, _: run(clip), node)


def _encoded(unit: Callable[[DrawnClip], vcu.VCU], **options: Any) -> Case:
    return Case("encode", unit, lambda clip, made: vcu.encode(made, pooling_vae, **options), "VDOTEncode")


def _inpaint(clip: DrawnClip, **options: Any) -> vcu.VCU:
    return vcu.inpaint(clip.frames, clip.masks, **options)


def _both(clip: DrawnClip) -> vcu.VCU:
    """Two halves to encode: kept pixels, and a control under the mask."""
    return vcu.compose(_inpaint(clip), vcu.control(clip.frames.flip(2)))


def _paste(feather_px: int) -> Case:
    run = lambda clip, unit: vcu.paste_back(clip.frames, unit, feather_px=feather_px)  # noqa: E731
    return Case("paste_back", _inpaint, run, "VDOTPasteBack")


def _stitch(width: int, height: int) -> Case:
    """A window around the subject, generated at a share (in percent) of the clip's size."""

    def make(clip: DrawnClip) -> tuple:
        size = {"width": clip.width * width // 100, "height": clip.height * height // 100}
        part, mask, crop = vcu.crop_region(clip.frames, clip.masks, **size)
        return part, vcu.inpaint(part, mask), crop

    return Case("stitch", make, lambda clip, made: vcu.stitch(clip.frames, *made), "VDOTStitch")


CASES: dict[str, Case] = {
    "text": _case("text", lambda c: vcu.text(**c.size), "VDOTText"),
    "control": _case("control", lambda c: vcu.control(c.frames), "VDOTControl"),
    "control, scaled to half": _case("control", lambda c: vcu.control(c.frames, **c.half), "VDOTControl"),
    "control in a region": _case("control", lambda c: vcu.control(c.frames, region=c.masks), "VDOTControl"),
    "control of a span": _case("control", lambda c: vcu.control(c.frames, start=0.25), "VDOTControl"),
    "depth": _case("depth", lambda c: vcu.depth(c.frames[..., 0]), "VDOTDepth"),
    "depth, stable": _case(
        "depth", lambda c: vcu.depth(c.frames[..., 0], normalization="stable"), "VDOTDepth"
    ),
    "inpaint": _case("inpaint", _inpaint, "VDOTMask"),
    "inpaint, hull": _case("inpaint", lambda c: _inpaint(c, mask_shape="hull", expand=0.3), "VDOTMask"),
    "inpaint, grown by 64": _case("inpaint", lambda c: _inpaint(c, grow_px=64), "VDOTMask"),
    "inpaint, blur 8": _case("inpaint", lambda c: _inpaint(c, blur_px=8.0), "VDOTMask"),
    "inpaint, blur 128": _case("inpaint", lambda c: _inpaint(c, blur_px=128.0), "VDOTMask"),
    "inpaint, scaled to half": _case("inpaint", lambda c: _inpaint(c, **c.half), "VDOTMask"),
    "augment": _case("augment", lambda c: vcu.augment(c.masks, "box", 0.3)),
    "outpaint by sides": _case(
        "outpaint",
        lambda c: vcu.outpaint(c.frames[:, :, : c.width // 2], left=0.5, right=0.5),
        "VDOTOutpaint",
    ),
    "outpaint to a size": _case(
        "outpaint",
        lambda c: vcu.outpaint(c.frames, left=0.25, right=0.25, width=c.width, height=c.height),
        "VDOTOutpaint",
    ),
    "outpaint to a size, feathered": _case(
        "outpaint",
        lambda c: vcu.outpaint(c.frames, top=0.25, width=c.width, height=c.height, feather_px=16),
        "VDOTOutpaint",
    ),
    "extend": _case(
        "extend", lambda c: vcu.extend(c.frames[: c.num_frames // 2], num_frames=c.num_frames), "VDOTExtend"
    ),
    "keyframes": _case(
        "keyframes",
        lambda c: vcu.keyframes(c.frames[:3], [0, c.num_frames // 2, -1], num_frames=c.num_frames),
        "VDOTKeyframes",
    ),
    "reference": _case(
        "reference", lambda c: vcu.reference(c.frames[:2], masks=list(c.masks[:2]), **c.size), "VDOTReference"
    ),
    "layout": _case("layout", lambda c: vcu.layout(c.boxes, **c.size), "VDOTLayout"),
    "layout_masks": _case("layout_masks", lambda c: vcu.layout_masks(c.masks), "VDOTLayout"),
    "layout_masks, hull": _case(
        "layout_masks", lambda c: vcu.layout_masks(c.masks, mask_shape="hull", expand=0.1), "VDOTLayout"
    ),
    "move": _case(
        "move", lambda c: vcu.move(c.frames[0], [c.boxes], num_frames=c.num_frames), "VDOTMove"
    ),
    "compose": Case(
        "compose",
        lambda c: (_inpaint(c), vcu.control(c.frames)),
        lambda c, units: vcu.compose(*units),
        "VDOTCompose",
    ),
    "compose, three kinds": Case(
        "compose",
        lambda c: (
            _inpaint(c),
            vcu.control(c.frames),
            vcu.extend(c.frames[0], num_frames=c.num_frames),
        ),
        lambda c, units: vcu.compose(*units),
        "VDOTCompose",
    ),
    "box_masks": _case(
        "box_masks",
        lambda c: vcu.box_masks({"x": 9, "y": 9, "width": 99, "height": 99}, **c.size),
        "VDOTBoxMask",
    ),
    "crop_region": _case("crop_region", lambda c: vcu.crop_region(c.frames, c.masks), "VDOTCrop"),
    "crop_region, enlarged": _case(
        "crop_region",
        lambda c: vcu.crop_region(c.frames, c.masks, width=c.width, height=c.height),
        "VDOTCrop",
    ),
    "stitch": _stitch(100, 100),
    "stitch, shrunk": _stitch(50, 50),
    "paste_back, feather 8": _paste(8),
    "paste_back, feather 64": _paste(64),
    "preview": Case("preview", _both, lambda c, unit: vcu.preview(unit), "VDOTPreviewUnit"),
    "cover": _case("cover", lambda c: vcu.cover(c.frames, c.height, c.width)),
    "letterbox": _case("letterbox", lambda c: vcu.letterbox(c.frames[0], c.height, c.width)),
    "encode text": _encoded(lambda c: vcu.text(**c.size)),
    "encode a control": _encoded(lambda c: vcu.control(c.frames)),
    "encode an inpainting": _encoded(_inpaint),
    "encode two halves": _encoded(_both),
    "encode two halves in one pass": _encoded(_both, max_batch=2),
    "luma": _case("luma", lambda c: signals.luma(c.frames)),
    "to_gray": _case("to_gray", lambda c: signals.to_gray(c.frames), "VDOTGray"),
    "draw_lines": _case("draw_lines", lambda c: signals.draw_lines(c.frames), "VDOTLines"),
    "draw_lines, thick": _case(
        "draw_lines", lambda c: signals.draw_lines(c.frames, thickness=8.0, blur=4.0), "VDOTLines"
    ),
    "flow_video": _case(
        "flow_video", lambda c: signals.flow_video(c.frames, preset="ultrafast", scale="clip"), "VDOTFlow"
    ),
    "flow_to_frames": Case(
        "flow_to_frames", lambda c: c.flow, lambda c, flow: signals.flow_to_frames(flow), "VDOTFlow"
    ),
    "dis_flow": _case("dis_flow", lambda c: signals.dis_flow(c.frames, preset="ultrafast")),
    "draw_pose": _case("draw_pose", lambda c: signals.draw_pose(c.people), "VDOTDrawPose"),
    "draw_pose, pen 16": _case(
        "draw_pose", lambda c: signals.draw_pose(c.people, pen=16.0), "VDOTDrawPose"
    ),
    "normalize_depth": _case(
        "normalize_depth", lambda c: signals.normalize_depth(c.frames[..., :1]), "VDOTNormalizeDepth"
    ),
    "normalize_depth, gray video": Case(
        "normalize_depth",
        lambda c: (c.frames[..., :1] + 0.1).repeat(1, 1, 1, 3),
        lambda c, gray: signals.normalize_depth(gray, values="metric", mode="clip"),
        "VDOTNormalizeDepth",
    ),
    "normalize_depth, stable": _case(
        "normalize_depth",
        lambda c: signals.normalize_depth(c.frames[..., 0], mode="stable"),
        "VDOTNormalizeDepth",
    ),
    "flicker": _case("flicker", lambda c: signals.flicker(c.frames[..., 0], guide=c.frames)),
}  # fmt: skip
