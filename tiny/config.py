"""Settings of the tiny VAE, text encoder and evaluation network, from YAML and the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from training.data.checks import require_range

MOST_STEPS, MOST_CLIPS, MOST_SIDE_PX, MOST_FRAMES, MOST_THREADS = 10**8, 10**7, 1024, 81, 1024


@dataclass(frozen=True)
class VaeStage:
    """One stage of the VAE's schedule.

    Attributes:
        steps: Optimizer steps.
        num_frames: Frames of a clip, 4n + 1 (1: images).
        size_px: Height and width of the batch, cropped from clips of `draw_px` where that is larger, so that
            small crops show the detail of full clips.
        batch: Clips a step.
        lr_start, lr_end: The learning rate goes linearly between them.
        image_every: Steps between batches of single large images (0: never).
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
        require_range(self, "stages: ", 1, MOST_STEPS, "steps")
        require_range(self, "stages: ", 0, MOST_STEPS, "image_every")
        require_range(self, "stages: ", 1, 4096, "batch", "image_batch")
        require_range(self, "stages: ", 0, 1, "lr_start", "lr_end")
        require_range(self, "stages: ", 16, MOST_SIDE_PX, "size_px", "draw_px", "image_size_px")
        require_range(self, "stages: ", 1, MOST_FRAMES, "num_frames")
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
        annotation_share: Part of the shape clips shown as conditions are: depth, lines or grayed regions.
        edge_weight: Weight of the loss of edges, next to L1 + MSE.
        kl_weight: Weight of the latents' KL divergence from a standard normal.
        bf16: Compute under bfloat16 autocast: true, false, or auto: on a GPU that has it. On CPUs that have
            it, the gradients of 3D convolutions take twice as long in bfloat16 as in float32.
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
        require_range(self, "vae.", 0, 1, "texture_share", "annotation_share")
        require_range(self, "vae.", 4, 1024, "base_dim")
        require_range(self, "vae.", 0, 1000, "edge_weight", "kl_weight")
        require_range(self, "vae.", 1, MOST_CLIPS, "num_validation")


@dataclass(frozen=True)
class CacheGroup:
    """Clips of one size in the latent cache.

    Attributes:
        width, height, num_frames: Of the clips; multiples of 16, 4n + 1 frames.
        num_clips: Number of clips.
        tasks: Tasks that every clip is encoded for.
        extra: Tasks of which each clip is encoded for one, chosen at random.
        texture_share: Part of the clips that are textures instead of drawn shapes.
        simple: One shape on a background without a pattern: the caption describes most of the clip.
        weight: Sampling frequency relative to the same task in a group of weight 1.
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
        require_range(self, "groups: ", 16, MOST_SIDE_PX, "width", "height")
        require_range(self, "groups: ", 1, MOST_FRAMES, "num_frames")
        require_range(self, "groups: ", 1, MOST_CLIPS, "num_clips")
        require_range(self, "groups: ", 0, 1, "texture_share")
        if self.width % 16 or self.height % 16 or self.num_frames % 4 != 1:
            raise ValueError(
                f"{self.num_frames} frames of {self.width}x{self.height}: need 4n + 1, multiples of 16"
            )
        from .tasks import task_named

        if len({task_named(task).num_references for task in (*self.tasks, *self.extra)}) > 1:
            raise ValueError(
                f"tasks {self.tasks} and {self.extra}: references make latents longer; split the group"
            )
        if not self.tasks:
            raise ValueError("groups: tasks is empty; give at least one")


@dataclass(frozen=True)
class EvaluatorConfig:
    """The network that scores generated clips.

    Attributes:
        vae: VAE file to whose artifacts it must be robust.
        steps: Optimizer steps.
        clips: Clips in a step.
        frames: Frames read of each clip.
        vae_clips: Number of a step's clips that pass through the VAE.
        latent_noise: Largest standard deviation added to their latents.
        lr: Learning rate at the start, falling by a cosine.
        lr_end: Learning rate at the end.
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
        require_range(self, "evaluator.", 1, MOST_STEPS, "steps")
        require_range(self, "evaluator.", 1, 4096, "clips")
        require_range(self, "evaluator.", 1, 5, "frames")
        require_range(self, "evaluator.", 1, MOST_CLIPS, "num_validation")
        require_range(self, "evaluator.", 0, 1000, "latent_noise")
        require_range(self, "evaluator.", 0, 1, "lr", "lr_end")
        if not 0 <= self.vae_clips <= self.clips:
            raise ValueError(f"vae_clips is {self.vae_clips}; expected 0 to clips, {self.clips}")


@dataclass(frozen=True)
class TextConfig:
    """The tiny text encoder, trained to extract the facts of captions.

    Attributes:
        layers: Blocks of the encoder.
        num_clips: Clips whose captions, six or seven each, are read.
        steps: Optimizer steps.
        batch: Captions in a step.
        lr: Learning rate after the warm-up, falling by a cosine.
        lr_end: Learning rate at the end.
        warmup: Steps over which the learning rate rises from 0.
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
        require_range(self, "text.", 1, 100, "layers")
        require_range(self, "text.", 1, MOST_CLIPS, "num_clips", "num_validation")
        require_range(self, "text.", 1, MOST_STEPS, "steps")
        require_range(self, "text.", 0, MOST_STEPS, "warmup")
        require_range(self, "text.", 1, 4096, "batch")
        require_range(self, "text.", 0, 1, "lr", "lr_end")


@dataclass(frozen=True)
class PretrainConfig:
    """One run of `tiny/pretrain.py`.

    Attributes:
        model: The model to train.
        out_dir: Folder for checkpoints, logs and the export; a second start resumes from it.
        seed: Seed of the weights and of every draw.
        ema: Decay of the averaged weights.
        weight_decay: Weight decay of AdamW and Muon.
        clip_norm: Largest norm of a gradient.
        log_every: Steps between log lines.
        validate_every: Steps between validations; 0: never.
        save_minutes: Wall-clock minutes between checkpoints.
        max_steps: Stop at this step with the schedule unchanged; null: run to the end.
        threads: CPU threads of torch.
        device: Device; auto: a GPU where there is one.
        vae: Settings of the VAE.
        text: Settings of the text encoder.
        evaluator: Settings of the evaluation network.
    """

    model: Literal["vae", "text", "evaluator"]
    out_dir: str
    seed: int = 0
    ema: float = 0.999
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    log_every: int = 25
    validate_every: int = 500
    save_minutes: float = 2.0
    max_steps: int | None = None
    threads: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    vae: VaeConfig = field(default_factory=VaeConfig)
    text: TextConfig = field(default_factory=TextConfig)
    evaluator: EvaluatorConfig = field(default_factory=EvaluatorConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}; expected a decay in [0, 1)")
        require_range(self, "", 0, 2**63 - 1, "seed")
        require_range(self, "", 0, 10, "weight_decay")
        require_range(self, "", 1e-9, 1e9, "clip_norm")
        require_range(self, "", 1, MOST_STEPS, "log_every", "max_steps")
        require_range(self, "", 0, MOST_STEPS, "validate_every", "save_minutes")
        require_range(self, "", 1, MOST_THREADS, "threads")
        if self.model == "vae" and not self.vae.stages:
            raise ValueError("vae.stages is empty; give at least one, as tiny/configs/train.yaml does")


def parse_config(argv: Sequence[str] | None = None) -> PretrainConfig:
    """Read `--config FILE` and overrides such as `--vae.base_dim 8`.

    Args:
        argv: Command line without the program's name; None reads the process's own.

    Returns:
        The configuration.

    Raises:
        ValueError: A key is unknown, or a value is wrong.
    """
    from training.engine.cli import RunParser

    parser = RunParser(
        PretrainConfig, prog="python tiny/pretrain.py", description="Train a part of the tiny model."
    )
    return parser.read(sys.argv[1:] if argv is None else argv)[0]
