"""The frozen VAE and text encoder of a run: the tiny ones from one file, real ones from folders.

Letters: B batch, F pixel frames, T latent frames, H W pixels, h w latents, L tokens, D text width.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tiny.text import TEXT_LEN, embed, load_text_encoder
from tiny.vae import LATENTS_MEAN, LATENTS_STD, decode_video, encode_video, load_vae

from .cache import digest

FOLDER_TEXT_LEN = 512
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# From this width on a whole clip at once needs too much memory: diffusers' own passes take it in chunks.
CHUNKED_FROM_DIM = 48


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """'auto', 'cpu' or 'cuda' -> the device of this process."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return (
        torch.device("cuda", local_rank % max(1, torch.cuda.device_count()))
        if name == "cuda"
        else torch.device(name)
    )


def _subfolder(path: Path, name: str) -> Path:
    """A pipeline's folder holds each model in a folder of its own."""
    return path / name if (path / name / "config.json").is_file() else path


def _tokenizer_folder(path: Path) -> Path:
    """Where the tokenizer of a text encoder's folder lies: in it, or below or beside it."""
    folder = _subfolder(path, "text_encoder")
    places = (folder, path / "tokenizer", folder.parent / "tokenizer")
    for place in places:
        if any(place.glob("*token*")) or any(place.glob("spiece*")):
            return place
    raise ValueError(f"no tokenizer in {', '.join(map(str, places))}; put the UMT5 tokenizer's files there")


def vae_digest(path: str | Path) -> str:
    """Identifies a VAE, by the file or the part of a pipeline's folder that `VideoEncoder` reads."""
    return digest(_subfolder(Path(path), "vae"))


def text_encoder_digest(path: str | Path) -> str:
    """The same for what `TextEncoder` reads: the encoder, and its tokenizer where that lies elsewhere."""
    path = Path(path)
    if not path.is_dir():
        return digest(path)
    return digest(*dict.fromkeys((_subfolder(path, "text_encoder"), _tokenizer_folder(path))))


class VideoEncoder:
    """The callable `vdot_core.vcu.encode` expects: [B, F, H, W, 3] in [0, 1] -> [B, 16, T, h, w] normalised.

    `decode` is its inverse. Wide VAEs take a clip in chunks of frames both ways.

    Args:
        path: A safetensors file under Wan's key names, or a folder of diffusers' AutoencoderKLWan.
        device: Where it runs.
        dtype: What it computes in; latents are float32.
    """

    def __init__(self, path: str | Path, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        path = Path(path)
        if path.is_dir():
            from diffusers import AutoencoderKLWan

            self.vae: nn.Module = AutoencoderKLWan.from_pretrained(_subfolder(path, "vae"), torch_dtype=dtype)
        elif path.is_file():
            self.vae = load_vae(path)
        else:
            raise ValueError(f"the VAE {path} does not exist; give a safetensors file or a diffusers folder")
        self.vae.eval().requires_grad_(False).to(device)
        if dtype != torch.float32 and not path.is_dir():
            self.vae.to(dtype)
        self.device, self.dtype = device, dtype
        self.chunked = self.vae.config.base_dim >= CHUNKED_FROM_DIM

    @torch.no_grad()
    def __call__(self, video: Tensor) -> Tensor:
        """Encode a clip; the result stays on the CPU."""
        video = video.to(self.device, self.dtype)
        if not self.chunked:
            return encode_video(self.vae, video).cpu()
        raw = self.vae.encode(video.movedim(-1, 1) * 2 - 1).latent_dist.mode().float()
        mean, std = _statistics(raw)
        return ((raw - mean) / std).cpu()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode clips, one after the other.

        Args:
            latents: [B, 16, T, h, w] normalised.

        Returns:
            [B, F, H, W, 3] float32 in [0, 1], on the CPU.
        """
        return torch.cat([self._decode_one(one) for one in latents.split(1)])

    def _decode_one(self, latents: Tensor) -> Tensor:
        latents = latents.to(self.device).float()
        if not self.chunked:
            return decode_video(self.vae, latents.to(self.dtype)).float().cpu()
        mean, std = _statistics(latents)
        video = self.vae.decode((latents * std + mean).to(self.dtype)).sample
        return ((video.float() + 1) / 2).clamp(0, 1).movedim(1, -1).cpu()


def _statistics(latents: Tensor) -> tuple[Tensor, ...]:
    """Mean and standard deviation of Wan's raw latents, per channel."""
    return tuple(latents.new_tensor(values).view(1, -1, 1, 1, 1) for values in (LATENTS_MEAN, LATENTS_STD))


class TextEncoder:
    """Prompts -> embeddings cut after their last token.

    Args:
        path: The tiny encoder's file, or a folder with a UMT5 encoder (and its tokenizer in it, or in
            "tokenizer" beside or below it).
        device, dtype: Where and in what it computes.
        text_len: Longest prompt in tokens; None = 64 for the tiny encoder, 512 for a folder.
    """

    def __init__(
        self,
        path: str | Path,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        text_len: int | None = None,
    ) -> None:
        path = Path(path)
        self.device = device
        if path.is_dir():
            self._load_folder(path, dtype)
        elif path.is_file():
            self.encoder, self._tiny, _ = load_text_encoder(path)
            self._tokenizer = None
        else:
            raise ValueError(f"the text encoder {path} does not exist; give a safetensors file or a folder")
        self.encoder.eval().requires_grad_(False).to(device=device, dtype=dtype)
        self.text_len = text_len or (TEXT_LEN if self._tokenizer is None else FOLDER_TEXT_LEN)

    def _load_folder(self, path: Path, dtype: torch.dtype) -> None:
        from transformers import AutoTokenizer, UMT5EncoderModel

        folder, tokenizer = _subfolder(path, "text_encoder"), _tokenizer_folder(path)
        self.encoder: nn.Module = UMT5EncoderModel.from_pretrained(folder, torch_dtype=dtype)
        self._tokenizer = AutoTokenizer.from_pretrained(tokenizer)

    def _tokens(self, text: str) -> list[int]:
        """Ids of one prompt with its end token, at most `text_len`."""
        if self._tokenizer is not None:
            return self._tokenizer(text, truncation=True, max_length=self.text_len)["input_ids"]
        ids, mask = self._tiny([text])
        row = ids[0, : int(mask.sum())].tolist()
        return row if len(row) <= self.text_len else [*row[: self.text_len - 1], row[-1]]

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, ...]:
        """Encode prompts one by one, so that none depends on its neighbours.

        Args:
            texts: Prompts; entities are resolved and white space is collapsed, as Wan does.

        Returns:
            [L, D] for each, on the CPU, in the encoder's number format.
        """
        embedded = []
        for text in texts:
            ids = torch.tensor([self._tokens(" ".join(html.unescape(text).split()))], device=self.device)
            embedded.append(embed(self.encoder, ids, torch.ones_like(ids))[0].cpu())
        return tuple(embedded)
