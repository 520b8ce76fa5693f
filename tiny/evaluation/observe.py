"""Observes clips with the evaluation network.

Letters: B clips, F frames, K object colors, H W pixels, D features.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .network import CLIP_FRAMES, FRAME_SIZE, Evaluator

# An object is present if its mean presence over the frames exceeds one half.
PRESENT = 0.5


@dataclass(frozen=True, eq=False)
class Observation:
    """Observation of B clips; `observation[i]` is one clip's, without the leading dimension.

    Attributes:
        presence: [B, K] chance that an object of the color is there; seen: [B, F, K] the same by frame.
        shape: [B, K, shapes], size: [B, K, sizes], path: [B, K, paths], direction: [B, K, 8]: chances, in the
            order of their vocabularies.
        positions: [B, F, K, 2] centers (x, y) in 0 .. 1.
        background: [B, colors], kind: [B, kinds]: chances.
        labels: [B, F, H, W] uint8: 0 background, 1 + k an object of color k.
        features: [B, 2 D] of the clip: its frames' mean, and the mean change from frame to frame.
    """

    presence: Tensor
    seen: Tensor
    shape: Tensor
    size: Tensor
    path: Tensor
    direction: Tensor
    positions: Tensor
    background: Tensor
    kind: Tensor
    labels: Tensor
    features: Tensor

    def __getitem__(self, index: int) -> Observation:
        return Observation(*(getattr(self, field.name)[index] for field in fields(self)))

    def __len__(self) -> int:
        return len(self.presence)


@torch.no_grad()
def observe(network: Evaluator, videos: Tensor, *, batch: int = 8) -> Observation:
    """Observe clips.

    Args:
        network: From `load_evaluator`.
        videos: [B, 17, 64, 64, 3] float in [0, 1].
        batch: Clips per forward pass.

    Returns:
        The observation, on the CPU.

    Raises:
        ValueError: The clips are of another length or size than the network was trained on.
    """
    expected = (CLIP_FRAMES, FRAME_SIZE, FRAME_SIZE, 3)
    if videos.dim() != 5 or tuple(videos.shape[1:]) != expected:
        raise ValueError(f"videos is {list(videos.shape)}; the evaluation network takes [B, 17, 64, 64, 3]")
    device = next(network.parameters()).device
    parts = [_observe(network, chunk.float().to(device)) for chunk in videos.split(batch)]
    return Observation(
        *(torch.cat([getattr(p, field.name) for p in parts]).cpu() for field in fields(Observation))
    )


def _observe(network: Evaluator, videos: Tensor) -> Observation:
    batch = len(videos)
    reading = network(rearrange(videos, "b f h w c -> (b f) h w c").clamp(0, 1))
    over_time = {
        name: rearrange(getattr(reading, name), "(b f) ... -> b f ...", b=batch)
        for name in ("presence", "shape", "size", "position", "background", "kind", "scene")
    }
    presence = over_time["presence"].sigmoid()
    # A frame in which the object is hidden has no weight.
    weight = (presence / presence.sum(1, keepdim=True).clamp_min(1e-6))[..., None]
    motion_inputs = (
        rearrange(over_time["position"], "b f k xy -> (b k) f xy"),
        rearrange(presence, "b f k -> (b k) f"),
    )
    path, direction = (
        rearrange(x, "(b k) names -> b k names", b=batch).softmax(-1)
        for x in network.name_motion(*motion_inputs)
    )
    full = F.interpolate(reading.labels, scale_factor=2, mode="bilinear")
    scene = over_time["scene"]
    return Observation(
        presence=presence.mean(1),
        seen=presence,
        shape=(over_time["shape"].softmax(-1) * weight).sum(1),
        size=(over_time["size"].softmax(-1) * weight).sum(1),
        path=path,
        direction=direction,
        positions=over_time["position"],
        background=over_time["background"].softmax(-1).mean(1),
        kind=over_time["kind"].softmax(-1).mean(1),
        labels=rearrange(full.argmax(1).to(torch.uint8), "(b f) h w -> b f h w", b=batch),
        features=torch.cat([scene.mean(1), scene.diff(dim=1).abs().mean(1)], dim=-1),
    )
