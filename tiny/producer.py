"""Drawn clips as the samples of a training cache; the only input files are a VAE and a text encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any

from torch import Tensor

from training.data.bad_rows import Skipped
from training.data.config import DataConfig
from training.data.encoded import EncodedSample
from training.data.encoders import TextEncoder, VideoEncoder, pick_device, text_encoder_digest, vae_digest
from training.distributed.precision import uses_bf16

from .clips import CLIPS_VERSION
from .config import CacheGroup
from .encode import encode_clips


@dataclass(frozen=True)
class ShapesConfig:
    """Settings of the drawn clips, `data.producer_args`.

    Attributes:
        groups: Clips of one size each; each group takes the clips that follow the previous group's.
        first_clip: First clip to use, of the training split.
    """

    groups: list[CacheGroup]
    first_clip: int = 0

    def __post_init__(self) -> None:
        if not self.groups:
            raise ValueError("data.producer_args.groups is empty; give at least one group of clips")
        if self.first_clip < 0:
            raise ValueError(f"data.producer_args.first_clip is {self.first_clip}; expected 0 or more")

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> ShapesConfig:
        """Read `data.producer_args`; ValueError names the key that is unknown or of the wrong type."""
        from jsonargparse import ArgumentError, ArgumentParser

        _check_names(args, cls, "data.producer_args")
        groups = args.get("groups") or []
        for number, group in enumerate(groups if isinstance(groups, list) else []):
            _check_names(group, CacheGroup, f"data.producer_args.groups[{number}]")
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(cls, nested_key=None)
        try:
            values = parser.instantiate(parser.parse_object({"groups": groups, **args}))
        except ArgumentError as error:
            raise ValueError(f"data.producer_args: {' '.join(str(error).split())}") from error
        return cls(**{field.name: values[field.name] for field in fields(cls)})


def _check_names(args: Any, cls: type, place: str) -> None:
    """Refuse unknown keys, naming the nearest; what is no mapping is left to the parser."""
    names = [field.name for field in fields(cls)]
    for key in args if isinstance(args, Mapping) else ():
        if key not in names:
            near = get_close_matches(str(key), names, 1)
            hint = f"did you mean {near[0]}?" if near else f"expected {', '.join(names)}"
            raise ValueError(f"{place}: unknown key {key}; {hint}")


class ShapesProducer:
    """Encodes the clips of `ShapesConfig.groups`; a `training.data.producer.NamedProducer`.

    Args:
        config: The two encoders' files, clips a shard (`rows_per_shard`), and the groups in `producer_args`.

    Raises:
        ValueError: The settings are wrong, or there is no group.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config, self.shapes = config, ShapesConfig.from_args(config.producer_args)
        # Drawn clips are small: they are encoded on the CPU, as the tiny teacher's were.
        self._device = pick_device("cpu")
        self._bf16 = uses_bf16(config.encode_dtype, self._device, "data.encode_dtype")
        self._work: list[tuple[int, int, int]] = []
        for number, group in enumerate(self.shapes.groups):
            for first in range(0, group.num_clips, config.rows_per_shard):
                self._work.append((number, first, min(config.rows_per_shard, group.num_clips - first)))
        self.num_shards = len(self._work)
        self._loaded: tuple[VideoEncoder, TextEncoder] | None = None

    def largest_clip(self) -> tuple[int, int, int]:
        """(width, height, num_frames) of the largest group's clips."""
        sizes = ((group.width, group.height, group.num_frames) for group in self.shapes.groups)
        return max(sizes, key=lambda size: size[0] * size[1] * size[2])

    def tasks(self) -> set[str]:
        """The tasks of all groups."""
        return {task for group in self.shapes.groups for task in (*group.tasks, *group.extra)}

    def header(self) -> dict[str, Any]:
        """All that the samples depend on, as JSON."""
        config = self.config
        return {
            "source": "shapes",
            "clips_version": CLIPS_VERSION,
            "vae": vae_digest(config.vae),
            "text_encoder": text_encoder_digest(config.text_encoder),
            "text_len": self._encoders()[1].text_len,
            "empty_prompt": config.empty_prompt,
            "encode_dtype": "bf16" if self._bf16 else "fp32",
            "first_clip": self.shapes.first_clip,
            "rows_per_shard": config.rows_per_shard,
            "groups": [asdict(group) for group in self.shapes.groups],
        }

    def empty_text(self) -> Tensor:
        """The embedding of the empty prompt."""
        return self._encoders()[1]([self.config.empty_prompt])[0]

    def encode(self, shard: int) -> tuple[list[EncodedSample], list[Skipped]]:
        """The samples of some clips of one group, for all tasks of the group."""
        number, first, count = self._work[shard]
        group = self.shapes.groups[number]
        video, text = self._encoders()
        # Groups take different clips, so that none is seen twice.
        start = self.shapes.first_clip + sum(g.num_clips for g in self.shapes.groups[:number]) + first
        numbers, name = range(start, start + count), f"shapes-{shard:05d}"
        return list(encode_clips(video.vae, text, group, numbers, name, bf16=self._bf16)), []

    def _encoders(self) -> tuple[VideoEncoder, TextEncoder]:
        if self._loaded is None:
            config = self.config
            self._loaded = (
                VideoEncoder(config.vae, self._device),
                TextEncoder(config.text_encoder, self._device, text_len=config.text_len),
            )
        return self._loaded
