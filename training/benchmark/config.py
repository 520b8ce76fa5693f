"""Settings of an evaluation."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Literal

from vdot_core.choices import SOLVERS
from vdot_core.text import described, shown

from ..data.checks import require, require_range
from .statistics import Bootstrap

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,59}")
ESTIMATED = ("gray", "scribble", "flow", "depth", "pose")


@dataclass(frozen=True)
class SamplerConfig:
    """Sampling of a model.

    Attributes:
        steps: Network evaluations without guidance.
        shift: Of the noise levels.
        solver: Of `vdot_core.sampling`; diffusers' pipeline uses its scheduler.
        labels: wan (timesteps as Wan's UniPC has them) or exact.
        guidance: Classifier-free guidance; 1: none.
        task_guidance: Task -> its guidance.
        negative_prompt: Of the guidance.
        context_scale: Strength of the conditions.
    """

    steps: int = 4
    shift: float = 8.0
    solver: str = "renoise"
    labels: Literal["wan", "exact"] = "exact"
    guidance: float = 1.0
    task_guidance: dict[str, float] = field(default_factory=dict)
    negative_prompt: str = ""
    context_scale: float = 1.0

    def __post_init__(self) -> None:
        require(1 <= self.steps <= 1000, f"sampler.steps is {self.steps}; expected 1 to 1000")
        require_range(self, "sampler.", 0.001, 1000, "shift")
        require_range(self, "sampler.", 0, 1000, "guidance", "context_scale")
        for task, guidance in self.task_guidance.items():
            require(
                0 <= guidance <= 1000,
                f"sampler.task_guidance.{shown(task, 80)} is {guidance}; expected 0 to 1000",
            )
        require(
            self.solver in SOLVERS,
            f"sampler.solver is {described(self.solver)}; expected one of {', '.join(SOLVERS)}",
        )

    def guidance_of(self, task: str) -> float:
        """The guidance of a task."""
        return self.task_guidance.get(task, self.guidance)


@dataclass(frozen=True)
class ModelConfig:
    """A model to compare.

    Attributes:
        name: In tables and folders.
        kind: vdot: a transformer file of this repository's formats, with vae and text_encoder; diffusers: a
            folder of WanVACEPipeline; folder: finished videos, TASK/SAMPLE_ID.mp4.
        path: The transformer's file, or the folder.
        vae: VAE, as data.vae of the trainer.
        text_encoder: Text encoder, as data.text_encoder of the trainer.
        sampler: How videos are sampled.
    """

    name: str
    kind: Literal["vdot", "diffusers", "folder"] = "vdot"
    path: str = ""
    vae: str | None = None
    text_encoder: str | None = None
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def __post_init__(self) -> None:
        require(
            bool(NAME.fullmatch(self.name)) and not self.name.endswith((".", " ")),
            f"models: a name is {described(self.name)}; expected up to 60 letters, digits, spaces, . _ + -",
        )
        require(bool(self.path), f"models: {self.name} has no path; give its file or folder")
        if self.kind == "vdot":
            for key in ("vae", "text_encoder"):
                require(
                    bool(getattr(self, key)),
                    f"models: {self.name} has no {key}; give the one it was trained with",
                )


@dataclass(frozen=True)
class JudgeConfig:
    """Ratings by a vision-language model.

    Attributes:
        url: Base address of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1; null: no judge.
        model: Name of its model.
        api_key_variable: Environment variable that holds the key; null: no key is sent.
        frames: Pictures of the video that it is shown.
        max_tokens: Longest answer.
        retries: Further tries after a server's error, with growing pauses.
        timeout_s: Seconds to wait for an answer.
    """

    url: str | None = None
    model: str = "default"
    api_key_variable: str | None = None
    frames: int = 6
    max_tokens: int = 200
    retries: int = 4
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        require(
            self.url is None or self.url.startswith(("http://", "https://")),
            f"judge.url is {described(self.url)}; expected an http address such as http://host:8000/v1",
        )
        require(1 <= self.frames <= 32, f"judge.frames is {self.frames}; expected 1 to 32")
        require(1 <= self.max_tokens <= 4096, f"judge.max_tokens is {self.max_tokens}; expected 1 to 4096")
        require(0 <= self.retries <= 20, f"judge.retries is {self.retries}; expected 0 to 20")
        require(0 < self.timeout_s <= 3600, f"judge.timeout_s is {self.timeout_s}; expected up to 3600")
        require(
            self.api_key_variable is None or self.api_key_variable in os.environ,
            f"judge.api_key_variable is {described(self.api_key_variable)}, which is not set; export it",
        )


@dataclass(frozen=True)
class VBenchConfig:
    """VBench's program, in a separate environment.

    Attributes:
        command: Its words up to the options, such as [/opt/vbench/bin/vbench, evaluate]; empty: not run.
        timeout_min: Minutes for one dimension of one model.
    """

    command: list[str] = field(default_factory=list)
    timeout_min: float = 240.0

    def __post_init__(self) -> None:
        require(
            0 < self.timeout_min <= 10_000, f"vbench.timeout_min is {self.timeout_min}; expected up to 10000"
        )


@dataclass(frozen=True)
class EvaluateConfig:
    """An evaluation of models on a benchmark.

    Attributes:
        benchmark: Folder of a benchmark in UVCBench's layout.
        out_dir: Folder of videos, scores, tables and pages.
        models: The models; others are compared with the first.
        tasks: Tasks to run; empty: all.
        samples_per_task: The first so many rows of each task; null: all.
        width, height: Of the videos, multiples of 16; null: each row's own, within max_pixels.
        max_pixels: Most pixels of a frame.
        num_frames: Most frames, 4n + 1; rows without a clip have so many.
        frame_rate: Frames per second.
        seed: Of the noise, the blind page's order and the intervals.
        device: cpu, cuda, or auto.
        dtype: Number format of the networks; auto: bf16 where the device has it in hardware.
        estimators: Signals that are estimated from the videos again to score controls.
        depth_model: Folder of a depth model of transformers, such as Depth Anything V2; null: no depth.
        flow_model: File of RAFT's weights for the flow signal; null: OpenCV's DIS.
        pose_model: Folder of a ViTPose of transformers; null: BlazePose's joints.
        blind_per_task: The first so many rows of each task on the blind page; null: all.
        num_resamples: Of the bootstrap.
        confidence: Of its intervals.
        judge: Ratings by a vision-language model.
        vbench: VBench's program.
    """

    benchmark: str = ""
    out_dir: str = "runs/benchmark"
    models: list[ModelConfig] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    samples_per_task: int | None = None
    width: int | None = None
    height: int | None = None
    max_pixels: int = 832 * 480
    num_frames: int = 81
    frame_rate: float = 16.0
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    estimators: list[str] = field(default_factory=lambda: list(ESTIMATED))
    depth_model: str | None = None
    flow_model: str | None = None
    pose_model: str | None = None
    blind_per_task: int | None = None
    num_resamples: int = 2000
    confidence: float = 0.95
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    vbench: VBenchConfig = field(default_factory=VBenchConfig)

    def __post_init__(self) -> None:
        names = [model.name.lower() for model in self.models]
        require(
            bool(self.benchmark), "benchmark is empty; give the folder of a benchmark in UVCBench's layout"
        )
        require(
            bool(names), "models is empty; give at least one, as training/configs/evaluate_example.yaml does"
        )
        twice = [name for name in names if names.count(name) > 1]
        require(not twice, f"models: two are named {described((*twice, '')[0])}; rename one")
        require(
            (self.width is None) == (self.height is None),
            "width and height go together; set both, or neither",
        )
        for name in ("width", "height"):
            side = getattr(self, name)
            require(
                side is None or (16 <= side <= 8192 and side % 16 == 0),
                f"{name} is {side}; expected a multiple of 16 up to 8192",
            )
        require(
            1 <= self.num_frames <= 1001 and self.num_frames % 4 == 1,
            f"num_frames is {self.num_frames}; expected 4n + 1, such as 17 or 81, up to 1001",
        )
        require(1 <= self.frame_rate <= 120, f"frame_rate is {self.frame_rate}; expected 1 to 120")
        require_range(self, "", 0, 2**63 - 1, "seed")
        require_range(self, "", 256, 8192**2, "max_pixels")
        for name in ("samples_per_task", "blind_per_task"):
            count = getattr(self, name)
            require(count is None or count >= 1, f"{name} is {count}; expected at least 1, or null")
        unknown = [name for name in self.estimators if name not in ESTIMATED]
        require(
            not unknown, f"estimators has {described((*unknown, '')[0])}; there are {', '.join(ESTIMATED)}"
        )
        require(
            100 <= self.num_resamples <= 1_000_000,
            f"num_resamples is {self.num_resamples}; expected 100 to 1000000",
        )
        require(0.5 <= self.confidence < 1, f"confidence is {self.confidence}; expected 0.5 to below 1")

    @property
    def bootstrap(self) -> Bootstrap:
        """Settings of the intervals."""
        return Bootstrap(self.num_resamples, self.confidence, self.seed)
