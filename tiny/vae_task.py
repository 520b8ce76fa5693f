"""Training the tiny Wan VAE: images first, then 9 and 17 frames, at 32 then 64 pixels.

Letters: B batch, F frames, H W pixels.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from training.data.vae_passes import decode_latents, encode_moments
from training.data.wan_vae import build_vae, load_vae
from training.distributed.precision import uses_bf16
from training.engine.average import AveragedWeights
from training.engine.muon import split_optimizers

from .clips.shapes import SPLITS, clip
from .clips.textures import texture_clip
from .config import PretrainConfig, VaeStage
from .learning import psnr, set_lr
from .vae import fold_statistics, initialize_vae, save_vae

FILE_NAME = "vdot_tiny_vae.safetensors"
# Held-out textures start here; training counts up from 0.
TEXTURE_VALIDATION_START = 2**40


def _gray_region(frames: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask[..., None] > 0.5, torch.full_like(frames, 0.5), frames)


def sample_clip(
    seed: int, stage_size: tuple[int, int, int], texture_share: float, annotation_share: float
) -> Tensor:
    """The training clip of a seed: textures, shapes, or shapes as conditions show them.

    Args:
        seed: The sample's number.
        stage_size: (frames, pixels a side drawn, pixels a side cropped from that).
        texture_share, annotation_share: As in `VaeConfig`.

    Returns:
        [F, H, W, 3] float in [0, 1].
    """
    num_frames, full_size, size = stage_size
    frames = _draw(seed, (num_frames, full_size), texture_share, annotation_share)
    top, left = np.random.default_rng([seed, 6]).integers(0, full_size - size + 1, 2)
    return frames[:, top : top + size, left : left + size]


def _draw(seed: int, clip_size: tuple[int, int], texture_share: float, annotation_share: float) -> Tensor:
    """[F, H, W, 3] before cropping."""
    num_frames, size = clip_size
    shape = {"height": size, "width": size, "num_frames": num_frames}
    rng = np.random.default_rng([seed, 5])
    kind, annotated = rng.random() < texture_share, rng.random()
    if kind:
        frames = texture_clip(seed, **shape)
        if annotated < 0.1:
            top, left = rng.integers(0, size // 2, 2)
            mask = torch.zeros(size, size)
            mask[top : top + size // 2, left : left + size // 2] = 1
            frames = _gray_region(frames, mask if rng.random() < 0.5 else 1 - mask)
        return frames
    scene = clip(seed, **shape)
    if annotated > annotation_share:
        return scene.frames
    choice = rng.integers(4)
    if choice == 0:
        return scene.depth[..., None].expand_as(scene.frames)
    if choice == 1:
        return scene.lines[..., None].expand_as(scene.frames)
    return _gray_region(scene.frames, scene.masks if choice == 2 else 1 - scene.masks)


def held_out_clips(count: int, size_px: int, num_frames: int) -> dict[str, list[Tensor]]:
    """The fixed held-out set: `count` clips each of three kinds.

    Args:
        count: Clips of a kind.
        size_px, num_frames: Of every clip.

    Returns:
        'plain': drawn clips on a plain or gradient background; 'textured': on the other backgrounds;
        'natural': moving textures. Each a list of [F, H, W, 3] in [0, 1].
    """
    size = {"height": size_px, "width": size_px, "num_frames": num_frames}
    held_out: dict[str, list[Tensor]] = {"plain": [], "textured": []}
    seed = SPLITS["validation"].start
    while min(map(len, held_out.values())) < count:
        scene = clip(seed, **size)
        kind = "plain" if scene.background.split()[0] in ("plain", "gradient") else "textured"
        if len(held_out[kind]) < count:
            held_out[kind].append(scene.frames)
        seed += 1
    natural = [texture_clip(TEXTURE_VALIDATION_START + i, **size) for i in range(count)]
    return {**held_out, "natural": natural}


def reconstruction_loss(output: Tensor, target: Tensor, edge_weight: float) -> Tensor:
    """L1 + MSE + L1 of the spatial differences, over [B, 3, F, H, W] in [-1, 1]."""
    error = output - target
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + error.square().mean() + edge_weight * edges


class VaeTask:
    """The VAE in training; see `tiny.pretrain.Task`."""

    def __init__(self, config: PretrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        slow = config.vae.bf16 == "auto" and device.type == "cpu"
        bf16 = not slow and uses_bf16(config.vae.bf16, device, "vae.bf16")
        self.settings = replace(config.vae, bf16=bf16)
        if not self.settings.stages:
            raise ValueError("vae.stages is empty; give at least one stage")
        self.num_steps = sum(stage.steps for stage in self.settings.stages)
        if self.settings.start_from:
            self.vae = load_vae(self.settings.start_from).train().requires_grad_(True)
        else:
            self.vae = build_vae(self.settings.base_dim)
            initialize_vae(self.vae, torch.Generator().manual_seed(config.seed))
        self.vae.to(device)
        if self.settings.decoder_only:
            self.vae.encoder.requires_grad_(False)
            self.vae.quant_conv.requires_grad_(False)
        self.ema = AveragedWeights(self.vae, config.ema)
        trained = [(name, p) for name, p in self.vae.named_parameters() if p.requires_grad]
        self.optimizers = split_optimizers(
            trained, excluded=("conv_in", "conv_out"), betas=(0.9, 0.99), weight_decay=config.weight_decay
        )
        self.trained = [parameter for _, parameter in trained]

    def _stage(self, step: int) -> tuple[VaeStage, int]:
        """The stage a step falls in, and the step within it."""
        for stage in self.settings.stages:
            if step < stage.steps:
                return stage, step
            step -= stage.steps
        raise ValueError(f"step {step} is past the schedule's end")

    def _batch(self, step: int, stage: VaeStage, within: int) -> Tensor:
        """[B, 3, F, H, W] in [-1, 1]."""
        size, count = (stage.num_frames, max(stage.draw_px, stage.size_px), stage.size_px), stage.batch
        if stage.image_every and within % stage.image_every == stage.image_every - 1:
            size, count = (1, stage.image_size_px, stage.image_size_px), stage.image_batch
        # Runs with different seeds read different stretches of the endless set.
        first = self.config.seed * 10_000_000 + step * 64
        shares = self.settings.texture_share, self.settings.annotation_share
        clips = [sample_clip(first + i, size, *shares) for i in range(count)]
        return (rearrange(clips, "b f h w c -> b c f h w") * 2 - 1).to(self.device)

    def train_step(self, step: int) -> dict[str, float]:
        """One step; returns loss, PSNR of the batch and the learning rate."""
        settings = self.settings
        stage, within = self._stage(step)
        lr = stage.lr_start + (stage.lr_end - stage.lr_start) * within / stage.steps
        lr *= min(1.0, (step + 1) / 50)
        set_lr(self.optimizers, lr)
        video = self._batch(step, stage, within)
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.bf16):
            with torch.set_grad_enabled(not settings.decoder_only):
                mean, log_variance = encode_moments(self.vae, video)
            mean, log_variance = mean.float(), log_variance.float()
            noise = torch.randn(mean.shape, generator=generator).to(self.device)
            output = decode_latents(self.vae, mean + (0.5 * log_variance).exp() * noise)
        loss = reconstruction_loss(output.float(), video, settings.edge_weight)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        if not settings.decoder_only:
            loss = loss + settings.kl_weight * kl
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}")
        for parameter in self.trained:
            parameter.grad = None
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.config.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        self.ema.update(self.vae)
        quality = psnr((output.detach().float().clamp(-1, 1) - video).square().mean() / 4)
        return {"loss": loss.item(), "psnr": quality.item(), "kl": kl.item(), "grad": norm.item(), "lr": lr}

    @torch.no_grad()
    def _clip_psnr(self, video: Tensor) -> float:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bf16):
            output = decode_latents(self.vae, encode_moments(self.vae, video)[0])
        return psnr((output.float().clamp(-1, 1) - video).square().mean() / 4).item()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean PSNR a clip over the held-out set, averaged weights: plain, textured, and natural textures."""
        stage = self.settings.stages[-1]
        self.ema.swap(self.vae)
        totals = {}
        held_out = held_out_clips(self.settings.num_validation, stage.size_px, stage.num_frames)
        for name, clips in held_out.items():
            videos = (rearrange(frames, "f h w c -> 1 c f h w").to(self.device) * 2 - 1 for frames in clips)
            scores = [self._clip_psnr(video) for video in videos]
            totals[f"{name}_psnr"] = sum(scores) / len(scores)
        self.ema.swap(self.vae)
        return totals

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Write the averaged weights with Wan's latent statistics folded in."""
        vae = build_vae(self.vae.config.base_dim)
        self.ema.swap(self.vae)
        vae.load_state_dict(self.vae.state_dict())
        self.ema.swap(self.vae)
        if not self.settings.decoder_only:
            fold_statistics(vae, *self._latent_statistics(vae))
        vae.half()
        save_vae(vae, Path(folder) / FILE_NAME, {"trained_by": "tiny/pretrain.py"})

    def _latent_statistics(self, vae) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation a channel, over training shapes at the last stage's size."""
        stage = self.settings.stages[-1]
        size = {"height": stage.size_px, "width": stage.size_px, "num_frames": stage.num_frames}
        start = self.config.seed * 10_000_000
        latents = []
        for i in range(8 * self.settings.num_validation):
            frames = clip(start + i, **size).frames
            latents.append(encode_moments(vae, rearrange(frames, "f h w c -> 1 c f h w") * 2 - 1)[0])
        latents = torch.cat(latents)
        return latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))

    def state_dict(self) -> dict:
        """Weights, averages and optimizers."""
        parts = {"vae": self.vae.state_dict(), "ema": self.ema.state_dict()}
        return {**parts, "optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state: dict) -> None:
        """Restore `state_dict`'s."""
        self.vae.load_state_dict(state["vae"])
        self.ema.load_state_dict(state["ema"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
