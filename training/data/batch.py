"""Input of a training step: encoded samples of one latent shape.

Letters: B batch, K contexts, L tokens, D text width, T latent frames (references included), h w latents.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from vdot_core.networks.context_scale import ContextScale


@dataclass(frozen=True, eq=False)
class Batch:
    """One micro-batch: one latent shape, one number of references, one number of contexts.

    Attributes:
        ids: B names of samples, for logs.
        tasks: B task names.
        positions: Place of each sample in the step's global batch. Noise and other draws are keyed by
            (seed, step, position, purpose), so that they do not depend on the number of processes.
        text: [B, L, D] float, zero beyond each prompt's end; L is the same in all of a source's batches.
        shape: (16, T, h, w) of one sample's latents.
        latents: [B, 16, T, h, w] float, the real clips, normalized, references first; None = prompts alone.
        contexts: [B, K, 96, T, h, w] float, or None in training from text alone.
        context_scale: Weights of `contexts`.
        num_reference_latents: Number of leading latent frames that are references.
    """

    ids: tuple[str, ...]
    tasks: tuple[str, ...]
    positions: tuple[int, ...]
    text: Tensor
    shape: tuple[int, int, int, int]
    latents: Tensor | None = None
    contexts: Tensor | None = None
    context_scale: float | ContextScale = 1.0
    num_reference_latents: int = 0

    def __post_init__(self) -> None:
        count = len(self.ids)
        if not count or len(self.tasks) != count or len(self.positions) != count or len(self.text) != count:
            raise ValueError(
                f"a batch has {count} ids, {len(self.tasks)} tasks, {len(self.positions)} positions and "
                f"{len(self.text)} texts; give one of each for every sample, and at least one sample"
            )
        if self.latents is not None and tuple(self.latents.shape) != (count, *self.shape):
            raise ValueError(f"latents are {list(self.latents.shape)}, expected {[count, *self.shape]}")
        if self.contexts is not None and (
            self.contexts.ndim != 6
            or len(self.contexts) != count
            or tuple(self.contexts.shape[3:]) != tuple(self.shape[1:])
        ):
            raise ValueError(
                f"contexts are {list(self.contexts.shape)}, "
                f"expected [{count}, K, 96, *{list(self.shape[1:])}]"
            )
        if not 0 <= self.num_reference_latents < self.shape[1]:
            raise ValueError(
                f"num_reference_latents is {self.num_reference_latents} of {self.shape[1]} latent frames; "
                "at least one has to be the video's"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """A copy on another device; `dtype` None keeps each tensor's own."""
        moved = {
            name: None if tensor is None else tensor.to(device, dtype or tensor.dtype, non_blocking=True)
            for name in ("text", "latents", "contexts")
            for tensor in (getattr(self, name),)
        }
        return dataclasses.replace(self, **moved)

    def pin_memory(self) -> Batch:
        """A copy in page-locked memory, from which copies to a GPU do not block."""
        pinned = {
            name: tensor.pin_memory()
            for name in ("text", "latents", "contexts")
            if (tensor := getattr(self, name)) is not None
        }
        return dataclasses.replace(self, **pinned)


def doubled(first: Batch, second: Batch) -> Batch:
    """Two batches of one shape as one, without real latents; the second has the first's contexts."""
    contexts = None if first.contexts is None else torch.cat([first.contexts, second.contexts])
    return dataclasses.replace(
        first,
        ids=first.ids + second.ids,
        tasks=first.tasks + second.tasks,
        positions=first.positions + second.positions,
        text=torch.cat([first.text, second.text]),
        latents=None,
        contexts=contexts,
    )


def references(batch: Batch) -> Tensor | None:
    """[B, 16, R, h, w] the clean latents of the reference frames; None where there are none."""
    count = batch.num_reference_latents
    if not count:
        return None
    if batch.latents is not None:
        return batch.latents[:, :, :count].float()
    # A context brings an image in its first 16 channels, with mask 0; the others are gray there, with mask 1.
    brought = 1 - batch.contexts[:, :, 32:33, :count].float()
    return (batch.contexts[:, :, :16, :count] * brought).sum(1) / brought.sum(1)


def with_references(sample: Tensor, batch: Batch) -> Tensor:
    """A sample [B, 16, T, h, w] whose reference frames are the given images.

    Scores and discriminator then see the same references in generated and in real latents, noised alike; the
    generator's own output on those frames is cut off after sampling and is no part of any loss.
    """
    images = references(batch)
    if images is None:
        return sample
    return torch.cat([images.to(sample), sample[:, :, batch.num_reference_latents :]], dim=2)
