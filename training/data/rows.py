"""Rows of a manifest or of tar shards as the content of a cache.

Letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from vdot_core import vcu
from vdot_core.dtypes import DTYPES
from vdot_core.memory import GIB

from ..distributed.precision import uses_bf16
from .bad_rows import BadRowError, Skipped
from .conditioning import Inputs, build_unit, canonical, needed, takes_short_source, task_parts
from .config import ENCODE_SETTINGS, DataConfig
from .encoded import EncodedSample, check_finite
from .encoders import (
    TextEncoder,
    VideoEncoder,
    pick_device,
    text_encoder_digest,
    vae_digest,
)
from .file_names import clip_file, name_digest
from .manifest import ManifestRows, Row
from .row_progress import CutTexts, EmptyMasks, RowProgress
from .shards import TarRows
from .video_files import MAX_CLIP_BYTES, Media, fit, own_size, read_clip, read_mask

# Two codecs of one clip may differ by a frame, and by a few pixels in size.
FRAME_TOLERANCE = 1
ASPECT_TOLERANCE = 0.03
# Of one row, whose pictures and embeddings are in memory together.
MAX_REFERENCES, MAX_PROMPTS = 16, 64


class RowShards(Protocol):
    """Rows in numbered shards.

    Attributes:
        num_shards: Number of shards.
        versions: As in `ManifestRows`.
    """

    num_shards: int
    versions: list[list]

    def rows(self, shard: int) -> Iterator[Row | Skipped]:
        """The rows of a shard, in order."""

    def count(self, shard: int) -> int | None:
        """Number of a shard's rows; None where only reading it tells."""

    def files(self, shard: int) -> dict[str, str]:
        """Name -> path or address of the files that hold a shard's rows."""


def row_shards(config: DataConfig, cached: Sequence[Sequence] = ()) -> RowShards:
    """Open the rows of a configuration.

    Args:
        config: Its `source` and `path`.
        cached: As in `ManifestRows`.

    Raises:
        ValueError: `path` is not set or cannot be read.
    """
    if not config.path:
        raise ValueError("data.path is not set; it is needed to encode rows")
    if config.source == "webdataset":
        return TarRows(config.path, cached)
    return ManifestRows(config.path, config.rows_per_shard, cached)


class RowsProducer:
    """Encodes rows; a `training.data.producer.Producer`.

    Args:
        config: Path, encoders and sizes.
        local_rank: Index of this process's GPU on its machine.
        cached: `versions` of the cache that is filled, if there is one.

    Raises:
        ValueError: A path is not set or cannot be read.
    """

    def __init__(self, config: DataConfig, local_rank: int = 0, cached: Sequence[Sequence] = ()) -> None:
        for name in ("vae", "text_encoder"):
            if not getattr(config, name):
                raise ValueError(f"data.{name} is not set; it is needed to encode rows")
        self.config = config
        self.shards = row_shards(config, cached)
        self.num_shards = self.shards.num_shards
        self._device = pick_device(config.device, local_rank)
        self._dtype = "bf16" if uses_bf16(config.encode_dtype, self._device, "data.encode_dtype") else "fp32"
        self._loaded: tuple[VideoEncoder, TextEncoder] | None = None
        self._gray = vcu.GrayCache()
        self._progress = RowProgress(None)
        self._cut, self._empty_masks = CutTexts(), EmptyMasks()
        self._shards_left = 0

    def begin(self, shards: Sequence[int]) -> None:
        """Log the progress of these shards by rows from now on."""
        # A model is loaded before the first row, whose time would count it.
        self._encoders()
        counts = [self.shards.count(shard) for shard in shards]
        self._progress = RowProgress(None if None in counts else sum(counts))
        self._cut, self._empty_masks, self._shards_left = CutTexts(), EmptyMasks(), len(shards)

    def header(self) -> dict[str, Any]:
        """All that the samples depend on, as JSON."""
        config = self.config
        return {
            "source": "rows",
            "rows": self.shards.versions,
            "rows_per_shard": None if config.source == "webdataset" else config.rows_per_shard,
            "vae": vae_digest(config.vae),
            "text_encoder": text_encoder_digest(config.text_encoder),
            "text_len": self._encoders()[1].text_len,
            "encode_dtype": self._dtype,
            **{name: getattr(config, name) for name in ENCODE_SETTINGS},
        }

    def empty_text(self) -> Tensor:
        """The embedding of the empty prompt."""
        return self._encoders()[1]([self.config.empty_prompt])[0]

    def files(self, shard: int) -> dict[str, str]:
        """Name -> path or address of the files that a shard is made from."""
        return self.shards.files(shard)

    def encode(self, shard: int) -> tuple[list[EncodedSample], list[Skipped]]:
        """The samples of a shard's rows, and the rows that cannot be used."""
        # A model that cannot be loaded is no row's fault.
        self._encoders()
        samples, skipped = [], []
        for row in self.shards.rows(shard):
            if isinstance(row, Skipped):
                skipped.append(row)
            else:
                try:
                    samples.append(check_finite(self._sample(row)))
                except Exception as error:
                    skipped.append(Skipped.from_error(row.id, row.place, error))
            self._progress.row()
        self._shards_left -= 1
        if self._shards_left == 0:
            self._cut.log(self._encoders()[1].text_len)
            self._empty_masks.log()
        return samples, skipped

    def _sample(self, row: Row) -> EncodedSample:
        task = canonical(row.task)
        inputs = load_inputs(row, self.config)
        if inputs.mask is not None and not inputs.mask.any():
            self._empty_masks.add(row)
        unit = build_unit(task, inputs)
        video, text = self._encoders()
        encoded = vcu.encode(unit, video, cache=self._gray, vae=video)
        contexts = encoded.contexts[0]
        latents = None
        if inputs.target is not None:
            references = contexts[0, : vcu.LATENT_CHANNELS, : encoded.num_reference_latents]
            latents = torch.cat([references, video(inputs.target[None])[0].float()], dim=1).half()
        num_cut = text.num_cut
        texts = text(row.prompts)
        self._cut.add(row, text.num_cut - num_cut)
        return EncodedSample(
            id=row.id,
            task=task,
            latents=latents,
            contexts=contexts.half(),
            texts=texts,
            num_reference_latents=encoded.num_reference_latents,
            context_scale=encoded.context_scale,
            clip=clip_name(row, self.config.path),
        )

    def _encoders(self) -> tuple[VideoEncoder, TextEncoder]:
        if self._loaded is None:
            config, dtype = self.config, DTYPES[self._dtype]
            self._loaded = (
                VideoEncoder(config.vae, self._device, dtype),
                TextEncoder(config.text_encoder, self._device, dtype, config.text_len),
            )
        return self._loaded


def clip_name(row: Row, path: str) -> str:
    """A digest of what a row was made from: its real clip, or else its source, or else its captions.

    Args:
        row: The row.
        path: Its manifest; a file's place is taken relative to it, so that moving both changes nothing.
    """
    media = row.target or row.source
    if media is not None and media.data is not None:
        content = media.data
    elif media is not None:
        return name_digest(clip_file(media.name, path))
    else:
        content = "\n".join(row.prompts).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def load_inputs(row: Row, config: DataConfig) -> Inputs:
    """Read a row's files at one size and length.

    Args:
        row: The row.
        config: Frame rate, size and length.

    Raises:
        BadRowError: A file is missing, cannot be decoded, or does not fit the others.
    """
    parts = task_parts(canonical(row.task))
    for column, values, most in (
        ("ref_image_path", row.references, MAX_REFERENCES),
        ("prompt", row.prompts, MAX_PROMPTS),
    ):
        if len(values) > most:
            raise BadRowError("wrong", f"{column} has {len(values)} entries, expected at most {most}")
    files = {"src_video_path": row.source, "mask_video_path": row.mask, "ref_image_path": row.references}
    for column in needed(parts):
        if not files[column]:
            raise BadRowError("missing", f"{column} is empty; {row.task} needs it")

    def read(media: Media | None, reader: Callable[..., Tensor] = read_clip) -> Tensor | None:
        return None if media is None else reader(media, config.frame_rate, config.num_frames)[..., :3]

    target, source, mask = read(row.target), read(row.source), read(row.mask, read_mask)
    references = _references(row)
    short = takes_short_source(parts) and mask is None
    named = {"target_video": target, "mask_video": mask if mask is not None and len(mask) > 1 else None}
    if not (short and target is not None):
        named["src_video"] = source
    length = _common_length({n: len(c) for n, c in named.items() if c is not None}, config, short)
    # A clip to continue may be as long as the others: then the task says which part of it is kept.
    pictures = {"target_video": target, "src_video": source, "mask_video": mask}
    width, height = _common_size({n: c for n, c in pictures.items() if c is not None}, config)

    def fitted(clip: Tensor | None) -> Tensor | None:
        return None if clip is None else fit(clip[:length], width, height, config.resize)

    soft = fitted(mask)
    if soft is not None:
        soft = (soft.mean(-1) > 0.5).float().expand(length, height, width)
    return Inputs(width, height, length, fitted(source), soft, references, fitted(target))


def _references(row: Row) -> tuple[Tensor, ...]:
    """Pictures [H, W, 3 or 4] float in [0, 1], of a video its first frame."""
    pictures: list[Tensor] = []
    for media in row.references:
        pictures.append(read_clip(media, 1.0, 1)[0, ..., :4].float() / 255)
        if (total := sum(picture.nbytes for picture in pictures)) > MAX_CLIP_BYTES:
            raise BadRowError(
                "unreadable",
                f"its references take {total / GIB:.3g} GiB, expected at most {MAX_CLIP_BYTES / GIB:.3g}; "
                "scale them down",
            )
    return tuple(pictures)


def _common_length(lengths: dict[str, int], config: DataConfig, short: bool) -> int:
    """4n + 1 frames that all clips have; rows without a clip are as long as the configuration says."""
    if not lengths or (short and set(lengths) == {"src_video"}):
        return config.num_frames
    least, most = min(lengths, key=lengths.get), max(lengths, key=lengths.get)
    if lengths[most] - lengths[least] > FRAME_TOLERANCE:
        raise BadRowError(
            "misshapen",
            f"{least} has {lengths[least]} frames at {config.frame_rate:g} per second, {most} has "
            f"{lengths[most]}; give both the same length",
        )
    length = vcu.snap_length(lengths[least])
    if length < config.min_frames:
        raise BadRowError(
            "misshapen", f"{least} has {lengths[least]} frames, fewer than min_frames {config.min_frames}"
        )
    return length


def _common_size(clips: dict[str, Tensor], config: DataConfig) -> tuple[int, int]:
    """(width, height) of the canvas; clips of different aspect do not show the same."""
    sizes = {name: (clip.shape[2], clip.shape[1]) for name, clip in clips.items()}
    if not sizes:
        if config.width is None:
            raise BadRowError(
                "missing", "the row has no clip whose size to take; set data.width and data.height"
            )
        return config.width, config.height
    (first, (width, height)), *others = sizes.items()
    for name, (other_width, other_height) in others:
        if abs(other_width * height / (other_height * width) - 1) > ASPECT_TOLERANCE:
            raise BadRowError(
                "misshapen",
                f"{name} is {other_width}x{other_height}, {first} {width}x{height}; "
                "give both the same aspect",
            )
    if config.width is not None:
        return config.width, config.height
    return own_size(width, height, config.max_pixels)
