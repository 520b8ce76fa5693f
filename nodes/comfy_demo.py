"""The bundled demo as ComfyUI objects: the tiny model, its text encoder and its VAE."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import comfy.latent_formats
import comfy.sd
import comfy.supported_models_base
import comfy.text_encoders.wan
import comfy.utils
import folder_paths
import torch

from ..vdot_core.checkpoints.open_tensors import read_tensors
from ..vdot_core.text import shown
from .comfy_loading import load_model
from .comfy_vae import check_vae

ASSETS = Path(__file__).resolve().parents[1] / "assets"
MODEL_FILE = "vdot_tiny_student.safetensors"
VAE_FILE = "vdot_tiny_vae.safetensors"
TEXT_FILE = "vdot_tiny_text.safetensors"
# Red, green and blue, -1 .. 1, of the tiny VAE's latents: least squares over drawn clips; R^2 0.95 on others.
LATENT_RGB = (
    (0.021, 0.011, -0.035), (0.289, 0.022, -0.078), (-0.010, 0.062, 0.031), (0.033, -0.066, -0.084),
    (-0.166, 0.045, -0.071), (-0.093, -0.022, 0.068), (-0.049, 0.007, -0.153), (-0.068, 0.133, 0.147),
    (0.015, 0.055, -0.062), (0.053, 0.048, -0.014), (-0.012, 0.020, 0.056), (-0.001, -0.018, -0.046),
    (0.017, -0.222, 0.043), (0.008, 0.060, -0.041), (-0.013, 0.033, 0.074), (0.048, -0.015, 0.054),
)  # fmt: skip
LATENT_RGB_BIAS = (0.201, 0.053, -0.001)
MAX_TEXT_LEN = 4096


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
    return (
        load_transformer(ASSETS / MODEL_FILE),
        load_text_encoder(ASSETS / TEXT_FILE),
        load_vae(ASSETS / VAE_FILE),
    )


def load_transformer(path: Path, disable_dynamic=False):
    """The student, with previews in its own colors: Wan's latents have others."""
    # The files are in half precision to be small; in float32 the demo looks the same on every device.
    model = load_model(path, weight_dtype="fp32", disable_dynamic=disable_dynamic)
    latent_format = comfy.latent_formats.Wan21()
    latent_format.latent_rgb_factors = [list(row) for row in LATENT_RGB]
    latent_format.latent_rgb_factors_bias = list(LATENT_RGB_BIAS)
    latent_format.taesd_decoder_name = None  # a small decoder of Wan's own latents
    model.model.latent_format = latent_format
    model.cached_patcher_init = (load_transformer, (path,))
    return model


def load_vae(path: Path):
    """A Wan VAE of any width.

    Raises:
        ValueError: the file is unsafe or damaged, or another VAE.
    """
    # ComfyUI's own reader says of an unsafe file how to run it nevertheless.
    state_dict, metadata = read_tensors(path, "a VAE")
    with built_from(path, "a VAE"):
        vae = comfy.sd.VAE(sd=state_dict, metadata=metadata or None)
        vae.throw_exception_if_invalid()
    check_vae(vae)
    vae.patcher.cached_patcher_init = (_load_vae_patcher, (path,))
    return vae


def load_text_encoder(path: Path):
    """A small UMT5 as ComfyUI's CLIP for Wan.

    Args:
        path: safetensors with the encoder's weights and its sentencepiece model under `spiece_model`;
            `text_len` in the metadata is the number of tokens that prompts are padded to.

    Raises:
        ValueError: the file is unsafe or damaged, or another text encoder.
    """
    state_dict, metadata = read_tensors(path, "a text encoder")
    with built_from(path, "a text encoder"):
        tokenizer_data = {
            "spiece_model": state_dict.pop("spiece_model"),
            "umt5xxl_min_length": _text_len(metadata),
        }
        clip = comfy.sd.CLIP(
            comfy.supported_models_base.ClipTarget(
                comfy.text_encoders.wan.WanT5Tokenizer, comfy.text_encoders.wan.te(dtype_t5=torch.float32)
            ),
            embedding_directory=folder_paths.get_folder_paths("embeddings"),
            tokenizer_data=tokenizer_data,
            parameters=comfy.utils.calculate_parameters(state_dict),
            state_dict=[state_dict],
            model_options={"umt5xxl_model_config": _umt5_config(state_dict)},
        )
    clip.patcher.cached_patcher_init = (_load_text_patcher, (path,))
    return clip


@contextmanager
def built_from(path: Path, kind: str) -> Iterator[None]:
    """Raise ComfyUI's errors in building `kind` from a file's tensors as a sentence."""
    try:
        yield
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ValueError(
            f"{shown(path.name, 80)} cannot be used as {kind} ({shown(error, 120)}); download it again, or "
            "choose another file"
        ) from error


def _text_len(metadata: Mapping[str, str]) -> int:
    text = metadata["text_len"]
    if not (text.isascii() and text.isdecimal() and len(text) < 5 and 0 < int(text) <= MAX_TEXT_LEN):
        raise ValueError(f"text_len is {shown(text, 40)}, expected 1 to {MAX_TEXT_LEN}")
    return int(text)


def _umt5_config(tensors: Mapping[str, torch.Tensor]) -> dict:
    """ComfyUI's settings of the network, whose sizes are those of the tensors, whatever a file says."""
    first = "encoder.block.0.layer.{}"
    num_words, width = tensors["shared.weight"].shape
    num_heads = tensors[f"{first.format(0)}.SelfAttention.relative_attention_bias.weight"].shape[1]
    return {
        "model_type": "umt5",
        "d_model": width,
        "d_kv": tensors[f"{first.format(0)}.SelfAttention.q.weight"].shape[0] // num_heads,
        "d_ff": tensors[f"{first.format(1)}.DenseReluDense.wi_0.weight"].shape[0],
        "num_heads": num_heads,
        "num_layers": len({name.split(".")[2] for name in tensors if name.startswith("encoder.block.")}),
        "vocab_size": num_words,
        "dense_act_fn": "gelu_pytorch_tanh",
        "is_gated_act": True,
    }


def _load_vae_patcher(path, disable_dynamic=False):
    return load_vae(path).patcher


def _load_text_patcher(path, disable_dynamic=False):
    return load_text_encoder(path).patcher
