"""One encoded sample, how it is laid out in a file, and how samples stack into a batch.

Letters: K contexts, L tokens, D text width, T latent frames (references included), h w latents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vdot_core.networks.context_scale import ContextScale
from vdot_core.text import described
from vdot_core.vcu import CONTEXT_CHANNELS, LATENT_CHANNELS

from .bad_rows import BadRowError
from .batch import Batch

PICTURE_CHANNELS = 2 * LATENT_CHANNELS
MASK_CHANNELS = CONTEXT_CHANNELS - PICTURE_CHANNELS
COUNTS = ("num_contexts", "num_texts", "num_reference_latents", "slot")
FULL_STRENGTH = ContextScale(frames=(1.0,))


@dataclass(frozen=True)
class SampleInfo:
    """Index entry of a sample: all that is known without opening its file.

    Attributes:
        id, task: The row's name and task.
        shape: (16, T, h, w).
        num_contexts: K.
        num_texts: Captions to choose from.
        has_latents: There is a real clip.
        num_reference_latents: Number of the T that are references.
        context_scale: Strengths of the contexts.
        slot: Place in its file.
        clip: Names what it was made from; samples of one clip have the same. None in older caches.
    """

    id: str
    task: str
    shape: tuple[int, int, int, int]
    num_contexts: int
    num_texts: int
    has_latents: bool
    num_reference_latents: int
    context_scale: ContextScale
    slot: int
    clip: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` is the inverse."""
        values = asdict(self)
        values["scales"] = values.pop("context_scale")["frames"]
        if self.clip is None:
            del values["clip"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SampleInfo:
        """Read what `to_dict` gave, through JSON; ValueError, TypeError or LookupError for else."""
        for name, kind in (("id", str), ("task", str), ("has_latents", bool), *((n, int) for n in COUNTS)):
            if type(values[name]) is not kind:
                raise ValueError(f"{name} is {described(values[name], 22)}, expected {kind.__name__}")
        if len(values["shape"]) != 4 or not all(type(size) is int and size > 0 for size in values["shape"]):
            raise ValueError(f"shape is {described(values['shape'], 40)}, expected four positive numbers")
        if not isinstance(values.get("clip"), (str, type(None))):
            raise ValueError(f"clip is {described(values['clip'], 22)}, expected str")
        if values["num_texts"] < 1:
            raise ValueError(f"num_texts is {described(values['num_texts'])}, expected at least 1")
        if not (isinstance(values["scales"], list) and values["scales"]):
            raise ValueError(f"scales are {described(values['scales'], 22)}, expected a list")
        rest = {name: value for name, value in values.items() if name not in ("scales", "shape")}
        frames = tuple(tuple(s) if isinstance(s, list) else float(s) for s in values["scales"])
        return cls(**rest, shape=tuple(values["shape"]), context_scale=ContextScale(frames=frames))


@dataclass(frozen=True, eq=False)
class EncodedSample:
    """A sample as the cache holds it, or as much of it as a training step reads.

    Attributes:
        id, task: The row's name and task.
        latents: [16, T, h, w] float16 of the real clip, normalized, references first; None = no clip, or not
            read.
        contexts: [K, 96, T, h, w] float16, the mask channels 0 or 1; None = not read.
        texts: [L, D] of each caption, cut after its last token; the chosen one alone where it was read.
        num_reference_latents: Number of the T that are references.
        context_scale: Strengths of the contexts, by context or by context and latent frame.
        clip: As in `SampleInfo`.
    """

    id: str
    task: str
    latents: Tensor | None
    contexts: Tensor | None
    texts: tuple[Tensor, ...]
    num_reference_latents: int = 0
    context_scale: ContextScale = FULL_STRENGTH
    clip: str | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(16, T, h, w)."""
        sizes = self.contexts.shape[2:] if self.latents is None else self.latents.shape[1:]
        return (LATENT_CHANNELS, *sizes)

    def info(self, slot: int) -> SampleInfo:
        """The index entry of a sample that is to be written."""
        return SampleInfo(
            id=self.id,
            task=self.task,
            shape=self.shape,
            num_contexts=len(self.contexts),
            num_texts=len(self.texts),
            has_latents=self.latents is not None,
            num_reference_latents=self.num_reference_latents,
            context_scale=self.context_scale,
            slot=slot,
            clip=self.clip,
        )


def check_finite(sample: EncodedSample) -> EncodedSample:
    """The sample; BadRowError where an encoder gave NaN, infinity, or more than its number format holds."""
    named = {"latents": sample.latents, "contexts": sample.contexts}
    named |= {f"caption {number}": text for number, text in enumerate(sample.texts)}
    for name, tensor in named.items():
        if tensor is not None and not bool(tensor.isfinite().all()):
            raise BadRowError(
                "failed",
                f"its encoded {name} holds NaN or infinity as {str(tensor.dtype).removeprefix('torch.')}; "
                "look at the clip, or set data.encode_dtype fp32",
            )
    return sample


def pack(sample: EncodedSample, slot: int) -> dict[str, Tensor]:
    """A sample's tensors under names that begin with its slot, masks packed to bits."""
    check_finite(sample)
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
    return tensors


def unpack(file: Any, info: SampleInfo, caption: int, *, contexts: bool) -> EncodedSample:
    """Read a sample that `pack` laid out.

    Args:
        file: An open safetensors file.
        info: The sample's index entry.
        caption: Index of the caption.
        contexts: Read its contexts, too.

    Returns:
        The sample with this caption.
    """
    pictures_and_masks = None
    if contexts:
        pictures, bits = (file.get_tensor(f"{info.slot}.{name}") for name in ("pictures", "masks"))
        pictures_and_masks = unpack_contexts(pictures, bits)
    return EncodedSample(
        id=info.id,
        task=info.task,
        latents=file.get_tensor(f"{info.slot}.latents") if info.has_latents else None,
        contexts=pictures_and_masks,
        texts=(file.get_tensor(f"{info.slot}.text.{caption}"),),
        num_reference_latents=info.num_reference_latents,
        context_scale=info.context_scale,
    )


def unpack_contexts(pictures: Tensor, bits: Tensor) -> Tensor:
    """The contexts [K, 96, T, h, w] of what `pack` wrote."""
    shape = (pictures.shape[0], MASK_CHANNELS, *pictures.shape[2:])
    masks = np.unpackbits(bits.numpy(), count=math.prod(shape)).reshape(shape)
    return torch.cat([pictures, torch.from_numpy(masks).to(pictures.dtype)], dim=1)


def collate(
    samples: Sequence[EncodedSample], shape: tuple[int, ...], positions: tuple[int, ...], text_len: int
) -> Batch:
    """Stack samples of one bucket.

    Args:
        samples: Each with the one caption to use. Without contexts, prompts are all that conditions: the
            reference frames are left out.
        shape: (16, T, h, w) of the first sample, references included.
        positions: Of each in the global batch.
        text_len: Length to which texts are zero-padded.

    Returns:
        The batch, in float32.
    """
    first = samples[0]
    text_only = first.contexts is None
    text = torch.zeros(len(samples), text_len, first.texts[0].shape[-1])
    for row, sample in zip(text, samples, strict=True):
        row[: len(sample.texts[0])] = sample.texts[0]
    latents = contexts = None
    if first.latents is not None:
        # Samples that differ in references alone stack once those are gone.
        starts = [sample.num_reference_latents if text_only else 0 for sample in samples]
        parts = [sample.latents[:, start:] for sample, start in zip(samples, starts, strict=True)]
        latents = torch.stack(parts).float()
    if not text_only:
        contexts = torch.stack([sample.contexts for sample in samples]).float()
    channels, length, *sides = shape
    return Batch(
        ids=tuple(sample.id for sample in samples),
        tasks=tuple(sample.task for sample in samples),
        positions=positions,
        text=text,
        shape=(channels, length - (first.num_reference_latents if text_only else 0), *sides),
        latents=latents,
        contexts=contexts,
        context_scale=1.0 if text_only else first.context_scale,
        num_reference_latents=0 if text_only else first.num_reference_latents,
    )
