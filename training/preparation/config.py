"""Settings of the data preparation."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Literal

from vdot_core.annotators import NAMES
from vdot_core.text import described, shown

from ..data.checks import require, require_tasks

MAX_SIDE = 8192
STAGES = ("shots", "trim", "quality", "motion", "captions", "references", "tasks")
"""Stages that are no annotators."""
ENDINGS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".gif")


@dataclass(frozen=True)
class ClipConfig:
    """Cutting of sources into clips.

    Attributes:
        detector: adaptive (PySceneDetect's, which tolerates fast camera motion), content (its fixed
            threshold), transnet (TransNet V2, which also finds fades and dissolves), or none: each file is
            one shot.
        threshold: Of the detector; null: its default (3 for adaptive, 27 for content, 0.5 for transnet).
        frame_rate: Frames per second of the clips.
        num_frames: Most frames of a clip, 4n + 1.
        min_frames: Fewest frames, 4n + 1; shorter shots are rejected.
        clips_per_shot: Most clips of one shot.
        reserve: Frames of a shot that stay outside of its clips where it is long enough, for references.
        edge_s: Seconds left out at both ends of a shot, where cuts are blended.
        buckets: Sizes of the clips, [width, height] in multiples of 16; the one nearest in aspect is used.
        max_upscale: A source that would have to be enlarged by more is rejected.
        crf: H.264's quality of the written clips; 0 is lossless.
    """

    detector: Literal["adaptive", "content", "transnet", "none"] = "adaptive"
    threshold: float | None = None
    frame_rate: float = 16.0
    num_frames: int = 81
    min_frames: int = 17
    clips_per_shot: int = 4
    reserve: int = 8
    edge_s: float = 0.1
    buckets: list[list[int]] = field(default_factory=lambda: [[832, 480], [480, 832], [624, 624]])
    max_upscale: float = 1.25
    crf: int = 12

    def __post_init__(self) -> None:
        for name in ("num_frames", "min_frames"):
            value = getattr(self, name)
            require(
                5 <= value <= 1001 and value % 4 == 1,
                f"clips.{name} is {value}; expected 4n + 1, such as 17 or 81, up to 1001",
            )
        require(
            self.min_frames <= self.num_frames,
            f"clips.min_frames {self.min_frames} exceeds num_frames {self.num_frames}",
        )
        require(
            self.threshold is None or 0 < self.threshold <= 255,
            f"clips.threshold is {self.threshold}; expected above 0 up to 255, or null",
        )
        require(
            self.detector != "transnet" or self.threshold is None or self.threshold < 1,
            f"clips.threshold is {self.threshold}; expected a probability below 1 for transnet, or null",
        )
        require(1 <= self.frame_rate <= 120, f"clips.frame_rate is {self.frame_rate}; expected 1 to 120")
        require(
            self.clips_per_shot >= 1, f"clips.clips_per_shot is {self.clips_per_shot}; expected 1 or more"
        )
        require(0 <= self.reserve <= 1000, f"clips.reserve is {self.reserve}; expected 0 to 1000 frames")
        require(0 <= self.edge_s <= 10, f"clips.edge_s is {self.edge_s}; expected 0 to 10 seconds")
        require(0.1 <= self.max_upscale <= 16, f"clips.max_upscale is {self.max_upscale}; expected 0.1 to 16")
        require(0 <= self.crf <= 51, f"clips.crf is {self.crf}; expected 0 to 51")
        require(bool(self.buckets), "clips.buckets is empty; give at least one [width, height]")
        for bucket in self.buckets:
            require(
                len(bucket) == 2 and all(16 <= side <= MAX_SIDE and side % 16 == 0 for side in bucket),
                f"clips.buckets has {bucket}; expected [width, height] in multiples of 16 up to {MAX_SIDE}",
            )


@dataclass(frozen=True)
class QualityConfig:
    """Limits of what a clip may be; outside of them it is rejected. Brightness is in [0, 1].

    Attributes:
        min_brightness: Darker clips are rejected, by mean luma.
        min_contrast: Flatter clips, by the standard deviation of luma.
        min_sharpness: More blurred clips, by the variance of luma's Laplacian at the clip's size, in squared
            8-bit levels.
        max_border: Clips with black bars, by the part of a side that is covered.
        min_change: Static clips, by the mean absolute difference of frames that follow each other.
        max_hash_distance: A clip is a duplicate of an earlier one if each of the perceptual hashes of its
            first, middle and last frame differs in at most so many of 64 bits; -1 keeps duplicates.
        max_motion_distance: The same of the hash of where its pixels change, by which clips of one still
            camera are told apart.
        max_niqe: Distorted clips, by NIQE, from 192 pixels a side on; null: no limit.
        aesthetic_model: Folder of a CLIP of transformers, by which clips get an aesthetic score; null: none.
        aesthetic_head: File of the linear layers over its embeddings, such as LAION's, .safetensors or .pth.
        min_aesthetic: Clips of a lower score are rejected; null: no limit.
        max_text: Clips with subtitles or logos, by the part of the picture under lines of text that stay over
            the clip; null: text is not looked for.
    """

    min_brightness: float = 0.06
    min_contrast: float = 0.03
    min_sharpness: float = 15.0
    max_border: float = 0.03
    min_change: float = 0.0015
    max_hash_distance: int = 5
    max_motion_distance: int = 16
    max_niqe: float | None = None
    max_text: float | None = None
    aesthetic_model: str | None = None
    aesthetic_head: str | None = None
    min_aesthetic: float | None = None

    def __post_init__(self) -> None:
        for name in ("min_brightness", "min_contrast", "max_border", "min_change"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"quality.{name} is {value}; expected 0 to 1")
        require(self.min_sharpness >= 0, f"quality.min_sharpness is {self.min_sharpness}; expected 0 or more")
        for name in ("max_hash_distance", "max_motion_distance"):
            value = getattr(self, name)
            require(-1 <= value <= 64, f"quality.{name} is {value}; expected 0 to 64 bits, or -1")
        require(
            self.max_niqe is None or self.max_niqe > 0,
            f"quality.max_niqe is {self.max_niqe}; expected above 0, or null",
        )
        require(
            self.max_text is None or 0 <= self.max_text <= 1,
            f"quality.max_text is {self.max_text}; expected 0 to 1, or null",
        )
        require(
            (self.aesthetic_model is None) == (self.aesthetic_head is None),
            "quality.aesthetic_model and aesthetic_head go together; set both, or neither",
        )
        require(
            self.min_aesthetic is None or self.aesthetic_model is not None,
            "quality.min_aesthetic needs a score; set quality.aesthetic_model and aesthetic_head",
        )
        require(
            self.min_aesthetic is None or math.isfinite(self.min_aesthetic),
            f"quality.min_aesthetic is {self.min_aesthetic}; expected a number, or null",
        )


@dataclass(frozen=True)
class CaptionConfig:
    """Where captions come from: a text file next to the source, else a server or a model, else a template.

    Attributes:
        url: Base address of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1; null: none.
        model: Name of its vision-language model.
        model_dir: Folder of a vision-language model of transformers, run in this process; null: none.
        api_key_variable: Environment variable that holds the key; null: no key is sent.
        prompt: What the model is asked.
        frames: Pictures of the clip that it is shown.
        max_tokens: Longest answer.
        retries: Further tries after a server's error, with growing pauses.
        timeout_s: Seconds to wait for an answer.
        prices: Of a million tokens in and of a million out, for the log of the cost; null: not known.
        template: Caption of clips without file, server and model; {name} is the words of the file's name.
        unanswered: Clips that the server gives no caption: wait (left out of tables and tars until a run
            gets one), or template (in them with the template until then).
    """

    url: str | None = None
    model: str = "default"
    model_dir: str | None = None
    api_key_variable: str | None = None
    prompt: str = (
        "Describe this video clip in two or three sentences for a video generation model: subjects, "
        "their actions, the scene, the camera and the style. Answer with the description alone."
    )
    frames: int = 4
    max_tokens: int = 200
    retries: int = 4
    timeout_s: float = 120.0
    prices: tuple[float, float] | None = None
    template: str = "A video of {name}."
    unanswered: Literal["wait", "template"] = "wait"

    def __post_init__(self) -> None:
        require(
            self.url is None or self.url.startswith(("http://", "https://")),
            f"captions.url is {described(self.url)}; expected an http address such as http://host:8000/v1",
        )
        require(
            self.url is None or self.model_dir is None,
            "captions.url and captions.model_dir are both set; set one of them to null",
        )
        require(1 <= self.frames <= 32, f"captions.frames is {self.frames}; expected 1 to 32")
        require(1 <= self.max_tokens <= 4096, f"captions.max_tokens is {self.max_tokens}; expected 1 to 4096")
        require(0 <= self.retries <= 20, f"captions.retries is {self.retries}; expected 0 to 20")
        require(0 < self.timeout_s <= 3600, f"captions.timeout_s is {self.timeout_s}; expected up to 3600")
        require(
            self.prices is None or all(0 <= price < math.inf for price in self.prices),
            f"captions.prices is {described(self.prices)}; expected two numbers from 0, such as [0.2, 0.6]",
        )
        require(bool(self.template.strip()), "captions.template is empty; give a sentence")
        require(
            self.api_key_variable is None or self.api_key_variable in os.environ,
            f"captions.api_key_variable is {described(self.api_key_variable)}, which is not set; export it",
        )


@dataclass(frozen=True)
class TaskConfig:
    """Which rows are made from a clip.

    Attributes:
        weights: Task -> weight; empty: all tasks equally. Tasks that a clip does not suit are left out, with
            the reason in the clips' table.
        per_clip: Most rows of a clip, drawn by weight; null: one for each task that it suits.
        min_motion_px: Flow rows need as much mean motion, in pixels a frame.
        min_pose_share: Pose rows need a person in such a part of the frames.
        subject_area: Smallest and largest part of the frame that a subject may cover.
        mask_shapes: Shapes of inpainting masks, one drawn for each row: original, hull, box.
        mask_expand: Their expansion, drawn up to this ratio.
        held_out: Part of the sources whose clips go to the held-out files alone.
        seed: Of all these draws.
    """

    weights: dict[str, float] = field(default_factory=dict)
    per_clip: int | None = None
    min_motion_px: float = 0.3
    min_pose_share: float = 0.6
    subject_area: list[float] = field(default_factory=lambda: [0.02, 0.7])
    mask_shapes: list[Literal["original", "hull", "box"]] = field(
        default_factory=lambda: ["original", "hull", "box"]
    )
    mask_expand: float = 0.3
    held_out: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        require_tasks(self.weights, "tasks.weights")
        for task, weight in self.weights.items():
            require(weight >= 0, f"tasks.weights.{task} is {weight}; expected 0 or more")
        require(
            not self.weights or any(self.weights.values()), "tasks.weights are all 0; give one task a weight"
        )
        require(
            self.per_clip is None or self.per_clip >= 1,
            f"tasks.per_clip is {self.per_clip}; expected 1 or more",
        )
        require(
            0 <= self.held_out < 1, f"tasks.held_out is {self.held_out}; expected 0 up to, not including, 1"
        )
        low, high = [*self.subject_area, 0, 0][:2]
        require(
            len(self.subject_area) == 2 and 0 <= low < high <= 1,
            f"tasks.subject_area is {self.subject_area}; expected [smallest, largest] within 0 to 1",
        )
        require(bool(self.mask_shapes), "tasks.mask_shapes is empty; give original, hull or box")
        require(0 <= self.mask_expand <= 1, f"tasks.mask_expand is {self.mask_expand}; expected 0 to 1")
        require(
            0 <= self.min_pose_share <= 1, f"tasks.min_pose_share is {self.min_pose_share}; expected 0 to 1"
        )
        require(self.min_motion_px >= 0, f"tasks.min_motion_px is {self.min_motion_px}; expected 0 or more")


@dataclass(frozen=True)
class ExecutorConfig:
    """Where stages run.

    Attributes:
        name: inline (in this process), or ray (Ray Data: workers on this machine, or on a cluster).
        address: Of a running Ray cluster, such as auto; null: Ray starts on this machine for this run. Every
            node of a cluster has this repository, the input and out_dir at the same paths.
        workers: Workers of a stage; null: one for each core.
        gpus: Stage -> GPUs of each of its workers, such as {depth: 1}.
    """

    name: Literal["inline", "ray"] = "inline"
    address: str | None = None
    workers: int | None = None
    gpus: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(
            self.workers is None or 1 <= self.workers <= 10_000,
            f"executor.workers is {self.workers}; expected 1 to 10000, or null",
        )
        for stage, gpus in self.gpus.items():
            names = (*STAGES, *NAMES)
            require(stage in names, f"executor.gpus has {described(stage)}; there are {', '.join(names)}")
            require(0 <= gpus <= 64, f"executor.gpus.{shown(stage, 80)} is {gpus}; expected 0 to 64 GPUs")


@dataclass(frozen=True)
class PrepareConfig:
    """Raw videos to training data.

    Attributes:
        input: Folders, files or patterns such as raw/**/*.mp4.
        out_dir: Folder of all results.
        annotators: Annotators to run; see vdot_core/annotators.
        require_annotators: End with an error where one lacks its package or weights; false: it is named, and
            its tasks are left out.
        depth_model: Folder of a depth model of transformers, such as Depth Anything V2; null: no depth rows.
        flow_model: File of RAFT's weights for flow rows and motion; null: OpenCV's DIS.
        pose_model: Folder of a ViTPose of transformers; null: BlazePose's joints.
        matte_model: Folder of a SAM 2 or 3 of transformers; null: MediaPipe's selfie segmentation.
        rows_per_shard: Rows of a tar.
        samples_per_task: Rows of each task on the contact sheet.
        clips: How sources are cut.
        quality: What is rejected.
        captions: Where captions come from.
        tasks: Which rows are made.
        executor: Where stages run.
    """

    input: list[str] = field(default_factory=list)
    out_dir: str = "runs/prepared"
    annotators: list[str] = field(
        default_factory=lambda: ["scribble", "flow", "depth", "pose", "matte", "face"]
    )
    require_annotators: bool = False
    depth_model: str | None = None
    flow_model: str | None = None
    pose_model: str | None = None
    matte_model: str | None = None
    rows_per_shard: int = 256
    samples_per_task: int = 2
    clips: ClipConfig = field(default_factory=ClipConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    captions: CaptionConfig = field(default_factory=CaptionConfig)
    tasks: TaskConfig = field(default_factory=TaskConfig)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)

    def __post_init__(self) -> None:
        require(bool(self.input), "input is empty; give folders or files of videos")
        unknown = [name for name in self.annotators if name not in NAMES]
        require(not unknown, f"annotators has {described((*unknown, '')[0])}; there are {', '.join(NAMES)}")
        twice = [name for name in self.annotators if self.annotators.count(name) > 1]
        require(not twice, f"annotators has {(*twice, '')[0]} twice; name each once")
        require(
            1 <= self.rows_per_shard <= 100_000,
            f"rows_per_shard is {self.rows_per_shard}; expected 1 to 100000",
        )
        require(
            0 <= self.samples_per_task <= 100,
            f"samples_per_task is {self.samples_per_task}; expected 0 to 100",
        )
