"""Cuts the references off a sampled video once, though Trim Video Latent may follow.

That node slices the samples by the number that VDOT Encode counts, which is right after KSampler. After
VDOT Sampler, which has cut already, the same slice must not take the video's first frames, also where other
latent nodes lie between the two. A second sampler, a file and a conversion by int() lose the marks.
"""

import copy
import operator

import comfy.latent_formats
import torch

CHANNELS = comfy.latent_formats.Wan21.latent_channels
CONVERSIONS = ("to", "cpu", "cuda", "float", "half", "bfloat16", "type", "type_as")
"""They come first in samplers and VAEs: networks, compiled ones above all, need plain tensors."""
JOINS = (torch.cat, torch.concat, torch.concatenate, torch.stack)


def _arithmetic(function):
    def method(self, other):
        result = function(int(self), other)
        return ReferenceCount(result, self.references) if type(result) is int else result

    return method


class ReferenceCount(int):
    """Number of latent frames to cut off the start, `references` of which hold references.

    Sums and products with whole numbers remember how many references they count.
    """

    references: int

    def __new__(cls, value: int, references: int | None = None):
        self = super().__new__(cls, value)
        self.references = int(value) if references is None else references
        return self

    @property
    def beyond(self) -> int:
        """Number of frames to cut after the references."""
        return max(0, int(self) - self.references)

    __add__ = __radd__ = _arithmetic(operator.add)
    __mul__ = __rmul__ = _arithmetic(operator.mul)
    __sub__ = _arithmetic(operator.sub)
    __floordiv__ = _arithmetic(operator.floordiv)


class TrimmedLatents(torch.Tensor):
    """Latents [B, 16, T, h, w] without references: a slice from a ReferenceCount on starts after none.

    Otherwise a plain tensor. The results of operations are marked too while they keep an axis of channels,
    so that a latent node's result is still without references. Another device or dtype makes them plain.
    """

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if any(not issubclass(kind, cls) for kind in types):  # leaves other tensor classes their own way
            args, kwargs = torch.utils._pytree.tree_map_only(cls, _plain, (args, kwargs))
            result = func(*args, **kwargs)
        else:
            with torch._C.DisableTorchFunctionSubclass():
                result = func(*args, **kwargs)
        if getattr(func, "__name__", "") in CONVERSIONS and not _repeats_dtype(func, args, kwargs):
            return _plain(result) if isinstance(result, cls) else result
        return _marked(result) if _keeps(func, args) else result

    def __getitem__(self, index):
        parts = index if isinstance(index, tuple) else (index,)
        return super().__getitem__(tuple(_without_references(part) for part in parts))

    def __deepcopy__(self, memo):
        return _marked(copy.deepcopy(_plain(self), memo))

    def __reduce_ex__(self, protocol):
        return _plain(self).__reduce_ex__(protocol)


def trim_references(latents: torch.Tensor, count: int) -> torch.Tensor:
    """Latents [B, 16, T, h, w] from frame `count` on; with references, safe from a second cut."""
    return latents[:, :, count:].as_subclass(TrimmedLatents) if count else latents


def _repeats_dtype(func, args, kwargs) -> bool:
    """A conversion to the dtype that they have, as in bislerp; samplers and VAEs name a device first."""
    alone = len(args) == 2 and isinstance(args[1], torch.dtype) and not kwargs
    dtype = torch.float32 if func is torch.Tensor.float else args[1] if alone else None
    return func in (torch.Tensor.float, torch.Tensor.to) and args[0].dtype == dtype


def _keeps(func, args) -> bool:
    """Joined parts begin as the first one does; new tensors and attributes have nothing of the video."""
    name = getattr(func, "__name__", "")
    if name.endswith("_like") or name.startswith("new_") or name in ("as_subclass", "__get__"):
        return False
    return func not in JOINS or not args or isinstance(args[0][0], TrimmedLatents)


def _marked(result):
    if type(result) in (tuple, list):
        return type(result)(map(_marked, result))
    if type(result) is not torch.Tensor or CHANNELS not in result.shape:
        return result
    return result.as_subclass(TrimmedLatents)


def _plain(latents: torch.Tensor) -> torch.Tensor:
    return latents.as_subclass(torch.Tensor)


def _without_references(part):
    if isinstance(part, slice) and isinstance(part.start, ReferenceCount):
        return slice(part.start.beyond, part.stop, part.step)
    return part
