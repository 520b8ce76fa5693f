"""The flow control: optical flow between consecutive frames as color-wheel maps.

VACE's annotator (ali-vilab/VACE, vace/annotators/flow.py) runs RAFT with 20 updates on consecutive frames,
paints each map on the Middlebury color wheel scaled by that map's own largest vector, and shows the first
map twice so that the clip keeps its length. Here RAFT is torchvision's, from a weights file of the user's;
without one, OpenCV's DIS.

Shape letters: F frames, H W pixels. A flow [F-1, 2, H, W] holds (x, y) in pixels from frame i to frame i + 1.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from ..memory import RGB
from ..progress import steps
from ..scratch import empty
from ..text import shown
from .frames import check_frames
from .gray import luma

RAFT_UPDATES = 20  # as the annotator
RAFT_STRIDE, RAFT_SMALLEST = 8, 128  # feature stride; torchvision needs 16 feature cells a side
VECTOR = 8  # bytes of a pixel's flow
DIS_SMALLEST = 16  # pixels a side: two of DIS's 8-pixel patches
DIS_PRESETS = ("ultrafast", "fast", "medium")


@dataclass(frozen=True)
class FlowVideo:
    """Color-wheel maps of a clip's motion.

    Attributes:
        frames: [F, H, W, 3] float32 in [0, 1]; the first map twice.
        peak_px: the longest vector of each of the F - 1 maps, in pixels.
        estimator: which estimator made them, in words.
    """

    frames: Tensor
    peak_px: tuple[float, ...]
    estimator: str


def flow_video(
    frames: Tensor,
    *,
    network: nn.Module | None = None,
    preset: Literal["ultrafast", "fast", "medium"] = "medium",
    scale: Literal["frame", "clip"] = "frame",
    still_px: float = 0.0,
    device: torch.device | str | None = None,
) -> FlowVideo:
    """Estimate a clip's optical flow and paint it.

    Args:
        frames: [F, H, W, 3] float in [0, 1], F at least 2.
        network: a RAFT from `load_raft`; OpenCV's DIS when None.
        preset: DIS's trade of speed for quality.
        scale: "frame" scales each map by its own longest vector (as VACE's annotator), "clip" all by the
            clip's.
        still_px: a map is never scaled by less than this, so that noise in a still shot stays pale; 0 as the
            annotator.
        device: where the network runs; its own when None.

    Returns:
        A `FlowVideo` of F maps on the clip's device.

    Raises:
        ValueError: not such a clip, unknown preset or scale.
        ImportError: DIS is asked for and OpenCV is not installed.
    """
    _check_scale(scale, still_px)
    check_frames(frames, minimum=2, pixel_bytes=RGB + (VECTOR if scale == "clip" else 0))
    estimates = _dis_flows(frames, preset) if network is None else _raft_flows(frames, network, device)
    name = f"RAFT ({_raft_size(network)})" if network is not None else f"OpenCV DIS ({preset})"
    maps = empty(frames.shape, frames.device)
    # A clip's scale is known at its end only.
    flows = empty((len(frames) - 1, 2, *frames.shape[1:3]) if scale == "clip" else (0,), frames.device)
    peaks = []
    for index, flow in zip(steps(range(len(frames) - 1)), estimates, strict=True):
        flow = flow.to(frames.device)
        peaks.append(_peak(flow))
        if scale == "clip":
            flows[index] = flow
        else:
            maps[index + 1] = _paint(flow, max(peaks[-1], still_px))
    for index, flow in enumerate(flows):
        maps[index + 1] = _paint(flow, max(*peaks, still_px))
    maps[0] = maps[1]
    return FlowVideo(maps, tuple(peaks), name)


def flow_to_frames(
    flow: Tensor, *, scale: Literal["frame", "clip"] = "frame", still_px: float = 0.0
) -> Tensor:
    """Paint flow on the Middlebury color wheel: hue is direction, saturation is speed, white is still.

    Args:
        flow: [N, 2, H, W] float, (x, y) in pixels.
        scale: "frame" or "clip", see `flow_video`.
        still_px: see `flow_video`.

    Returns:
        [N, H, W, 3] float32 in [0, 1].

    Raises:
        ValueError: wrong shape, NaN, unknown scale.
    """
    if flow.ndim != 4 or flow.shape[1] != 2 or 0 in flow.shape:
        raise ValueError(f"flow has shape {list(flow.shape)}; give [N, 2, H, W], x and y in pixels")
    _check_scale(scale, still_px)
    peaks = [_peak(one) for one in flow]
    if not all(map(math.isfinite, peaks)):
        raise ValueError("flow has NaN or infinite vectors; repair it before painting")
    out = empty((len(flow), *flow.shape[2:], 3), flow.device)
    for index, peak in enumerate(peaks):
        out[index] = _paint(flow[index], max(peak if scale == "frame" else max(peaks), still_px))
    return out


def dis_flow(frames: Tensor, *, preset: Literal["ultrafast", "fast", "medium"] = "medium") -> Tensor:
    """Optical flow by OpenCV's dense inverse search (Kroeger et al., 2016), on the CPU.

    Args:
        frames: [F, H, W, 3] float in [0, 1], F at least 2.
        preset: trade of speed for quality.

    Returns:
        [F-1, 2, H, W] float32 in pixels, on the clip's device.

    Raises:
        ValueError: not such a clip, or one too small. ImportError: OpenCV is not installed.
    """
    check_frames(frames, minimum=2)
    return torch.stack(list(_dis_flows(frames, preset))).to(frames.device)


def raft_flow(frames: Tensor, network: nn.Module, *, device: torch.device | str | None = None) -> Tensor:
    """Optical flow by RAFT (Teed and Deng, 2020).

    Args:
        frames: [F, H, W, 3] float in [0, 1], F at least 2.
        network: from `load_raft`.
        device: where the network runs; its own when None.

    Returns:
        [F-1, 2, H, W] float32 in pixels, on the clip's device.

    Raises:
        ValueError: not such a clip.
    """
    check_frames(frames, minimum=2)
    return torch.stack([flow.to(frames.device) for flow in _raft_flows(frames, network, device)])


def _check_scale(scale: str, still_px: float) -> None:
    if scale not in ("frame", "clip"):
        raise ValueError(f"scale is '{shown(scale, 60)}'; choose 'frame' or 'clip'")
    if not 0 <= still_px < float("inf"):
        raise ValueError(f"still_px is {still_px}; give a length in pixels, 0 or more")


def _peak(flow: Tensor) -> float:
    """Longest vector of [2, H, W]; `norm` along so short an axis takes ten times as long."""
    x, y = flow.float()
    return float((x.square() + y.square()).max().sqrt())


def _paint(flow: Tensor, scale_px: float) -> Tensor:
    """[2, H, W] -> [H, W, 3] on torchvision's wheel; `scale_px`, at least its peak, is full saturation.

    As `torchvision.utils.flow_to_image`, which takes twice as long and scales by the longest vector.
    """
    wheel = _color_wheel().to(flow.device)
    x, y = flow.float() / (scale_px + torch.finfo(torch.float32).eps)
    speed = (x.square() + y.square()).sqrt()
    place = (torch.atan2(-y, -x) / torch.pi + 1) / 2 * (len(wheel) - 1)
    below = place.floor()
    share, below = place.sub_(below), below.int().flatten()
    rest = 1 - share
    out = torch.empty(*flow.shape[1:], 3, device=flow.device)
    for channel, colors in enumerate(wheel.unbind(1)):
        color = colors.index_select(0, below).view_as(speed).mul_(rest)
        color += colors.roll(-1).index_select(0, below).view_as(speed).mul_(share)
        # 255 * (1 - speed * (1 - color)), in place
        color = color.neg_().add_(1).mul_(speed).neg_().add_(1).mul_(255)
        # Rounding leaves the longest vector a little below 0.
        torch.div(color.floor_().clamp_(min=0), 255, out=out[..., channel])
    return out


@lru_cache(maxsize=1)
def _color_wheel() -> Tensor:
    """Middlebury's wheel [55, 3] in [0, 1], as in torchvision: six arcs between the primary colors."""
    arcs = ((15, 0, 1, 1), (6, 1, 0, -1), (4, 1, 2, 1), (11, 2, 1, -1), (13, 2, 0, 1), (6, 0, 2, -1))
    rows = []
    for length, full, moving, direction in arcs:
        ramp = torch.floor(255 * torch.arange(length) / length)
        arc = torch.zeros(length, 3)
        arc[:, full] = 255
        arc[:, moving] = ramp if direction > 0 else 255 - ramp
        rows.append(arc)
    return torch.cat(rows) / 255


def _dis_flows(frames: Tensor, preset: str) -> Iterator[Tensor]:
    """DIS from each frame to the next, [2, H, W]; says what to install where OpenCV is missing."""
    if preset not in DIS_PRESETS:
        raise ValueError(f"preset is '{shown(preset, 60)}'; choose one of {', '.join(DIS_PRESETS)}")
    height, width = frames.shape[1:3]
    if min(height, width) < DIS_SMALLEST:
        raise ValueError(f"frames are {width}x{height}; DIS needs at least {DIS_SMALLEST} pixels a side")
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "flow without RAFT needs OpenCV: `pip install opencv-python-headless` in ComfyUI's Python, "
            "or put torchvision's raft_large_C_T_SKHT_V2-ff5fadd5.pth into models/optical_flow"
        ) from error
    estimator = cv2.DISOpticalFlow_create(DIS_PRESETS.index(preset))
    grays = ((luma(frame.float().clamp(0, 1)) * 255).round().to(torch.uint8) for frame in frames)
    for first, second in pairwise(gray.cpu().numpy() for gray in grays):
        flow = torch.from_numpy(estimator.calc(first, second, None))
        yield rearrange(flow, "h w c -> c h w").contiguous()


def _raft_flows(frames: Tensor, network: nn.Module, device: torch.device | str | None) -> Iterator[Tensor]:
    """RAFT from each frame to the next, padded by their border to a size it takes, as its authors do."""
    device = device or next(network.parameters()).device

    @torch.no_grad()
    def pair(first: Tensor, second: Tensor) -> Tensor:
        images = torch.stack([first, second]).to(device=device, dtype=torch.float32).clamp(0, 1)
        images = rearrange(images, "f h w c -> f c h w") * 2 - 1
        height, width = images.shape[-2:]
        extra_y, extra_x = (
            max(RAFT_SMALLEST, -(-size // RAFT_STRIDE) * RAFT_STRIDE) - size for size in (height, width)
        )
        top, left = extra_y // 2, extra_x // 2
        images = nn.functional.pad(images, (left, extra_x - left, top, extra_y - top), mode="replicate")
        flow = network(images[:1], images[1:], num_flow_updates=RAFT_UPDATES)[-1]
        if not torch.isfinite(flow).all():
            raise ValueError("RAFT's flow holds NaN or infinite numbers; download its weights again")
        return flow[0, :, top : top + height, left : left + width].clone()

    for first, second in pairwise(frames):
        yield pair(first, second)


def _raft_size(network: nn.Module) -> str:
    """ "large" or "small", by the width of its first layer."""
    return "small" if network.feature_encoder.convnormrelu[0].out_channels == 32 else "large"
