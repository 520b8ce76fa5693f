"""Drawn clips as a cache's content: no files are needed but the tiny VAE and text encoder."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import Tensor

from training.data.config import DataConfig
from training.data.encoders import TextEncoder, VideoEncoder, pick_device, text_encoder_digest, vae_digest
from training.data.samples import EncodedSample, Skipped
from vdot_core.vcu import num_latent_frames

from .clips.digest import drawing_digest
from .latents import encode_clips


class ShapesProducer:
    """Encodes the clips of `DataConfig.groups`; see `store.Producer`.

    Args:
        config: Groups, the two encoders' files, and clips a shard (`rows_per_shard`).

    Raises:
        ValueError: There is no group.
    """

    def __init__(self, config: DataConfig) -> None:
        if not config.groups:
            raise ValueError("data.groups is empty; give the shapes source at least one group of clips")
        self.config = config
        self._work: list[tuple[int, int, int]] = []
        for number, group in enumerate(config.groups):
            for first in range(0, group.num_clips, config.rows_per_shard):
                self._work.append((number, first, min(config.rows_per_shard, group.num_clips - first)))
        self.num_shards = len(self._work)
        self._loaded: tuple[VideoEncoder, TextEncoder] | None = None

    def header(self) -> dict[str, Any]:
        """What the samples depend on."""
        config = self.config
        return {
            "source": "shapes",
            "drawing_code": drawing_digest(),
            "vae": vae_digest(config.vae),
            "text_encoder": text_encoder_digest(config.text_encoder),
            "text_len": self._encoders()[1].text_len,
            "empty_prompt": config.empty_prompt,
            "encode_dtype": config.encode_dtype,
            "first_clip": config.first_clip,
            "rows_per_shard": config.rows_per_shard,
            "groups": [asdict(group) for group in config.groups],
        }

    def empty_text(self) -> Tensor:
        """The embedding of the empty prompt."""
        return self._encoders()[1]([self.config.empty_prompt])[0]

    def encode(self, shard: int) -> tuple[list[EncodedSample], list[Skipped]]:
        """The samples of some clips of one group, for all tasks of the group."""
        number, first, count = self._work[shard]
        group = self.config.groups[number]
        video, text = self._encoders()
        # Groups take different clips, so that none is seen twice.
        start = self.config.first_clip + sum(g.num_clips for g in self.config.groups[:number]) + first
        made = encode_clips(video.vae, group, "train", start, count, bf16=self.config.encode_dtype == "bf16")
        video_length = num_latent_frames(group.num_frames)
        samples = []
        for index, task in enumerate(made.tasks):
            latents, context = made.latents[index], made.contexts[index]
            samples.append(
                EncodedSample(
                    id=f"shapes-{shard:05d}-{index:03d}",
                    task=task,
                    latents=latents,
                    contexts=context[None],
                    texts=text(made.captions[index]),
                    num_reference_latents=latents.shape[1] - video_length,
                )
            )
        return samples, []

    def _encoders(self) -> tuple[VideoEncoder, TextEncoder]:
        if self._loaded is None:
            config = self.config
            # Drawn clips are small: they are encoded on the CPU, as the tiny teacher's were.
            device = pick_device("cpu")
            self._loaded = (
                VideoEncoder(config.vae, device),
                TextEncoder(config.text_encoder, device, text_len=config.text_len),
            )
        return self._loaded
