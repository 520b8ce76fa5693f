"""Opens one weight file of any format, which its content decides, not its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ..files import open_file, version_of
from ..text import shown
from ..torch_files import PICKLE_MAGIC, ZIP_MAGIC
from .gguf_files import open_gguf
from .gguf_header import GGUF_MAGIC
from .pt_files import open_pt
from .safetensors_files import looks_like_safetensors, open_safetensors
from .tensor_files import TensorFile


def open_tensor_file(path: str | Path) -> TensorFile:
    """Read and check the header of one weight file; the content decides its format, not its name.

    Args:
        path: a `.safetensors`, `.gguf`, `.pt`, `.pth`, `.bin` or `.ckpt` file.
    Returns:
        The file's names, shapes and dtypes.
    Raises:
        ValueError: the file is truncated, corrupt, unsafe, or of a format that is not read.
    """
    path = Path(path)
    version = version_of(path)
    with open_file(path) as file:
        magic = file.read(64)
    if magic.startswith(GGUF_MAGIC):
        return replace(open_gguf(path), version=version)
    if magic.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{shown(path)} is a git-lfs pointer, not the weights; run `git lfs pull` or download the file"
        )
    is_safetensors = looks_like_safetensors(magic)  # asked first: a header's length may spell " <"
    if magic.lstrip()[:1] == b"<" and not is_safetensors:
        raise ValueError(f"{shown(path)} is a web page, not weights; download the file itself")
    is_pickle = magic.startswith((ZIP_MAGIC, PICKLE_MAGIC))
    if is_safetensors or (path.suffix == ".safetensors" and not is_pickle):
        return replace(open_safetensors(path), version=version)
    return replace(open_pt(path), version=version)


def read_tensors(path: str | Path, kind: str = "weights") -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Every tensor of one weight file, memory-mapped where its format allows, and the header's strings.

    Args:
        path: as for `open_tensor_file`.
        kind: what the file should be, for the error.
    Raises:
        ValueError: as for `open_tensor_file`.
    """
    try:
        file = open_tensor_file(path)
        return file.read(), file.metadata
    except ValueError as error:
        raise ValueError(f"{error} (expected {kind})") from error
