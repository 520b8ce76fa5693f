"""Cuts the references off a sampled video once, though Trim Video Latent may follow.

That node slices the samples by the number that VDOT Encode counts, which is right after KSampler. After
VDOT Sampler, which has cut already, the same slice must not take the video's first frames.
"""

import copy

import torch


class ReferenceCount(int):
    """Number of latent frames in front of the video that hold references."""


class TrimmedLatents(torch.Tensor):
    """Latents [B, 16, T, h, w] without references: a slice that starts at a ReferenceCount starts at 0.

    Any other slice and every operation work as on a plain tensor, and their results are plain tensors.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __getitem__(self, index):
        parts = index if isinstance(index, tuple) else (index,)
        parts = tuple(_without_references(part) for part in parts)
        return self.as_subclass(torch.Tensor)[parts]

    def __deepcopy__(self, memo):
        return copy.deepcopy(self.as_subclass(torch.Tensor), memo)

    def __reduce_ex__(self, protocol):
        return self.as_subclass(torch.Tensor).__reduce_ex__(protocol)


def trim_references(latents: torch.Tensor, count: int) -> torch.Tensor:
    """Latents [B, 16, T, h, w] from frame `count` on; with references, safe from a second cut."""
    return latents[:, :, count:].as_subclass(TrimmedLatents) if count else latents


def _without_references(part):
    if isinstance(part, slice) and isinstance(part.start, ReferenceCount):
        return slice(None, part.stop, part.step)
    return part
