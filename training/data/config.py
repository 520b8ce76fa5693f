"""Settings of the training data: its source, size, length and batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from .checks import require_range

MAX_SIDE = 8192
MAX_WORKERS = 256  # of each training process
# Settings that encoded rows depend on, in addition to the rows, the models and their dtype.
ENCODE_SETTINGS = (
    "width",
    "height",
    "max_pixels",
    "num_frames",
    "min_frames",
    "frame_rate",
    "resize",
    "empty_prompt",
)


@dataclass(frozen=True)
class DataConfig:
    """The data of a run. Everything is encoded once into `cache_dir`; the training step reads only that.

    Attributes:
        source: manifest or webdataset (encoded beforehand by `python training/cache.py`), producer (encoded
            on the first start), or cache (any finished cache).
        path: Manifest (.csv, .jsonl or .parquet), or tar shards such as "clips-{000..099}.tar"; local or any
            address that fsspec opens.
        producer: Class of this repository that makes the samples of source producer, by its dotted path,
            such as tiny.producer.ShapesProducer.
        producer_args: The producer's own settings.
        cache_dir: Folder of the encoded samples.
        task_weights: Task -> weight in the mixture; tasks left out are not trained on. Empty: all samples
            equally.
        batch_size: Samples of the global batch, over all processes and accumulation steps.
        accumulation: Micro-batches that each process runs in a step.
        group_size: Samples in a row that share one latent shape; null: batch_size / accumulation. Set it to
            get the same batches with another accumulation.
        vae: Wan 2.1 VAE: a safetensors file in Wan's key names, such as wan_2.1_vae.safetensors, or a
            diffusers folder. Needed for encoding; in training, the cache must have been made with it; null:
            not compared.
        text_encoder: UMT5: ComfyUI's file, such as umt5_xxl_fp16.safetensors, or a Hugging Face folder; else
            as vae.
        empty_prompt: Text of the condition without a caption.
        text_len: Tokens that the network reads; null: the text encoder's own (512 of UMT5-XXL).
        width: Width in pixels, a multiple of 16; null: the clip's own, within max_pixels.
        height: Height in pixels, as width.
        max_pixels: Largest width * height where they are the clip's own.
        num_frames: Most frames of a clip, 4n + 1; longer clips are cut at their end.
        min_frames: Clips shorter than this are skipped.
        frame_rate: Frames per second to which clips are resampled.
        resize: cover (keeps the aspect, cuts the edges) or stretch.
        rows_per_shard: Rows in one file of the cache, the unit of resuming and of sharing among processes.
        workers: Background processes that read batches ahead in training; 0: none.
        device: Device that encodes: auto, cpu or cuda.
        encode_dtype: Number format of the encoders: fp32, bf16, or auto: bf16 where hardware has it.
    """

    source: Literal["manifest", "webdataset", "producer", "cache"] = "cache"
    path: str | None = None
    producer: str | None = None
    producer_args: dict[str, Any] = field(default_factory=dict)
    cache_dir: str = "runs/distill/cache"
    task_weights: dict[str, float] = field(default_factory=dict)
    batch_size: int = 12
    accumulation: int = 3
    group_size: int | None = None
    vae: str | None = None
    text_encoder: str | None = None
    empty_prompt: str = ""
    text_len: int | None = None
    width: int | None = None
    height: int | None = None
    max_pixels: int = 480 * 832
    num_frames: int = 81
    min_frames: int = 5
    frame_rate: float = 16.0
    resize: Literal["cover", "stretch"] = "cover"
    rows_per_shard: int = 16
    workers: int = 2
    device: Literal["auto", "cpu", "cuda"] = "auto"
    encode_dtype: Literal["auto", "fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        _check_mixture(self)
        for name in ("width", "height"):
            side = getattr(self, name)
            if side is not None and (not 16 <= side <= MAX_SIDE or side % 16):
                raise ValueError(
                    f"data.{name} is {side}; expected a multiple of 16 up to {MAX_SIDE}, or null"
                )
        if (self.width is None) != (self.height is None):
            raise ValueError(
                f"data.width is {self.width} and data.height {self.height}; give both or neither"
            )
        for name in ("num_frames", "min_frames"):
            if getattr(self, name) < 1 or getattr(self, name) % 4 != 1:
                raise ValueError(
                    f"data.{name} is {getattr(self, name)}; expected 4n + 1, such as 5, 17 or 81"
                )
        if self.min_frames > self.num_frames:
            raise ValueError(f"data.min_frames {self.min_frames} exceeds num_frames {self.num_frames}")
        require_range(self, "data.", 1, 4096, "text_len")
        require_range(self, "data.", 0.01, 1000, "frame_rate")
        require_range(self, "data.", 1, 1_000_000, "rows_per_shard")
        if not 256 <= self.max_pixels <= MAX_SIDE**2:
            raise ValueError(f"data.max_pixels is {self.max_pixels}; expected 256 (16x16) to {MAX_SIDE**2}")
        if self.source in ("manifest", "webdataset") and not self.path:
            raise ValueError(
                f"data.source is {self.source} and data.path is not set; give the {self.source}'s"
            )
        if self.source == "producer" and not (self.producer and self.vae and self.text_encoder):
            raise ValueError(
                "data.source is producer, which makes and encodes samples; set data.producer, data.vae and "
                "data.text_encoder"
            )


def micro_batch_size(batch: int, accumulation: int, group: int | None, world_size: int) -> int:
    """Samples in one micro-batch of one process.

    Args:
        batch: Samples of the global batch.
        accumulation: Micro-batches of a process in a step.
        group: Samples in a row that share a shape; None: batch / accumulation.
        world_size: Number of processes.

    Raises:
        ValueError: The global batch cannot be divided so that every micro-batch has one shape.
    """
    micro, rest = divmod(batch, accumulation * world_size)
    if rest or not micro:
        raise ValueError(
            f"data.batch_size {batch} cannot be divided among {world_size} processes with data.accumulation "
            f"{accumulation}; give a multiple of {accumulation * world_size}"
        )
    group = group or batch // accumulation
    if group % micro:
        raise ValueError(
            f"micro-batches of {micro} samples do not fit groups of {group} that share a shape; give a "
            f"data.group_size that is a multiple of {micro}"
        )
    return micro


def _check_mixture(config: DataConfig) -> None:
    """Check batch sizes and task weights."""
    for name in ("batch_size", "accumulation", "rows_per_shard"):
        if getattr(config, name) < 1:
            raise ValueError(f"data.{name} is {getattr(config, name)}; expected at least 1")
    if not 0 <= config.workers <= MAX_WORKERS:
        raise ValueError(f"data.workers is {config.workers}; expected 0 to {MAX_WORKERS} processes")
    if config.batch_size % config.accumulation:
        raise ValueError(
            f"data.batch_size {config.batch_size} is not a multiple of "
            f"data.accumulation {config.accumulation}"
        )
    if config.group_size is not None and (config.group_size < 1 or config.batch_size % config.group_size):
        raise ValueError(
            f"data.group_size is {config.group_size}; expected a divisor of batch_size {config.batch_size}"
        )
    for task, weight in config.task_weights.items():
        if not weight >= 0:
            raise ValueError(f"data.task_weights.{task} is {weight}; expected 0 or more")
    if config.task_weights and not any(config.task_weights.values()):
        raise ValueError("data.task_weights are all 0; give one task a weight, or leave them out")
