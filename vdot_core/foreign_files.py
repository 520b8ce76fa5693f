"""Checks of a foreign model's folder: its files may not lead the library that reads them elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .checkpoints.safetensors_files import open_safetensors
from .files import file_size, read_file
from .foreign_tokenizers import check_tokenizer, is_tokenizer
from .text import MAX_JSON_BYTES, described, parse_json, shown

CONFIG, ADAPTER = "config.json", "adapter_config.json"
MAX_OTHER_BYTES = 100_000_000  # of vocabularies; that of the largest models has 35 MB
MAX_DIGITS = 40  # a tokenizer without a limit has one of 31 digits
MAX_SIDE = 8192  # of the pictures that a processor makes
# Files that the libraries read besides weights.
_READ = ("*.json", "*.jinja", "*.model", "*.txt")
# Other values name a network's code, which the library downloads and runs.
_ATTENTION = ("eager", "sdpa", "native", "default")
_SIZES = ("size", "crop_size", "pad_size")
_ADDRESSES = ("hf-hub:", "hf_hub:", "local-dir:")
# Parameters and buffers as they are built, in parts of what the files hold: some are built twice.
MAX_RATIO, FREE_NUMBERS, FREE_TENSORS = 4, 50_000_000, 10_000


def check_files(folder: Path) -> None:
    """Refuse files that a library would read without bound, or that lead it out of the folder.

    Args:
        folder: A model's, or that of a part of one, such as a tokenizer.

    Raises:
        ValueError: A file is a pipe or a device, or is too large; or it names code, weights or a model that
            are elsewhere, pictures of an absurd size, or a tokenizer that makes texts longer without bound.
    """
    for pattern in _READ:
        for path in sorted(folder.glob(pattern)):
            is_config = path.name.endswith("config.json")
            size, most = file_size(path), MAX_JSON_BYTES if is_config else MAX_OTHER_BYTES
            if size > most:
                raise ValueError(
                    f"{shown(path)} has {size} bytes, expected at most {most}; download it again"
                )
            if is_tokenizer(path.name):
                check_tokenizer(path)
            if path.name == ADAPTER:
                raise ValueError(
                    f"{shown(folder, 100)} holds an adapter of another model ({ADAPTER}); give the folder of "
                    "an entire model, such as the two merged"
                )
            if is_config:
                _check_values(path, _read_json(path))


def _read_json(path: Path) -> Any:
    try:
        return parse_json(read_file(path, MAX_JSON_BYTES), allow_nan=True, max_digits=MAX_DIGITS)
    except ValueError as error:
        raise ValueError(f"{shown(path)} is damaged ({shown(error, 120)}); download it again") from error


def _check_values(path: Path, values: Any, key: str = "") -> None:
    """Refuse values that name what is not in the folder, and absurd sizes of pictures, at any depth."""
    if isinstance(values, list):
        for value in values:
            _check_values(path, value, key)
        return
    is_attention = key.strip("_").startswith(("attn_implementation", "experts_implementation"))
    if isinstance(values, dict):
        for name, value in values.items():
            # With a longest one, the shortest edge may be a number of pixels instead.
            sides = ("height", "width") if "longest_edge" in values else ("height", "width", "shortest_edge")
            inner = key if is_attention or (key in _SIZES and name in sides) else name
            _check_values(path, value, inner)
        return
    if is_attention and values not in (None, *_ATTENTION):
        raise ValueError(
            f"{shown(path)} asks for the attention {described(values)}, code from elsewhere; expected eager "
            "or sdpa: remove that line, or give another folder"
        )
    if isinstance(values, str) and values.startswith(_ADDRESSES):
        raise ValueError(
            f"{shown(path)} names a model elsewhere ({described(values)}); give the folder of an entire model"
        )
    if key == "fast_tokenizer_files" and isinstance(values, str) and not is_tokenizer(values):
        raise ValueError(
            f"{shown(path)} names a tokenizer elsewhere ({described(values)}); give the folder of an entire "
            "model"
        )
    if key == "use_pretrained_backbone" and values:
        raise ValueError(
            f"{shown(path)} asks for a backbone from elsewhere (use_pretrained_backbone); give the folder of "
            "an entire model"
        )
    most = MAX_SIDE if key in _SIZES else MAX_SIDE**2 if key in ("min_pixels", "shortest_edge") else None
    if most is not None and isinstance(values, (int, float)) and values > most:
        raise ValueError(
            f"{shown(path)} asks for pictures of {described(values)} pixels ({shown(key, 20)}), expected at "
            f"most {most}; download it again"
        )


@contextmanager
def bounded_by_files(folder: Path) -> Iterator[None]:
    """Refuse to build a network of many more numbers than the folder's safetensors hold.

    The libraries build what config.json describes before they compare it with the weights, and give random
    values to what is missing.

    Raises:
        ValueError: In the block, where the network outgrows the files.
    """
    from torch.nn.modules.module import (
        register_module_buffer_registration_hook,
        register_module_parameter_registration_hook,
    )

    stored, num_stored = _stored(folder)
    most, most_tensors = MAX_RATIO * stored + FREE_NUMBERS, MAX_RATIO * num_stored + FREE_TENSORS
    count = num_tensors = 0

    def add(module, name, tensor):
        nonlocal count, num_tensors
        if tensor is None:
            return
        count, num_tensors = count + tensor.numel(), num_tensors + 1
        if count > most or num_tensors > most_tensors:
            raise ValueError(
                f"{CONFIG} describes a network of far more than the {stored} numbers in {num_stored} tensors "
                "that its files hold"
            )

    hooks = [
        register_module_parameter_registration_hook(add),
        register_module_buffer_registration_hook(add),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _stored(folder: Path) -> tuple[int, int]:
    """Numbers that the safetensors files hold, of quantized ones as many as they may be, and tensors."""
    files = [open_safetensors(path) for path in folder.rglob("*.safetensors")]
    specs = [spec for file in files for spec in file.specs.values()]
    packed = (torch.uint8, torch.int8, torch.int32)  # two numbers in a byte
    return sum(2 * s.num_bytes if s.dtype in packed else s.num_elements for s in specs), len(specs)
