"""The bundled demo as ComfyUI objects: the tiny model, its text encoder and its VAE."""

import json
from pathlib import Path

import comfy.sd
import comfy.supported_models_base
import comfy.text_encoders.wan
import comfy.utils
import folder_paths
import torch

from .comfy_bridge import load_model
from .comfy_vae import check_vae

ASSETS = Path(__file__).resolve().parents[1] / "assets"
MODEL_FILE = "vdot_tiny_student.safetensors"
VAE_FILE = "vdot_tiny_vae.safetensors"
TEXT_FILE = "vdot_tiny_text.safetensors"


def load_demo():
    """Load the three bundled files.

    Returns:
        (ModelPatcher, CLIP, VAE) of ComfyUI.

    Raises:
        ValueError: a file is missing.
    """
    for name in (MODEL_FILE, VAE_FILE, TEXT_FILE):
        if not (ASSETS / name).is_file():
            raise ValueError(f"the demo's {name} is not in {ASSETS}; install the pack again from its release")
    # The files are in half precision to be small; in float32 the demo looks the same on every device.
    model = load_model(ASSETS / MODEL_FILE, weight_dtype="fp32")
    return model, load_text_encoder(ASSETS / TEXT_FILE), load_vae(ASSETS / VAE_FILE)


def load_vae(path: Path):
    """A Wan VAE of any width."""
    state_dict, metadata = comfy.utils.load_torch_file(str(path), return_metadata=True)
    vae = comfy.sd.VAE(sd=state_dict, metadata=metadata)
    vae.throw_exception_if_invalid()
    check_vae(vae)
    vae.patcher.cached_patcher_init = (_load_vae_patcher, (path,))
    return vae


def load_text_encoder(path: Path):
    """A small UMT5 as ComfyUI's CLIP for Wan.

    Args:
        path: safetensors with the encoder's weights, its sentencepiece model under `spiece_model`, and its
            configuration as JSON in the metadata under `config`; `text_len` there is the number of tokens
            that prompts are padded to.
    """
    state_dict, metadata = comfy.utils.load_torch_file(str(path), return_metadata=True)
    tokenizer_data = {
        "spiece_model": state_dict.pop("spiece_model"),
        "umt5xxl_min_length": int(metadata["text_len"]),
    }
    clip = comfy.sd.CLIP(
        comfy.supported_models_base.ClipTarget(
            comfy.text_encoders.wan.WanT5Tokenizer, comfy.text_encoders.wan.te(dtype_t5=torch.float32)
        ),
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        tokenizer_data=tokenizer_data,
        parameters=comfy.utils.calculate_parameters(state_dict),
        state_dict=[state_dict],
        model_options={"umt5xxl_model_config": json.loads(metadata["config"])},
    )
    clip.patcher.cached_patcher_init = (_load_text_patcher, (path,))
    return clip


def _load_vae_patcher(path, disable_dynamic=False):
    return load_vae(path).patcher


def _load_text_patcher(path, disable_dynamic=False):
    return load_text_encoder(path).patcher
