"""UMT5 text encoders: reading ComfyUI's single file or a Hugging Face folder, tokens and embeddings.

Letters: B batch, L tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdot_core.checkpoints import read_tensors
from vdot_core.text import described, parse_json, shown

from .weights import assign_weights

# Tokens that Wan's networks read.
TEXT_LEN = 512
MAX_TEXT_LEN = 2**14
# Settings that a file's weights do not show; UMT5-XXL's values.
DEFAULTS = {
    "model_type": "umt5",
    "dense_act_fn": "gelu_pytorch_tanh",
    "feed_forward_proj": "gated-gelu",
    "is_gated_act": True,
    "layer_norm_epsilon": 1e-6,
    "relative_attention_max_distance": 128,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.0,
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "tie_word_embeddings": False,
}
PREFIX = "encoder.block."


class Tokenizer:
    """A sentencepiece model: text -> token ids as ComfyUI gives them for the same model.

    pad is 0, eos 1, unk 2; one eos ends every text.

    Args:
        model: The sentencepiece model file's bytes.
        text_len: Length to which `__call__` pads at least.
    """

    def __init__(self, model: bytes, text_len: int = TEXT_LEN) -> None:
        import sentencepiece

        self.model, self.text_len = model, text_len
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model, add_bos=False, add_eos=True)

    def __len__(self) -> int:
        return self.processor.get_piece_size()

    def ids(self, text: str) -> list[int]:
        """Token ids of one text, its eos last."""
        return self.processor.encode(text)

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokenize a batch.

        Args:
            texts: B prompts.

        Returns:
            ids [B, L] int64 padded with 0, and mask [B, L] int64 that is 1 up to and including the eos; L is
            `text_len`, or the longest prompt's length where that is more.
        """
        rows = [self.ids(text) for text in texts]
        length = max(self.text_len, *(len(row) for row in rows))
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        return ids, mask


@dataclass(frozen=True, eq=False)
class Umt5File:
    """A text encoder read from one file.

    Attributes:
        encoder: A `transformers.UMT5EncoderModel`, frozen, on the CPU.
        tokenizer: Its vocabulary.
        config: Its configuration, in Hugging Face's names.
        text_len: Tokens that the network it belongs to reads.
    """

    encoder: nn.Module
    tokenizer: Tokenizer
    config: dict[str, Any]
    text_len: int


def load_umt5(path: str | Path, dtype: torch.dtype = torch.float32) -> Umt5File:
    """Load a single file in ComfyUI's layout, such as umt5_xxl_fp16.safetensors.

    Args:
        path: A safetensors file with Hugging Face's key names and the sentencepiece model as `spiece_model`.
            Sizes are read from the weights; what those do not say, and `text_len`, from its metadata or as
            UMT5-XXL has it. Scaled fp8 weights are expanded.
        dtype: Number format of the weights.

    Raises:
        ValueError: The file cannot be read, or is another model or layout.
    """
    from transformers import UMT5Config, UMT5EncoderModel

    tensors, metadata = read_tensors(path, "a UMT5 encoder as a safetensors file")
    if "shared.weight" not in tensors or f"{PREFIX}0.layer.0.SelfAttention.q.weight" not in tensors:
        raise ValueError(
            f"{shown(path)} is not a UMT5 file: it has no shared.weight and {PREFIX}0; give ComfyUI's "
            "umt5_xxl_*.safetensors, or a Hugging Face folder"
        )
    if "spiece_model" not in tensors:
        raise ValueError(
            f"{shown(path)} has no spiece_model, its tokenizer; give ComfyUI's umt5_xxl_*.safetensors, or a "
            "Hugging Face folder"
        )
    model = tensors.pop("spiece_model").reshape(-1).view(torch.uint8).numpy().tobytes()
    tensors = _expanded(tensors, path)
    sizes = _sizes(tensors, path)
    text_len, settings = _settings(metadata, path)
    config = {**DEFAULTS, **settings, **sizes}
    try:
        tokenizer = Tokenizer(model, text_len)
        with torch.device("meta"):
            encoder = UMT5EncoderModel(UMT5Config(**config))
    except Exception as error:  # each library has errors of its own
        raise ValueError(
            f"{shown(path)} is not a UMT5 encoder ({shown(error)}); give ComfyUI's umt5_xxl_*.safetensors"
        ) from error
    weights = {key: value.to(dtype) for key, value in tensors.items()}
    weights["encoder.embed_tokens.weight"] = weights["shared.weight"]
    assign_weights(encoder, weights, path, "a UMT5 encoder")
    encoder.set_input_embeddings(encoder.shared)
    encoder.eval().requires_grad_(False)
    return Umt5File(encoder, tokenizer, config, text_len)


def _settings(metadata: dict[str, str], path: str | Path) -> tuple[int, dict[str, Any]]:
    """`text_len`, and what of `DEFAULTS` the metadata overrides."""
    try:
        text_len = parse_json(metadata.get("text_len", str(TEXT_LEN)))
        config = parse_json(metadata.get("config", "{}"))
        if type(text_len) is not int or not 1 <= text_len <= MAX_TEXT_LEN:
            raise ValueError(f"text_len is {described(text_len, 40)}")
        if not isinstance(config, dict):
            raise ValueError("config is not a JSON object")
        settings = {name: value for name, value in config.items() if name in DEFAULTS}
        for name, value in settings.items():
            if type(value) is not type(DEFAULTS[name]):
                raise ValueError(f"{name} is {described(value, 40)}")
    except ValueError as error:
        raise ValueError(
            f"the metadata of {shown(path)} cannot be read ({error}); expected text_len from 1 to "
            f"{MAX_TEXT_LEN}, and UMT5's settings as config"
        ) from error
    return text_len, settings


def _expanded(tensors: dict[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """The weights themselves where a file holds scaled fp8."""
    from vdot_core.checkpoints.quantized import find_quantization
    from vdot_core.checkpoints.scaled import expand_scaled
    from vdot_core.checkpoints.tensor_files import TensorSpec

    specs = {name: TensorSpec.of(value) for name, value in tensors.items()}
    quantization = find_quantization(specs)
    formats = " and ".join({*quantization.formats, *quantization.encodings} - {"scaled fp8"})
    problem = quantization.problem or (formats and f"it is quantized as {formats}, which is not read")
    if problem:
        raise ValueError(f"{shown(path)}: {problem}; give umt5_xxl_fp16.safetensors")
    weights = {name: value for name, value in tensors.items() if name not in quantization.helpers}
    for name, scale in quantization.scales.items():
        weights[name] = expand_scaled(weights[name], tensors[scale])
    return weights


def _sizes(tensors: dict[str, Tensor], path: str | Path) -> dict[str, int]:
    """The part of the configuration that the shapes show."""
    attention, dense = f"{PREFIX}0.layer.0.SelfAttention.", f"{PREFIX}0.layer.1.DenseReluDense."
    numbers = {name.removeprefix(PREFIX).split(".")[0] for name in tensors if name.startswith(PREFIX)}
    try:
        buckets, heads = tensors[f"{attention}relative_attention_bias.weight"].shape
        return {
            "vocab_size": tensors["shared.weight"].shape[0],
            "d_model": tensors["shared.weight"].shape[1],
            "d_kv": tensors[f"{attention}q.weight"].shape[0] // heads,
            "d_ff": tensors[f"{dense}wi_0.weight"].shape[0],
            "num_heads": heads,
            "num_layers": len(numbers),
            "relative_attention_num_buckets": buckets,
        }
    except KeyError as error:
        raise ValueError(
            f"{shown(path)} is not a UMT5 encoder: it has no {error.args[0]}; give another file"
        ) from error
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise ValueError(
            f"{shown(path)} is not a UMT5 encoder: its tensors have other axes; give another file"
        ) from error


def embed(encoder: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    """Run a text encoder: ids and mask [B, L] -> [B, L, D], zero beyond each eos."""
    # Tokens beyond the longest text are masked: computing them would be wasted.
    longest = int(mask.sum(1).max())
    ids, mask, rest = ids[:, :longest], mask[:, :longest], ids.shape[1] - longest
    hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    return F.pad(hidden * mask[..., None].to(hidden.dtype), (0, 0, 0, rest))
