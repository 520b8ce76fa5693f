"""The evaluation network: recognizes the objects of a frame, their positions and the background.

One slot per object color: a per-pixel map says which pixels are of an object of that color, and what it
covers is pooled into a description of the object. It is used for scores, never for training a generator.

Letters: B clips, N frames, F frames of a clip, K object colors, H W pixels, D features.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdot_core.text import described, parse_json, shown

from ..clips.backgrounds import BACKGROUNDS
from ..clips.captions import DIRECTIONS
from ..clips.figure import SHAPE as FIGURE
from ..clips.sdf import SHAPES
from ..clips.shapes import COLORS, OBJECT_COLORS, SIZES

FILE_NAME = "vdot_tiny_evaluator.safetensors"
SEEN_SHAPES = (*SHAPES, FIGURE)
PATHS = ("still", "linear", "bounce", "circle")
FRAME_SIZE = 64
CLIP_FRAMES = 17
MAX_WIDTH = 4096


@dataclass(frozen=True)
class EvaluatorWidths:
    """Sizes of the network.

    Attributes:
        fine, middle, coarse: Channels at a half, a quarter and an eighth of the frame's resolution.
        slot: Width of an object's description.
        scene: Width of a frame's description, the features of the Frechet distance.
        motion: Width of the network that names a path.
    """

    fine: int = 32
    middle: int = 64
    coarse: int = 96
    slot: int = 96
    scene: int = 64
    motion: int = 96

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if type(value) is not int or not 1 <= value <= MAX_WIDTH:
                raise ValueError(f"{name} is {described(value)}; expected 1 to {MAX_WIDTH}")
        for name in ("fine", "middle", "coarse"):
            if getattr(self, name) < 8 or getattr(self, name) % 8:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a positive multiple of 8")


class FrameReading(NamedTuple):
    """The network's output for N frames; all but `scene` are logits or pixels.

    Attributes:
        labels: [N, 1 + K, H/2, W/2] logits of a pixel's owner: background first, then the object colors.
        presence: [N, K]; shape: [N, K, shapes]; size: [N, K, sizes].
        cells: [N, shapes, H/4, W/4] logits of the shape that a place is part of.
        position: [N, K, 2] center (x, y), 0 .. 1 across the frame.
        background: [N, colors]; kind: [N, kinds].
        colors, shapes: [N, K], [N, shapes] what is anywhere in the frame; they keep the objects in `scene`.
        scene: [N, D] features.
    """

    labels: Tensor
    presence: Tensor
    shape: Tensor
    size: Tensor
    cells: Tensor
    position: Tensor
    background: Tensor
    kind: Tensor
    colors: Tensor
    shapes: Tensor
    scene: Tensor


def _conv(num_in: int, num_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(num_in, num_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(8, num_out), nn.SiLU())


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width), _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class Evaluator(nn.Module):
    """The evaluation network: frames -> `FrameReading`.

    Args:
        widths: Sizes of its layers.
    """

    def __init__(self, widths: EvaluatorWidths | None = None) -> None:
        super().__init__()
        self.widths = w = widths or EvaluatorWidths()
        self.fine = _conv(3, w.fine, 5, 2)
        self.middle = nn.Sequential(_conv(w.fine, w.middle, 3, 2), _Residual(w.middle))
        self.coarse = nn.Sequential(_conv(w.middle, w.coarse, 3, 2), _conv(w.coarse, w.coarse))
        self.lateral = nn.Conv2d(w.coarse, w.middle, 1)
        self.joined = _conv(w.middle, w.middle)
        self.narrow = nn.Conv2d(w.middle, w.fine, 1)
        self.outline = _conv(w.fine, w.fine)
        self.to_labels = nn.Conv2d(w.fine, 1 + len(OBJECT_COLORS), 1)
        self.to_cells = nn.Conv2d(w.middle, len(SEEN_SHAPES), 1)
        self.slot = nn.Sequential(
            nn.Linear(w.middle + 3, w.slot), nn.SiLU(), nn.Linear(w.slot, w.slot), nn.SiLU()
        )
        self.to_object = nn.Linear(w.slot, 1 + len(SEEN_SHAPES) + len(SIZES) + 2)
        self.scene = nn.Sequential(
            nn.Linear(2 * w.coarse + w.middle, w.scene), nn.LayerNorm(w.scene), nn.SiLU()
        )
        scene_outputs = len(COLORS) + len(BACKGROUNDS) + len(OBJECT_COLORS) + len(SEEN_SHAPES)
        self.to_scene = nn.Linear(w.scene, scene_outputs)
        self.motion = nn.Sequential(
            nn.Linear(3 * CLIP_FRAMES, w.motion),
            nn.SiLU(),
            nn.Linear(w.motion, w.motion),
            nn.SiLU(),
            nn.Linear(w.motion, len(PATHS) + len(DIRECTIONS)),
        )

    def forward(self, frames: Tensor) -> FrameReading:
        """Read single frames.

        Args:
            frames: [N, H, W, 3] float in [0, 1], H and W multiples of 8.

        Returns:
            The reading, float32.
        """
        high = self.fine(frames.movedim(-1, 1).contiguous(memory_format=torch.channels_last) * 2 - 1)
        middle = self.middle(high)
        coarse = self.coarse(middle)
        joined = self.joined(middle + F.interpolate(self.lateral(coarse), scale_factor=2))
        labels = self.to_labels(
            self.outline(high + F.interpolate(self.narrow(joined), scale_factor=2))
        ).float()
        cells = self.to_cells(joined).float()
        objects, votes = self._objects(labels, joined.float(), cells)
        presence, shape, size, offset = objects.split([1, len(SEEN_SHAPES), len(SIZES), 2], dim=-1)
        share = F.avg_pool2d(labels.softmax(1)[:, :1], 2)
        behind = (joined.float() * share).sum((2, 3)) / (share.sum((2, 3)) + 1e-3)
        pooled = [coarse.float().mean((2, 3)), coarse.float().amax((2, 3)), behind]
        scene = self.scene(torch.cat(pooled, dim=-1))
        sizes = [len(COLORS), len(BACKGROUNDS), len(OBJECT_COLORS), len(SEEN_SHAPES)]
        heads = self.to_scene(scene).float().split(sizes, dim=-1)
        position = self._centers(labels) + 0.2 * offset
        return FrameReading(
            labels, presence[..., 0], shape + votes, size, cells, position, *heads, scene.float()
        )

    def _objects(self, labels: Tensor, features: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """[N, K, outputs] from the features that each color's pixels cover, and their votes for a shape."""
        owners = labels.softmax(1)[:, 1:]
        weights = F.avg_pool2d(owners, 2).flatten(2)
        area = weights.sum(-1, keepdim=True)
        pooled = weights @ torch.cat([features, cells], dim=1).flatten(2).transpose(1, 2) / (area + 1e-3)
        covered, votes = pooled.split([features.shape[1], cells.shape[1]], dim=-1)
        peak = owners.flatten(2).amax(-1, keepdim=True)
        described = self.slot(torch.cat([covered, area.sqrt() / 8, (area + 0.1).log() / 4, peak], dim=-1))
        return self.to_object(described).float(), votes

    @staticmethod
    def _centers(labels: Tensor) -> Tensor:
        """[N, K, 2] centers of mass of the colors' pixels, (x, y) in 0 .. 1."""
        owners = labels.softmax(1)[:, 1:]
        height, width = owners.shape[2:]
        y = (torch.arange(height, device=owners.device) + 0.5) / height
        x = (torch.arange(width, device=owners.device) + 0.5) / width
        mass = owners.sum((2, 3)) + 1e-3
        middle = [(owners.sum(2) * x).sum(-1), (owners.sum(3) * y).sum(-1)]
        # An absent color's small mass is pulled to the frame's center.
        return torch.stack([(m + 5e-4) / mass for m in middle], dim=-1)

    def name_motion(self, positions: Tensor, presence: Tensor) -> tuple[Tensor, Tensor]:
        """Name paths from where objects are in every frame.

        Args:
            positions: [M, 17, 2] centers (x, y) in 0 .. 1.
            presence: [M, 17] float in [0, 1], confidence that the object is visible.

        Returns:
            Logits of `PATHS` [M, 4] and of `DIRECTIONS` [M, 8].
        """
        if positions.shape[1] != CLIP_FRAMES:
            raise ValueError(f"positions has {positions.shape[1]} frames; paths are named over {CLIP_FRAMES}")
        weight = presence[..., None]
        middle = (positions * weight).sum(1, keepdim=True) / (weight.sum(1, keepdim=True) + 1e-3)
        around = 4 * (positions - middle) * weight
        logits = self.motion(torch.cat([around.flatten(1), presence], dim=-1)).float()
        return logits[:, : len(PATHS)], logits[:, len(PATHS) :]


def save_evaluator(network: Evaluator, path: str | Path) -> None:
    """Write the network as float16 safetensors, its sizes in the metadata, atomically."""
    from training.engine.files import save_safetensors

    tensors = {key: value.half() for key, value in network.state_dict().items()}
    save_safetensors(tensors, path, {"config": json.dumps({"evaluator": asdict(network.widths)})})


def load_evaluator(path: str | Path) -> Evaluator:
    """Read a file of `save_evaluator`: in float32, for evaluation.

    Raises:
        ValueError: The file is something else.
    """
    from training.data.weights import assign_weights
    from vdot_core.checkpoints import read_tensors

    weights, metadata = read_tensors(path, "an evaluation network")
    try:
        widths = EvaluatorWidths(**parse_json(metadata.get("config", "{}"))["evaluator"])
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{shown(path, 160)} holds no evaluation network; give a file of save_evaluator"
        ) from error
    with torch.device("meta"):
        network = Evaluator(widths)
    tensors = {key: value.float() for key, value in weights.items()}
    assign_weights(network, tensors, path, "an evaluation network")
    return network.eval().requires_grad_(False)
