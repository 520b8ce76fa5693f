"""Loads model, text encoder and VAE that fit each other; refuses others by the headers of their files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import comfy.sd
import folder_paths

from ..vdot_core.checkpoints import CheckpointInfo, inspect
from ..vdot_core.checkpoints.open_tensors import open_tensor_file
from ..vdot_core.signals.conventions import KEY, control_conventions
from ..vdot_core.text import shown
from ..vdot_core.vcu import SIZES, VideoSize
from .comfy_demo import (
    ASSETS,
    MODEL_FILE,
    TEXT_FILE,
    VAE_FILE,
    built_from,
    load_text_encoder,
    load_transformer,
    load_vae,
)
from .comfy_files import MODEL_FOLDER, TEXT_FOLDER, VAE_FOLDER
from .comfy_loading import describe_model, load_model
from .known_files import DEMO, find_choice

DEMO_SIZE = VideoSize("demo", 64, 64, most_frames=17)
UMT5_WIDTH, UMT5_WORDS = 4096, 256384
PICK_ENCODER = "choose umt5_xxl (fp8_e4m3fn_scaled or fp16) in the menu text_encoder"


@dataclass(frozen=True)
class Loaded:
    """Outputs of VDOT Load, and the lines that it shows."""

    model: Any
    clip: Any
    vae: Any
    size: VideoSize
    lines: tuple[str, ...]


def load_all(model: str, text_encoder: str, vae: str, size_class: str, weight_dtype: str) -> Loaded:
    """Load three choices of VDOT Load.

    Raises:
        ValueError: a file is missing, or the three do not fit each other; says what to pick instead.
    """
    model_path, text_path, vae_path = (
        find_choice(folder, choice)
        for folder, choice in ((MODEL_FOLDER, model), (TEXT_FOLDER, text_encoder), (VAE_FOLDER, vae))
    )
    info = _checked_model(model_path or ASSETS / MODEL_FILE)
    width = info.config.text_dim
    _check_encoder(text_path, width, model)
    _check_vae_choice(model_path, vae_path, width)
    transformer = (
        load_transformer(ASSETS / MODEL_FILE)
        if model_path is None
        else load_model(model_path, weight_dtype=weight_dtype)
    )
    clip = _load_encoder(text_path or ASSETS / TEXT_FILE)
    size = SIZES.get(size_class) or (SIZES["480p"] if width == UMT5_WIDTH else DEMO_SIZE)
    size = replace(size, gray=_gray_of(info, width))
    lines = f"{shown(model)}: {describe_model(transformer)}", f"size {size}"
    return Loaded(transformer, clip, load_vae(vae_path or ASSETS / VAE_FILE), size, lines)


def _checked_model(path: Path) -> CheckpointInfo:
    """The description of a network with VACE blocks."""
    info = inspect(path)
    if info.problem:
        raise ValueError(info.problem)
    if not info.config.vace_layers:
        raise ValueError(
            f"{shown(path.name)} is a text-to-video model without VACE blocks: it follows no clip, mask or "
            "reference; choose a VDOT or VACE model, or join it with a VACE module in VDOT Load Model"
        )
    return info


def _gray_of(info: CheckpointInfo, width: int) -> str:
    """Weights of the model's gray controls; exports of this project say how theirs were drawn."""
    ours = KEY in info.metadata or width != UMT5_WIDTH
    return "bt601" if ours and control_conventions(info.metadata) == 1 else "vace"


def _check_encoder(path: Path | None, width: int, model: str) -> None:
    """Refuse a text encoder whose output the model does not read."""
    is_small = width != UMT5_WIDTH
    if path is None and is_small:
        return
    if path is None:
        raise ValueError(f"{shown(model)} does not read the demo's text encoder; {PICK_ENCODER}")
    shape = _embedding_shape(path)
    if is_small and shape[-1] != width:
        raise ValueError(
            f"the demo and models of its size read only the demo's text encoder, not {shown(path.name)}; "
            f"choose {DEMO} in the menu text_encoder, or a model from models/diffusion_models"
        )
    if not is_small and shape != (UMT5_WORDS, UMT5_WIDTH):
        raise ValueError(
            f"{shown(path.name)} is no UMT5-XXL in the names that ComfyUI reads, and Wan models read no "
            f"other text encoder; {PICK_ENCODER}"
        )


def _embedding_shape(path: Path) -> tuple[int, ...]:
    """(words, width) of a text encoder's table of words; () for other files."""
    spec = open_tensor_file(path).specs.get("shared.weight")
    return () if spec is None else tuple(spec.shape)


def _check_vae_choice(model_path: Path | None, vae_path: Path | None, width: int) -> None:
    """Refuse a VAE whose latents are other ones than the model's, although of the same shape."""
    if model_path is None and vae_path is not None:
        raise ValueError(
            f"the demo model was made with the demo's VAE, not with {shown(vae_path.name)}; choose {DEMO} in "
            "the menu vae, or a model from models/diffusion_models"
        )
    if vae_path is None and width == UMT5_WIDTH:
        raise ValueError(
            "Wan models need the VAE of Wan 2.1, the demo's has other latents; choose wan_2.1_vae in the "
            "menu vae"
        )


def _load_encoder(path: Path) -> Any:
    """ComfyUI's CLIP: UMT5-XXL, or a small one of this project."""
    if "text_len" in open_tensor_file(path).metadata:
        return load_text_encoder(path)
    with built_from(path, "a text encoder"):
        return comfy.sd.load_clip(
            ckpt_paths=[str(path)],
            embedding_directory=folder_paths.get_folder_paths("embeddings"),
            clip_type=comfy.sd.CLIPType.WAN,
        )
