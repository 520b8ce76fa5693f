"""Aesthetic score: a linear head over CLIP's picture embeddings, such as LAION's.

Letters: F frames, H W pixels, D width of an embedding.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vdot_core.checkpoints import read_tensors
from vdot_core.foreign import load_transformers, loading, missing_model
from vdot_core.text import shown
from vdot_core.torch_files import load_torch_file

from .clip_files import to_bytes
from .config import QualityConfig
from .stage import StopError

NUM_FRAMES = 4


def missing(config: QualityConfig) -> str | None:
    """Why the configured score cannot be computed here; None where it can, or where it is not asked for."""
    if config.aesthetic_model is None:
        return None
    model = config.aesthetic_model
    if reason := missing_model("quality.aesthetic_model", model, "a CLIP of transformers"):
        return reason
    if not Path(config.aesthetic_head).is_file():
        return f"quality.aesthetic_head: {shown(config.aesthetic_head)} does not exist; give the head's file"
    return None


def aesthetic_score(frames: Tensor, config: QualityConfig) -> float:
    """Mean score of four frames [F, H, W, 3] float in [0, 1] that are spread over a clip; higher is better.

    Raises:
        StopError: Model or head cannot be loaded, or do not fit each other.
    """
    processor, network, head = _load(config.aesthetic_model, config.aesthetic_head)
    numbers = np.unique(np.linspace(0, len(frames) - 1, NUM_FRAMES).round().astype(int))
    values = _embeddings(processor, network, [to_bytes(frames[number]) for number in numbers])
    values = values / values.norm(dim=-1, keepdim=True)
    for weight, bias in head:
        values = torch.nn.functional.linear(values, weight, bias)
    return float(values.mean())


def _embeddings(processor, network, pictures: Sequence[np.ndarray]) -> Tensor:
    """CLIP's embeddings [F, D] of pictures [H, W, 3] uint8."""
    inputs = processor(images=pictures, return_tensors="pt")
    with torch.inference_mode():
        embeddings = network.get_image_features(**inputs.to(network.device))
    # A tensor, of transformers 5 an object that holds it.
    return getattr(embeddings, "pooler_output", embeddings).float().cpu()


@lru_cache(maxsize=1)
def _load(folder: str, file: str):
    """Processor, network and the head's layers, read at the first use."""
    from transformers import AutoImageProcessor, CLIPModel

    processor, network = load_transformers(folder, "a CLIP", CLIPModel, AutoImageProcessor, StopError)
    with loading("transformers", folder, "a CLIP", StopError):
        _embeddings(processor, network, [np.full((48, 64, 3), 128, np.uint8)])
    try:
        head = _layers(Path(file), network.config.projection_dim)
    except ValueError as error:
        raise StopError(f"quality.aesthetic_head: {shown(error, 300)}") from error
    return processor, network, head


def _layers(path: Path, width: int) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of the head's layers in order; LAION's has no activations between them."""
    content = read_tensors(path, "head")[0] if path.suffix == ".safetensors" else load_torch_file(path)
    content = content if isinstance(content, dict) else {}
    tensors = {str(name): value.float() for name, value in content.items() if isinstance(value, Tensor)}
    names = [name for name in tensors if name.endswith("weight")]
    names.sort(key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    layers = [(tensors[name], tensors.get(f"{name[:-6]}bias")) for name in names]
    for weight, bias in layers:
        if weight.ndim != 2 or weight.shape[1] != width or bias is None or bias.shape != weight.shape[:1]:
            break
        width = weight.shape[0]
    else:
        if layers and width == 1:
            if not all(part.isfinite().all() for layer in layers for part in layer):
                raise ValueError(f"{shown(path.name, 80)} holds numbers that are not finite; get it again")
            return layers
    raise ValueError(f"{shown(path.name, 80)} holds no layers from CLIP's embedding to one number")
