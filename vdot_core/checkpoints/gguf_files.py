"""GGUF files: headers checked here, tensors mapped as they are stored and decoded one at a time."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..files import read_at
from .ggml_types import GGML_BY_NAME
from .gguf_header import GgufHeader, GgufTensor, read_gguf_header
from .safetensors_files import map_file, view_at
from .tensor_files import TensorFile, TensorSpec

METADATA = "vdot."  # our metadata's keys begin with it


def open_gguf(path: Path) -> TensorFile:
    """Read the header alone; ValueError where it and the file's size do not fit together.

    Tensors in blocks (Q8_0, Q4_K, ..) are read as uint8, the file's bytes; `TensorSpec.ggml_type` names their
    format, and `ggml_types.dequantize` decodes them.
    """
    header = read_gguf_header(path)
    specs = {name: _spec_of(tensor) for name, tensor in header.tensors.items()}
    return TensorFile(
        path,
        specs,
        partial(_map_tensors, path, header),
        metadata=_metadata(header.fields),
        load=partial(_load_tensor, path, header.tensors),
    )


def _spec_of(tensor: GgufTensor) -> TensorSpec:
    dtype = GGML_BY_NAME[tensor.ggml_type].dtype
    if dtype is not None:
        return TensorSpec(tensor.shape, dtype)
    return TensorSpec(tensor.shape, torch.float32, tensor.ggml_type)


def _metadata(fields: dict[str, Any]) -> dict[str, str]:
    """Our own strings under their own keys, and what others say under theirs; ours go first."""
    named = {key: str(value) for key, value in fields.items() if key != METADATA}
    own = {key.removeprefix(METADATA): text for key, text in named.items() if key.startswith(METADATA)}
    return {**{key: text for key, text in named.items() if not key.startswith(METADATA)}, **own}


def _map_tensors(path: Path, header: GgufHeader, *, writable: bool = True) -> dict[str, torch.Tensor]:
    """Every tensor as a memory map of the file; nothing is read yet."""
    content = map_file(path, header.num_bytes, writable=writable)
    content = view_at(content, 0, torch.uint8, (header.num_bytes,))
    return {
        name: _view(content[tensor.offset : tensor.offset + tensor.num_bytes], tensor)
        for name, tensor in header.tensors.items()
    }


def _load_tensor(path: Path, tensors: dict[str, GgufTensor], name: str) -> torch.Tensor:
    """One tensor, its bytes read into memory."""
    tensor = tensors[name]
    return _view(torch.frombuffer(read_at(path, tensor.offset, tensor.num_bytes), dtype=torch.uint8), tensor)


def _view(packed: torch.Tensor, tensor: GgufTensor) -> torch.Tensor:
    """The bytes as numbers where the format is a dtype."""
    dtype = GGML_BY_NAME[tensor.ggml_type].dtype
    return packed if dtype is None else packed.view(dtype).view(tensor.shape)
