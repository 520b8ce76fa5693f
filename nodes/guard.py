"""Base class of the nodes: checked inputs, progress, and interruption.

ComfyUI validates what is typed into a widget, but not what arrives over a link.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

from comfy_api.latest import io

from ..vdot_core.text import counted, described, listed, shown

MAX_CHARACTERS = 1_000_000
IMAGES, MASKS = "images (connect a node that gives IMAGE)", "masks (connect a node that gives MASK)"


class CheckedNode(io.ComfyNode):
    """A node whose `execute` is called with values that fit its schema; all others are refused in words.

    What it says is repeated to a page that opens while its result is cached.
    """

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        schema = cls.__dict__.get("define_schema")
        if schema is not None and not hasattr(schema.__func__, "__wrapped__"):
            cls.define_schema = classmethod(_speaking(schema.__func__))
        own = cls.__dict__.get("execute")
        # ComfyUI clones a class, with its methods, for every run.
        if own is not None and not hasattr(own.__func__, "__wrapped__"):
            cls.execute = classmethod(_checked(own.__func__))


def _speaking(define_schema: Callable) -> Callable:
    @functools.wraps(define_schema)
    def speaking(cls) -> io.Schema:
        schema = define_schema(cls)
        schema.has_intermediate_output = True  # hosts that do not know it take no notice
        return schema

    return speaking


def _checked(execute: Callable) -> Callable:
    @functools.wraps(execute)
    def checked(cls, **values):
        from ..vdot_core.progress import reporting
        from ..vdot_core.scratch import spilling
        from .comfy_inputs import scratch_folder
        from .comfy_progress import progress_bar

        values = checked_inputs(cls.define_schema().inputs, values)
        with reporting(progress_bar()), spilling(scratch_folder):
            return execute(cls, **values)

    return checked


def checked_inputs(inputs: Iterable[io.Input], values: dict[str, Any]) -> dict[str, Any]:
    """A node's values with numbers as plain int and float.

    Args:
        inputs: of the node's schema.
        values: what `execute` is called with, by input id; optional ones that are missing or None are left
            to its defaults.

    Returns:
        The same values under the same names.

    Raises:
        ValueError: a choice that is not offered, a number out of the widget's range, or another type; names
            the input, as the node shows it.
    """
    checked = dict(values)
    for entry in inputs:
        if entry.id not in values:
            continue
        value = values[entry.id]
        if isinstance(entry, io.Autogrow.Input):
            checked[entry.id] = _grown(entry, {} if value is None else value)
        elif value is None and entry.optional:
            del checked[entry.id]
        else:
            checked[entry.id] = _check(entry, entry.id, value)
    return checked


def _grown(entry: io.Autogrow.Input, group: Any) -> dict[str, Any]:
    """Of the inputs of a group, those that are not connected are None."""
    if not isinstance(group, dict):
        raise _refusal(entry.id, group, "a group of inputs; connect its inputs one by one")
    inner = entry.template.input
    return {name: value if value is None else _check(inner, name, value) for name, value in group.items()}


def _check(entry: io.Input, name: str, value: Any) -> Any:
    kind = entry.get_io_type()
    if value is None and kind not in CHECKS:
        raise _refusal(name, value, f"a connection; connect a node that gives {kind}")
    return CHECKS[kind](entry, name, value) if kind in CHECKS else value


def _refusal(name: str, value: Any, expected: str) -> ValueError:
    return ValueError(f"{name} is {_kind(value) or described(value)}, expected {expected}")


def _kind(value: Any) -> str:
    """Objects are named by their type, tensors by their shape; '' for numbers and text."""
    if value is None:
        return "missing"
    if isinstance(value, (bool, int, float, str)):
        return ""
    shape = getattr(value, "shape", None)
    kind = f"a {type(value).__name__}"
    return f"{kind} of shape {shown(list(shape), 60)}" if isinstance(shape, tuple) else kind


def _choice(entry, name: str, value: Any) -> str:
    if not isinstance(value, str) or (value not in entry.options and not getattr(entry, "takes_others", 0)):
        choices = shown(listed(entry.options, 5), 200) or "there are none"
        raise _refusal(name, value, f"one of its choices ({choices}); pick one, or press R to refresh them")
    return value


def _whole(entry, name: str, value: Any) -> int:
    from ..vdot_core.vcu.checks import whole

    return whole(name, value, entry.min, entry.max)


def _real(entry, name: str, value: Any) -> float:
    from ..vdot_core.vcu.checks import real

    return real(name, value, entry.min, entry.max)


def _switch(entry, name: str, value: Any) -> bool:
    from ..vdot_core.vcu.checks import flag

    return flag(name, value)


def _text(entry, name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _refusal(name, value, "text; connect a node that gives STRING")
    if len(value) > MAX_CHARACTERS:
        raise ValueError(
            f"{name} has {len(value)} characters, expected at most {MAX_CHARACTERS}; give a shorter text"
        )
    return value


def _tensor(dims: tuple[int, ...], expected: str) -> Callable:
    def check(entry, name: str, value: Any):
        import torch

        if not isinstance(value, torch.Tensor) or value.ndim not in dims or value.is_complex():
            raise _refusal(name, value, expected)
        if not value.numel():
            raise _refusal(name, value, f"at least one of {expected}")
        return value

    return check


def _images(entry, name: str, value: Any):
    """[F, H, W, C], C = 1, 3 or 4."""
    value = _tensor((4,), IMAGES)(entry, name, value)
    if value.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"{name} has {counted(value.shape[-1], 'channel')}, expected red, green and blue last (or gray, "
            "or with alpha); look at the node that made it"
        )
    return value


def _mask(entry, name: str, value: Any):
    """[F, H, W]: other packs give [H, W], or a channel of one before or after the pixels."""
    value = _tensor((2, 3, 4), MASKS)(entry, name, value)
    if value.ndim == 2:
        return value[None]
    if value.ndim == 3:
        return value
    channel = next((dim for dim in (3, 1) if value.shape[dim] == 1), None)
    if channel is None:
        raise _refusal(name, value, MASKS)
    return value.squeeze(channel)


def _latent(entry, name: str, value: Any) -> dict:
    import torch

    samples = value.get("samples") if isinstance(value, dict) else None
    if not isinstance(samples, torch.Tensor):
        raise _refusal(name, value if samples is None else samples, "a video's latent; connect VDOT Encode")
    mask = value.get("noise_mask")
    if mask is not None and not (isinstance(mask, torch.Tensor) and 2 <= mask.ndim <= 5 and mask.numel()):
        raise _refusal(f"{name}'s noise mask", mask, "a mask; connect a MASK to Set Latent Noise Mask")
    return value


def _conditioning(entry, name: str, value: Any) -> list:
    import torch

    pairs = value if isinstance(value, (list, tuple)) else [None]
    for pair in pairs:
        fits = isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[1], dict)
        if not fits or not isinstance(pair[0], torch.Tensor) or pair[0].ndim != 3:
            raise _refusal(name, value, "the conditioning of a text; connect CLIP Text Encode")
    return value


def _where(fits: Callable[[Any], bool], expected: str) -> Callable:
    def check(entry, name: str, value: Any):
        if not fits(value):
            raise _refusal(name, value, expected)
        return value

    return check


def _made(kind: str, expected: str) -> Callable:
    """Of a class of vdot_core.vcu."""

    def fits(value: Any) -> bool:
        from ..vdot_core import vcu

        return isinstance(value, getattr(vcu, kind))

    return _where(fits, expected)


def _is_schedule(value: Any) -> bool:
    from ..vdot_core.sampling.long import Change

    return isinstance(value, tuple) and all(isinstance(change, Change) for change in value)


def _sound(entry, name: str, value: Any) -> dict:
    from ..vdot_core.sounds import read_audio

    sound = read_audio(value)
    if sound is None:
        raise _refusal(name, value, "sound; connect a node that gives AUDIO")
    return sound


def _nested(expected: str) -> Callable:
    """Dicts, and lists of them, which are read where they are used."""
    return _where(lambda value: isinstance(value, (dict, list, tuple)), expected)


def _with(attribute: str, expected: str) -> Callable:
    """Of ComfyUI's classes, which other packs replace by look-alikes."""

    def check(entry, name: str, value: Any):
        owner = functools.reduce(lambda part, name: getattr(part, name, None), attribute.split("."), value)
        if owner is None:
            raise _refusal(name, value, expected)
        return value

    return check


CHECKS: dict[str, Callable] = {
    "COMBO": _choice,
    "INT": _whole,
    "FLOAT": _real,
    "BOOLEAN": _switch,
    "STRING": _text,
    "IMAGE": _images,
    "MASK": _mask,
    "LATENT": _latent,
    "CONDITIONING": _conditioning,
    "MODEL": _with("model_options", "a model; connect VDOT Load Model"),
    "VAE": _with("first_stage_model", "a VAE; connect Load VAE"),
    "OPTICAL_FLOW": _with("model.feature_encoder", "a RAFT; connect Load Optical Flow Model"),
    "BOUNDING_BOX": _nested("boxes; connect a detector, or a node that gives BOUNDING_BOX"),
    "POSE_KEYPOINT": _nested("key points; connect a pose estimator, or a node that gives POSE_KEYPOINT"),
    "VDOT_VCU": _made("VCU", "a task; connect a VDOT task node"),
    "VDOT_CROP": _made("Crop", "where a region was cut out; connect the crop of VDOT Crop"),
    "VDOT_SIZE": _made("VideoSize", "a size; connect the size of VDOT Load"),
    "VIDEO": _with("get_components", "a video; connect Load Video, or a node that gives VIDEO"),
    "VDOT_SCHEDULE": _where(_is_schedule, "changes from a frame on; connect VDOT From Frame"),
    "AUDIO": _sound,
}
"""By ComfyUI's name of the type."""
