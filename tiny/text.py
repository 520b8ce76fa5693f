"""The tiny UMT5 text encoder: sizes, first weights, its sentencepiece vocabulary, and its file."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from training.data.umt5 import DEFAULTS, Tokenizer

TEXT_LEN = 64
VOCAB_SIZE = 1000
FILE_NAME = "vdot_tiny_text.safetensors"


def umt5_config(num_layers: int, vocab_size: int) -> dict:
    """The encoder's configuration, in Hugging Face's and ComfyUI's common names."""
    return {
        **DEFAULTS,
        "d_model": 128,
        "d_kv": 32,
        "d_ff": 256,
        "num_heads": 4,
        "num_layers": num_layers,
        "vocab_size": vocab_size,
        "relative_attention_num_buckets": 32,
    }


def build_encoder(config: dict, seed: int = 0) -> nn.Module:
    """A fresh `transformers.UMT5EncoderModel` with weights drawn from the seed."""
    from transformers import UMT5Config, UMT5EncoderModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UMT5EncoderModel(UMT5Config(**config))


def _sentences(num_captions: int) -> Iterator[str]:
    """Text for the vocabulary: captions of drawn clips, then common English words one by one."""
    from .clips.shapes import SPLITS, clip, figure_clip

    for seed in SPLITS["train"][:num_captions]:
        for draw in (clip, figure_clip):
            yield from draw(seed, height=16, width=16, num_frames=1).captions
    words = (Path(__file__).parent / "clips" / "words.txt").read_text().split()
    for word in words:
        yield from (word, f"a {word}", f"the {word}")


def train_vocabulary(num_captions: int = 400, vocab_size: int = VOCAB_SIZE) -> bytes:
    """Train the sentencepiece model; with byte fallback for any text.

    Args:
        num_captions: Clips whose captions are read.
        vocab_size: Number of pieces at most, the 256 bytes among them.

    Returns:
        The model file's bytes.
    """
    import sentencepiece

    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_sentences(num_captions),
        model_writer=buffer,
        model_type="unigram",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc_cf",
        required_chars="abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"-()&%/",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
        num_threads=1,
    )
    return buffer.getvalue()


def save_text_encoder(encoder: nn.Module, config: dict, tokenizer: Tokenizer, path: str | Path) -> None:
    """Write encoder and vocabulary into one safetensors file, as ComfyUI reads them, atomically."""
    from training.engine.files import save_safetensors

    tensors = {
        key: value.half()
        for key, value in encoder.state_dict().items()
        if key != "encoder.embed_tokens.weight"
    }
    tensors["spiece_model"] = torch.frombuffer(bytearray(tokenizer.model), dtype=torch.uint8)
    save_safetensors(tensors, path, {"config": json.dumps(config), "text_len": str(tokenizer.text_len)})
