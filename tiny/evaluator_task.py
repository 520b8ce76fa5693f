"""Trains the evaluation network on clips of separate seeds, degraded like generated ones.

Letters: B clips, N frames, K object colors, H W pixels.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.data.wan_vae import load_vae
from training.distributed.precision import uses_bf16
from training.engine.average import AveragedWeights
from training.engine.muon import split_optimizers

from .clips.backgrounds import BACKGROUNDS
from .clips.captions import DIRECTIONS
from .clips.shapes import COLORS, OBJECT_COLORS, SIZES, SPLITS, Clip, clip, figure_clip
from .config import PretrainConfig
from .evaluation.accuracy import VISIBLE_PIXELS, background_words, reading_accuracy, stack_frames
from .evaluation.degrade import degrade, through_vae
from .evaluation.network import (
    CLIP_FRAMES,
    FILE_NAME,
    PATHS,
    SEEN_SHAPES,
    Evaluator,
    EvaluatorWidths,
    FrameReading,
    save_evaluator,
)
from .evaluation.observe import observe
from .learning import cosine_lr, set_lr

VAE_FRAMES = 5
POSITION_NOISE = 0.012
NO_TARGET = -100


def frame_targets(scene: Clip, frames: list[int]) -> dict[str, Tensor]:
    """The truth of some frames of a clip, in the shapes of `FrameReading`; `NO_TARGET` where there is none.

    Args:
        scene: The clip.
        frames: Indices of its frames.
    """
    count, num_colors = len(frames), len(OBJECT_COLORS)
    masks = scene.object_masks[:, frames]
    labels = torch.zeros(count, 1 + num_colors, *masks.shape[2:])
    targets = {
        "presence": torch.zeros(count, num_colors),
        "shape": torch.full((count, num_colors), NO_TARGET),
        "size": torch.full((count, num_colors), NO_TARGET),
        "position": torch.full((count, num_colors, 2), float("nan")),
    }
    shapes = torch.zeros(count, len(SEEN_SHAPES))
    cells = torch.full((count, *(side // 4 for side in masks.shape[2:])), NO_TARGET)
    for track, mask in zip(scene.objects, masks, strict=True):
        slot, shape = OBJECT_COLORS.index(track.color), SEEN_SHAPES.index(track.shape)
        labels[:, 1 + slot] = mask
        cells[F.avg_pool2d(mask, 4) > 0.4] = shape
        area = mask.sum((1, 2))
        visible = area >= VISIBLE_PIXELS
        # A few pixels are neither absence nor presence.
        targets["presence"][:, slot] = torch.where(visible, 1.0, torch.where(area > 0, 0.5, 0.0))
        shapes[visible, shape] = 1
        # Mostly hidden objects have no shape target.
        clear = area >= 0.6 * area.amax().clamp_min(1)
        targets["shape"][visible & clear, slot] = shape
        targets["size"][visible & clear, slot] = tuple(SIZES).index(track.size_name)
        targets["position"][visible, slot] = (track.centers[frames] / masks.shape[-1])[visible]
    labels[:, 0] = 1 - labels[:, 1:].sum(1)
    kind, color = background_words(scene)
    return {
        **targets,
        "labels": F.avg_pool2d(labels, 2),
        "cells": cells,
        "shapes": shapes,
        "colors": (targets["presence"] == 1).float(),
        "background": torch.full((count,), list(COLORS).index(color)),
        "kind": torch.full((count,), BACKGROUNDS.index(kind)),
    }


def reading_loss(reading: FrameReading, targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """The terms of the loss, weighted; each a scalar."""
    where = ~targets["position"][..., 0].isnan()
    position = (reading.position[where] - targets["position"][where]).abs().mean()
    return {
        "labels": -(targets["labels"] * reading.labels.log_softmax(1)).sum(1).mean() * 2,
        "presence": F.binary_cross_entropy_with_logits(reading.presence, targets["presence"]),
        "shape": F.cross_entropy(reading.shape.flatten(0, 1), targets["shape"].flatten()),
        "cells": F.cross_entropy(reading.cells, targets["cells"]),
        "size": 0.5 * F.cross_entropy(reading.size.flatten(0, 1), targets["size"].flatten()),
        "position": 5 * position,
        "background": 0.5 * F.cross_entropy(reading.background, targets["background"]),
        "kind": 0.5 * F.cross_entropy(reading.kind, targets["kind"]),
        "colors": 0.3 * F.binary_cross_entropy_with_logits(reading.colors, targets["colors"]),
        "shapes": 0.3 * F.binary_cross_entropy_with_logits(reading.shapes, targets["shapes"]),
    }


def turned_and_mirrored(positions: Tensor, headings: Tensor) -> tuple[Tensor, Tensor]:
    """The same tracks in all eight symmetries of the square frame.

    Args:
        positions: [M, F, 2] centers (x, y) in 0 .. 1.
        headings: [M] indices of `DIRECTIONS`, clockwise from the right, or `NO_TARGET`.

    Returns:
        [8 M, F, 2] and [8 M].
    """
    x, y = (positions - 0.5).unbind(-1)
    turned = [((x, y), 0), ((-y, x), 2), ((-x, -y), 4), ((y, -x), 6)]
    has_heading = headings != NO_TARGET
    tracks, names = [], []
    for (u, v), quarter in turned:
        heading = torch.where(has_heading, (headings + quarter) % 8, NO_TARGET)
        mirrored = torch.where(has_heading, (4 - headings - quarter) % 8, NO_TARGET)
        tracks += [torch.stack([u, v], -1), torch.stack([-u, v], -1)]
        names += [heading, mirrored]
    return torch.cat(tracks) + 0.5, torch.cat(names)


class EvaluatorTask:
    """The evaluation network in training; see `tiny.pretrain.Task`."""

    def __init__(self, config: PretrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        bf16 = uses_bf16(config.evaluator.bf16, device, "evaluator.bf16")
        self.settings = replace(config.evaluator, bf16=bf16)
        self.num_steps = self.settings.steps
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = Evaluator(EvaluatorWidths())
        self.network.to(device, memory_format=torch.channels_last)
        self.vae = load_vae(self.settings.vae).to(device)
        self.ema = AveragedWeights(self.network, config.ema)
        self.optimizers = split_optimizers(
            self.network.named_parameters(),
            excluded=("fine.0", "to_labels", "to_object", "to_scene", "motion.4"),
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
        )

    def _draw(self, step: int) -> list[Clip]:
        first = SPLITS["evaluator"].start + self.config.seed * 10_000_000 + step * self.settings.clips
        # Every eighth clip shows the stick figure.
        return [(figure_clip if i % 8 == 7 else clip)(first + i) for i in range(self.settings.clips)]

    def _frames(self, clips: list[Clip], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Degraded frames [N, H, W, 3] and their targets."""
        rng = np.random.default_rng([self.config.seed, step, 23])
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        count, settings = self.settings.frames, self.settings
        starts = rng.integers(0, CLIP_FRAMES - VAE_FRAMES + 1, settings.vae_clips)
        stretches = [d.frames[s : s + VAE_FRAMES] for d, s in zip(clips, starts, strict=False)]
        if stretches:
            noise = float(rng.uniform(0, settings.latent_noise))
            videos = torch.stack(stretches)
            stretches = list(through_vae(self.vae, videos, noise, generator, bf16=settings.bf16))
        images, targets = [], []
        for i, one in enumerate(clips):
            if i < len(stretches):
                within = rng.choice(VAE_FRAMES, count, replace=False)
                images.append(stretches[i][within])
                indices = [int(starts[i] + w) for w in within]
            else:
                indices = rng.choice(CLIP_FRAMES, count, replace=False).tolist()
                # The rest of the time the pixels are as drawn: real clips are read too.
                images.append(
                    degrade(one.frames[indices], rng) if rng.random() < 0.75 else one.frames[indices]
                )
            targets.append(frame_targets(one, indices))
        joined = {key: torch.cat([t[key] for t in targets]).to(self.device) for key in targets[0]}
        return torch.cat(images).to(self.device), joined

    def _motion_loss(self, clips: list[Clip], step: int) -> Tensor:
        """Naming paths from the true centers, with noise like that of the reading."""
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        everything = [(track, one.object_masks[n]) for one in clips for n, track in enumerate(one.objects)]
        # A figure's actions do not show in its center's path.
        tracks = [(track, mask) for track, mask in everything if track.path in PATHS]
        side = clips[0].frames.shape[1]
        positions = torch.stack([track.centers for track, _ in tracks]) / side
        paths = torch.tensor([PATHS.index(track.path) for track, _ in tracks])
        headings = [DIRECTIONS.index(t.direction) if t.path == "linear" else NO_TARGET for t, _ in tracks]
        positions, headings = turned_and_mirrored(positions, torch.tensor(headings))
        positions = positions + POSITION_NOISE * torch.randn(positions.shape, generator=generator)
        visible = torch.stack([mask.sum((1, 2)) >= VISIBLE_PIXELS for _, mask in tracks]).float().repeat(8, 1)
        visible = visible * (torch.rand(visible.shape, generator=generator) > 0.03)
        path, direction = self.network.name_motion(positions.to(self.device), visible.to(self.device))
        paths, headings = paths.repeat(8).to(self.device), headings.to(self.device)
        return 0.5 * (F.cross_entropy(path, paths) + F.cross_entropy(direction, headings))

    def train_step(self, step: int) -> dict[str, float]:
        """One step; returns the loss's terms, the gradient's norm and the learning rate."""
        settings = self.settings
        lr = cosine_lr(step, settings.steps, settings.lr, settings.lr_end)
        lr *= min(1.0, (step + 1) / 50)
        set_lr(self.optimizers, lr)
        clips = self._draw(step)
        frames, targets = self._frames(clips, step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.bf16):
            reading = self.network(frames)
        losses = {**reading_loss(reading, targets), "motion": self._motion_loss(clips, step)}
        loss = sum(losses.values())
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}; lower the learning rate")
        self.network.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        self.ema.update(self.network)
        terms = {name: value.item() for name, value in losses.items()}
        return {"loss": loss.item(), **terms, "grad": norm.item(), "lr": lr}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Right answers on held-out clips, as drawn and through the VAE ('vae_..'), averaged weights."""
        start = SPLITS["validation"].start
        clips = [clip(start + i) for i in range(self.settings.num_validation)]
        videos = stack_frames(clips)
        generator = torch.Generator().manual_seed(0)
        passed = torch.cat([through_vae(self.vae, video, 0.0, generator) for video in videos.split(4)])
        self.ema.swap(self.network)
        scores = reading_accuracy(observe(self.network, videos), clips)
        after = reading_accuracy(observe(self.network, passed), clips)
        self.ema.swap(self.network)
        return {**scores, **{f"vae_{name}": value for name, value in after.items()}}

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Write the averaged weights."""
        self.ema.swap(self.network)
        save_evaluator(self.network, Path(folder) / FILE_NAME)
        self.ema.swap(self.network)

    def state_dict(self) -> dict:
        """Weights, averages and optimizers."""
        parts = {"network": self.network.state_dict(), "ema": self.ema.state_dict()}
        return {**parts, "optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state: dict) -> None:
        """Restore `state_dict`'s."""
        self.network.load_state_dict(state["network"])
        self.ema.load_state_dict(state["ema"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
