"""Typed configuration of the pretraining runs, from YAML and the command line; unknown keys are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class VaeStage:
    """One stretch of the VAE's schedule.

    Attributes:
        steps: Optimiser steps.
        num_frames: Frames of a clip, 4n + 1 (1: images).
        size_px: Height and width of the batch, cropped from clips of `draw_px` where that is larger, so that
            small crops show the detail that whole clips have.
        batch: Clips a step.
        lr_start, lr_end: The learning rate goes linearly between them.
        image_every: Every so many steps a batch of single large images instead (0: never).
        image_size_px, image_batch: Size and number of those.
    """

    steps: int
    num_frames: int
    size_px: int
    batch: int
    lr_start: float
    lr_end: float
    draw_px: int = 64
    image_every: int = 0
    image_size_px: int = 128
    image_batch: int = 4

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.image_batch < 1:
            raise ValueError(f"a stage needs steps, batch and image_batch of at least 1; got {self}")
        if self.num_frames % 4 != 1:
            raise ValueError(f"num_frames is {self.num_frames}; a Wan VAE takes 4n + 1 frames")
        if self.size_px % 8 or self.image_size_px % 8:
            raise ValueError(
                f"size_px {self.size_px}, image_size_px {self.image_size_px}: need multiples of 8"
            )


@dataclass(frozen=True)
class VaeConfig:
    """The VAE: width, data mixture, losses and schedule.

    Attributes:
        base_dim: Width of the network.
        stages: The schedule, in order.
        texture_share: Part of the clips that are natural-looking textures; the rest are drawn shapes.
        annotation_share: Part of the shape clips shown as conditions are: depth, lines or greyed regions.
        edge_weight, kl_weight: Weights beside L1 + MSE.
        bf16: Compute under bfloat16 autocast: true, false, or auto: where the device has it in hardware.
        decoder_only: Train the decoder alone, on an encoder that is already in use.
        start_from: A VAE file to begin with instead of fresh weights.
        num_validation: Held-out clips of each kind in a validation.
    """

    base_dim: int = 16
    stages: list[VaeStage] = field(default_factory=list)
    texture_share: float = 0.5
    annotation_share: float = 0.2
    edge_weight: float = 0.25
    kl_weight: float = 2e-5
    bf16: bool | Literal["auto"] = "auto"
    decoder_only: bool = False
    start_from: str | None = None
    num_validation: int = 8

    def __post_init__(self) -> None:
        for name in ("texture_share", "annotation_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a share in [0, 1]")
        if self.base_dim < 4:
            raise ValueError(f"base_dim is {self.base_dim}; expected at least 4")


@dataclass(frozen=True)
class CacheGroup:
    """Clips of one size in the latent cache.

    Attributes:
        width, height, num_frames: Of the clips; multiples of 16, 4n + 1 frames.
        num_clips: How many clips.
        tasks: Tasks that every clip is encoded for.
        extra: Tasks of which each clip is encoded for one, chosen at random.
        texture_share: Part of the clips that are textures instead of drawn shapes.
        simple: One shape on a background without a pattern: what a caption says of it is most of the clip.
        weight: How often a sample is taken, against one of the same task in a group of weight 1.
    """

    width: int
    height: int
    num_frames: int
    num_clips: int
    tasks: list[str]
    extra: list[str] = field(default_factory=list)
    texture_share: float = 0.0
    simple: bool = False
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ValueError(f"weight is {self.weight}; expected more than 0, or leave the group out")
        if self.width % 16 or self.height % 16 or self.num_frames % 4 != 1:
            raise ValueError(
                f"{self.num_frames} frames of {self.width}x{self.height}: need 4n + 1, multiples of 16"
            )
        from .tasks import task_named

        if len({task_named(task).num_references for task in (*self.tasks, *self.extra)}) > 1:
            raise ValueError(
                f"tasks {self.tasks} and {self.extra}: references make latents longer; split the group"
            )
        if self.num_clips < 1 or not self.tasks:
            raise ValueError(
                f"a cache group needs clips and tasks; got {self.num_clips} clips, tasks {self.tasks}"
            )


@dataclass(frozen=True)
class TeacherConfig:
    """A VACE transformer, trained by flow matching: the tiny one with its text encoder, or any on real clips.

    Attributes:
        vae: VAE file whose latents are learnt.
        cache_dir: Where encoded clips are kept; they are made as they come into use.
        groups: Drawn clips to learn from.
        grow_steps: Step from which all of them are in use; before, a 32nd, a 16th, .. of every group, so that
            a run starts before all are encoded (0: all from the first step).
        clips: In place of groups, vae and cache_dir: a folder that training/cache.py has filled with real
            clips and their captions' embeddings.
        task_shares: Task -> its share of all samples; tasks that are not named share the rest equally. With
            `clips` they are weights, 1 where a task is not named.
        steps: Optimiser steps; batch: samples a step.
        lr, lr_end, warmup: Learning rate after `warmup` steps, falling by a cosine to `lr_end`.
        text_drop: Chance that a caption is replaced by the empty one.
        task_text_drop: Task -> that chance for its samples, where it is another.
        freeze_text_after: Step from which the text encoder is fixed.
        timestep_shift: Shift of the uniformly drawn noise levels.
        logit_normal_share: Part of the noise levels that are logit-normal instead.
        preset: Name of the network in `vdot_core.networks.PRESETS`, and of the exported file.
        text_layers: Blocks of the text encoder.
        bf16: Train under bfloat16 autocast: true, false, or auto: where the device has it in hardware.
        compile: Whether to compile the network's blocks: a minute at the start, a fifth off every step.
        checkpoint_every: Blocks whose activations are recomputed together in the backward pass (0: none).
        start_from: What to begin with: a transformer's file or folder of any published layout, or the
            export folder of a finished run, whose text encoder is used too.
        text_encoder: File of another text encoder to begin with; null: start_from's, or a fresh one.
        num_validation: Held-out clips a group.
    """

    vae: str = "assets/vdot_tiny_vae.safetensors"
    cache_dir: str = "runs/tiny_teacher/cache"
    groups: list[CacheGroup] = field(default_factory=list)
    grow_steps: int = 640
    clips: str | None = None
    task_shares: dict[str, float] = field(default_factory=dict)
    steps: int = 10000
    batch: int = 24
    lr: float = 1.5e-3
    lr_end: float = 3e-5
    warmup: int = 200
    text_drop: float = 0.1
    task_text_drop: dict[str, float] = field(default_factory=dict)
    freeze_text_after: int = 4000
    timestep_shift: float = 5.0
    logit_normal_share: float = 0.3
    preset: str = "vdot_tiny"
    text_layers: int = 3
    bf16: bool | Literal["auto"] = "auto"
    compile: bool = False
    checkpoint_every: int = 0
    start_from: str | None = None
    text_encoder: str | None = None
    num_validation: int = 12

    def __post_init__(self) -> None:
        shares = self.task_shares.values()
        if shares and (min(shares) < 0 or (not self.clips and sum(shares) > 1 + 1e-9)):
            raise ValueError(
                f"task_shares {self.task_shares} add up to {sum(shares):.3g}; they are shares of all "
                "samples: none negative, together at most 1"
            )
        given = {name: getattr(self, name) for name in ("text_drop", "logit_normal_share")}
        given |= {f"task_text_drop of {task}": share for task, share in self.task_text_drop.items()}
        for name, share in given.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}; expected a share in [0, 1]")


@dataclass(frozen=True)
class EvaluatorConfig:
    """The network that scores generated clips.

    Attributes:
        vae: VAE file whose artefacts it is to bear.
        steps: Optimiser steps; clips: clips a step; frames: frames read of each.
        vae_clips: How many of a step's clips pass through the VAE.
        latent_noise: Largest standard deviation added to their latents.
        lr, lr_end: Learning rate, falling by a cosine.
        bf16: Compute under bfloat16 autocast: true, false, or auto: where the device has it in hardware.
        num_validation: Held-out clips.
    """

    vae: str = "assets/vdot_tiny_vae.safetensors"
    steps: int = 2000
    clips: int = 32
    frames: int = 2
    vae_clips: int = 2
    latent_noise: float = 0.3
    lr: float = 3e-3
    lr_end: float = 3e-5
    bf16: bool | Literal["auto"] = "auto"
    num_validation: int = 100

    def __post_init__(self) -> None:
        if self.clips < 1 or not 1 <= self.frames <= 5:
            got = f"{self.clips} clips, {self.frames} frames"
            raise ValueError(f"got {got}; need at least 1 clip and 1 to 5 frames")
        if not 0 <= self.vae_clips <= self.clips:
            raise ValueError(f"vae_clips is {self.vae_clips}; expected 0 to clips, {self.clips}")


@dataclass(frozen=True)
class TextConfig:
    """The tiny text encoder, trained to tell what captions say.

    Attributes:
        layers: Blocks of the encoder.
        num_clips: Clips whose captions, six or seven each, are read.
        steps: Optimiser steps; batch: captions a step.
        lr, lr_end, warmup: Learning rate after `warmup` steps, falling by a cosine to `lr_end`.
        num_validation: Held-out clips.
    """

    layers: int = 3
    num_clips: int = 5000
    steps: int = 3000
    batch: int = 96
    lr: float = 2e-3
    lr_end: float = 2e-5
    warmup: int = 100
    num_validation: int = 200

    def __post_init__(self) -> None:
        for name in ("layers", "num_clips", "steps", "batch", "num_validation"):
            if getattr(self, name) < 1:
                raise ValueError(f"text.{name} is {getattr(self, name)}; expected at least 1")


@dataclass(frozen=True)
class PretrainConfig:
    """One pretraining run.

    Attributes:
        model: Which model this run trains.
        out_dir: Folder for checkpoints, logs and exports; a second start goes on from what is there.
        assets_dir: Where finished weights are also written (null: nowhere else).
        seed: Of the weights and of every draw.
        ema: Decay of the averaged weights.
        weight_decay, clip_norm: AdamW's, and the gradient's.
        log_every, validate_every, export_every: In steps (0: never).
        save_minutes: Wall-clock minutes between checkpoints.
        max_steps: Stop at this step, the schedule unchanged (null: run it all).
        threads: CPU threads of torch.
        device: Where to train; auto: on a GPU where there is one.
        vae, text, teacher, evaluator: The model's own settings; the others are ignored.
    """

    model: Literal["vae", "text", "teacher", "evaluator"]
    out_dir: str
    assets_dir: str | None = None
    seed: int = 0
    ema: float = 0.999
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    log_every: int = 25
    validate_every: int = 500
    export_every: int = 0
    save_minutes: float = 2.0
    max_steps: int | None = None
    threads: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    vae: VaeConfig = field(default_factory=VaeConfig)
    text: TextConfig = field(default_factory=TextConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    evaluator: EvaluatorConfig = field(default_factory=EvaluatorConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}; expected a decay in [0, 1)")


def parse_config(argv: Sequence[str] | None = None) -> PretrainConfig:
    """Read `--config FILE` and overrides such as `--vae.base_dim 8`.

    Args:
        argv: Command line without the program's name; None reads the process's own.

    Returns:
        The configuration; a wrong or unknown key ends the program with the key's name.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="python tiny/pretrain.py", description="Pretrain a tiny model.")
    parser.add_argument("--config", action="config", help="YAML file with the keys below")
    parser.add_class_arguments(PretrainConfig, nested_key=None)
    parsed = parser.parse_args(argv)
    instance = parser.instantiate(parsed)
    values = {name: getattr(instance, name) for name in PretrainConfig.__dataclass_fields__}
    return PretrainConfig(**values)
