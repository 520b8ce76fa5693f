"""One encoded sample, and how it is laid out in a file.

Letters: K contexts, L tokens, D text width, T latent frames (references included), h w latents.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vdot_core.networks.context_scale import ContextScale
from vdot_core.vcu import CONTEXT_CHANNELS, LATENT_CHANNELS

from .batch import Batch

PICTURE_CHANNELS = 2 * LATENT_CHANNELS
MASK_CHANNELS = CONTEXT_CHANNELS - PICTURE_CHANNELS
KINDS = ("missing", "unreadable", "misshapen", "wrong")


@dataclass(frozen=True)
class Skipped:
    """A row that is not trained on.

    Attributes:
        id: The row's name.
        place: Where it stands, as "clips.csv line 7".
        kind: missing (a field or file), unreadable, misshapen, or wrong (a task or value).
        reason: One sentence.
    """

    id: str
    place: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place} ({self.id}): {self.reason}"


class BadRowError(ValueError):
    """A row cannot be used; the message says why."""

    def __init__(self, kind: str, reason: str) -> None:
        assert kind in KINDS
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True, eq=False)
class EncodedSample:
    """What the training step needs of one row.

    Attributes:
        id, task: The row's name and task.
        latents: [16, T, h, w] float16 of the real clip, normalised, references first; None = no clip.
        contexts: [K, 96, T, h, w] float16, the mask channels 0 or 1.
        texts: One [L, D] for each caption, cut after its last token.
        num_reference_latents: How many of the T are references.
        scales: As `vdot_core.vcu.VCUContext.scales`.
    """

    id: str
    task: str
    latents: Tensor | None
    contexts: Tensor
    texts: tuple[Tensor, ...]
    num_reference_latents: int = 0
    scales: tuple = (1.0,)


@dataclass(frozen=True)
class SampleInfo:
    """What the index knows of a sample without opening its file.

    Attributes:
        id, task, num_reference_latents, scales: As in `EncodedSample`.
        shape: (16, T, h, w).
        num_contexts: K. num_texts: Captions to choose from. has_latents: Whether there is a real clip.
        slot: Place in its file.
    """

    id: str
    task: str
    shape: tuple[int, int, int, int]
    num_contexts: int
    num_texts: int
    has_latents: bool
    num_reference_latents: int
    scales: tuple
    slot: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SampleInfo:
        """Read what `to_dict` gave, through JSON."""
        scales = tuple(tuple(s) if isinstance(s, list) else float(s) for s in values["scales"])
        return cls(**{**values, "shape": tuple(values["shape"]), "scales": scales})


def context_scale(scales: tuple) -> float | ContextScale:
    """The strengths of a sample's contexts as the network takes them."""
    if len(scales) == 1 and isinstance(scales[0], float):
        return scales[0]
    return ContextScale(frames=scales)


def pack(sample: EncodedSample, slot: int) -> tuple[dict[str, Tensor], SampleInfo]:
    """A sample's tensors under names that begin with its slot, masks packed to bits, and its index entry."""
    masks = sample.contexts[:, PICTURE_CHANNELS:]
    if not bool(((masks == 0) | (masks == 1)).all()):
        raise ValueError(
            f"sample {sample.id} has mask channels other than 0 and 1; encode it with vcu.encode"
        )
    tensors = {
        f"{slot}.pictures": sample.contexts[:, :PICTURE_CHANNELS],
        f"{slot}.masks": torch.from_numpy(np.packbits(masks.bool().numpy())),
        **{f"{slot}.text.{number}": text for number, text in enumerate(sample.texts)},
    }
    if sample.latents is not None:
        tensors[f"{slot}.latents"] = sample.latents
    info = SampleInfo(
        id=sample.id,
        task=sample.task,
        shape=(LATENT_CHANNELS, *sample.contexts.shape[2:]),
        num_contexts=len(sample.contexts),
        num_texts=len(sample.texts),
        has_latents=sample.latents is not None,
        num_reference_latents=sample.num_reference_latents,
        scales=sample.scales,
        slot=slot,
    )
    return tensors, info


def unpack_contexts(pictures: Tensor, bits: Tensor) -> Tensor:
    """The contexts [K, 96, T, h, w] of what `pack` wrote."""
    shape = (pictures.shape[0], MASK_CHANNELS, *pictures.shape[2:])
    masks = np.unpackbits(bits.numpy(), count=math.prod(shape)).reshape(shape)
    return torch.cat([pictures, torch.from_numpy(masks).to(pictures.dtype)], dim=1)


def collate(
    samples: list[tuple[SampleInfo, dict[str, Tensor]]],
    positions: tuple[int, ...],
    text_len: int,
    *,
    text_only: bool,
) -> Batch:
    """Stack samples of one bucket.

    Args:
        samples: Index entries, and tensors "text" [L, D], "latents" and "contexts" (where they are used).
        positions: Of each in the global batch.
        text_len: Length to which texts are zero-padded.
        text_only: Leave contexts and reference frames out.

    Returns:
        The batch, in float32.
    """
    first = samples[0][0]
    dropped = first.num_reference_latents if text_only else 0
    text = torch.zeros(len(samples), text_len, samples[0][1]["text"].shape[-1])
    for row, (_, tensors) in zip(text, samples, strict=True):
        row[: len(tensors["text"])] = tensors["text"]
    stacked = {}
    if "latents" in samples[0][1]:
        # Samples that differ in references alone stack once those are gone.
        parts = [t["latents"][:, info.num_reference_latents if text_only else 0 :] for info, t in samples]
        stacked["latents"] = torch.stack(parts).float()
    if "contexts" in samples[0][1]:
        stacked["contexts"] = torch.stack([tensors["contexts"] for _, tensors in samples]).float()
    channels, length, *sides = first.shape
    return Batch(
        ids=tuple(info.id for info, _ in samples),
        tasks=tuple(info.task for info, _ in samples),
        positions=positions,
        text=text,
        shape=(channels, length - dropped, *sides),
        context_scale=1.0 if text_only else context_scale(first.scales),
        num_reference_latents=0 if text_only else first.num_reference_latents,
        **stacked,
    )
