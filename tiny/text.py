"""The tiny UMT5 text encoder and its sentencepiece vocabulary.

Tokens and outputs are those ComfyUI gives for the same file: pad 0, eos 1, unk 2; one eos at the end; outputs
beyond it are zero. Letters: B batch, L tokens.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEXT_LEN = 64
VOCAB_SIZE = 1000
FILE_NAME = "vdot_tiny_text.safetensors"


def umt5_config(num_layers: int, vocab_size: int) -> dict:
    """The encoder's configuration, in Hugging Face's and ComfyUI's common names."""
    return {
        "model_type": "umt5",
        "d_model": 128,
        "d_kv": 32,
        "d_ff": 256,
        "num_heads": 4,
        "num_layers": num_layers,
        "vocab_size": vocab_size,
        "dense_act_fn": "gelu_pytorch_tanh",
        "feed_forward_proj": "gated-gelu",
        "is_gated_act": True,
        "layer_norm_epsilon": 1e-6,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "dropout_rate": 0.0,
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "tie_word_embeddings": False,
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
    """Train the sentencepiece model; any text can be written in it, by bytes where need be.

    Args:
        num_captions: Clips whose captions are read.
        vocab_size: Number of pieces at most, the 256 bytes among them.

    Returns:
        The model file's bytes.
    """
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_sentences(num_captions),
        model_writer=written,
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
    return written.getvalue()


class Tokenizer:
    """Text -> token ids as ComfyUI's UMT5 tokenizer gives them for the same model."""

    def __init__(self, model: bytes) -> None:
        import sentencepiece

        self.model = model
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model, add_bos=False, add_eos=True)

    def __len__(self) -> int:
        return self.processor.get_piece_size()

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode a batch.

        Args:
            texts: B prompts.

        Returns:
            ids [B, L] int64 padded with 0, and mask [B, L] int64 that is 1 up to and including the eos; L is
            `TEXT_LEN`, or the longest prompt's length where that is more.
        """
        rows = [self.processor.encode(text) for text in texts]
        length = max(TEXT_LEN, *(len(row) for row in rows))
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        return ids, mask


def embed(encoder: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    """Run the encoder: ids and mask [B, L] -> [B, L, 128], zero beyond each eos."""
    # What lies beyond the longest text is masked and would be computed for nothing.
    longest = int(mask.sum(1).max())
    ids, mask, rest = ids[:, :longest], mask[:, :longest], ids.shape[1] - longest
    hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    return F.pad(hidden * mask[..., None].to(hidden.dtype), (0, 0, 0, rest))


def save_text_encoder(encoder: nn.Module, config: dict, tokenizer: Tokenizer, path: str | Path) -> None:
    """Write encoder and vocabulary into one safetensors file, as ComfyUI reads them; replaced whole."""
    from training.engine.files import save_safetensors

    tensors = {
        key: value.half()
        for key, value in encoder.state_dict().items()
        if key != "encoder.embed_tokens.weight"
    }
    tensors["spiece_model"] = torch.frombuffer(bytearray(tokenizer.model), dtype=torch.uint8)
    save_safetensors(tensors, path, {"config": json.dumps(config), "text_len": str(TEXT_LEN)})


def load_text_encoder(path: str | Path) -> tuple[nn.Module, Tokenizer, dict]:
    """Read a file written by `save_text_encoder`: encoder, tokenizer and configuration."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata() or {}
        if "config" not in metadata:
            raise ValueError(f"{path} has no 'config' in its metadata; give a file of save_text_encoder")
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    config = json.loads(metadata["config"])
    tokenizer = Tokenizer(tensors.pop("spiece_model").numpy().tobytes())
    encoder = build_encoder(config)
    tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"]
    encoder.load_state_dict({key: value.float() for key, value in tensors.items()})
    return encoder.eval().requires_grad_(False), tokenizer, config
