"""The frozen VAE and text encoder of a run, each from one native file or from a folder.

Letters: B batch, F pixel frames, T latent frames, H W pixels, h w latents, L tokens, D text width.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from vdot_core.foreign import load_weights, loading
from vdot_core.text import listed, shown

from ..engine.hashes import tree_hash
from .umt5 import TEXT_LEN, embed, load_umt5
from .wan_vae import decode_video, denormalize, encode_video, load_vae, normalize

# From this width on, encoding a clip at once needs too much memory: diffusers' own passes work in chunks.
CHUNKED_FROM_DIM = 48


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """'auto', 'cpu' or 'cuda' -> the device of this process; ValueError where there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    elif name == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device is cuda, and torch finds no GPU here; set auto or cpu, or look at nvidia-smi"
        )
    return (
        torch.device("cuda", local_rank % max(1, torch.cuda.device_count()))
        if name == "cuda"
        else torch.device(name)
    )


def _subfolder(path: Path, name: str) -> Path:
    """A pipeline's folder holds each model in a subfolder."""
    return path / name if (path / name / "config.json").is_file() else path


def _tokenizer_folder(path: Path) -> Path:
    """Folder of a text encoder's tokenizer: the same, or "tokenizer" below or next to it."""
    folder = _subfolder(path, "text_encoder")
    places = (folder, path / "tokenizer", folder.parent / "tokenizer")
    for place in places:
        if any(place.glob("*token*")) or any(place.glob("spiece*")):
            return place
    raise ValueError(f"no tokenizer in {listed(places)}; put the UMT5 tokenizer's files there")


def vae_digest(path: str | Path) -> str:
    """Identifies a VAE, by the file or the part of a pipeline's folder that `VideoEncoder` reads."""
    return tree_hash(_subfolder(Path(path), "vae"))


def text_encoder_digest(path: str | Path) -> str:
    """The same for what `TextEncoder` reads: the encoder, and its tokenizer if that is in another folder."""
    path = Path(path)
    if not path.is_dir():
        return tree_hash(path)
    return tree_hash(*dict.fromkeys((_subfolder(path, "text_encoder"), _tokenizer_folder(path))))


class VideoEncoder:
    """The callable that `vdot_core.vcu.encode` expects: [B, F, H, W, 3] in [0, 1] -> normalized latents.

    `decode` is its inverse. Wide VAEs take a clip in chunks of frames both ways.

    Args:
        path: A safetensors file under Wan's key names, or a folder of diffusers' AutoencoderKLWan.
        device: Device to run on.
        dtype: Number format that it computes in; latents are float32.

    Raises:
        ValueError: There is no Wan 2.1 VAE at `path`.
    """

    def __init__(self, path: str | Path, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        path = Path(path)
        if not path.exists():
            raise ValueError(
                f"the VAE {shown(path)} does not exist; give a safetensors file or a diffusers folder"
            )
        self.vae = load_vae(_subfolder(path, "vae"), dtype).to(device)
        self.device, self.dtype = device, dtype
        self.chunked = self.vae.config.base_dim >= CHUNKED_FROM_DIM

    @torch.no_grad()
    def __call__(self, video: Tensor) -> Tensor:
        """Encode a clip: [B, F, H, W, 3] in [0, 1] -> [B, 16, T, h, w] float32, on the CPU."""
        video = video.to(self.device, self.dtype)
        if not self.chunked:
            return encode_video(self.vae, video).cpu()
        pixels = rearrange(video, "b f h w c -> b c f h w") * 2 - 1
        return normalize(self.vae.encode(pixels).latent_dist.mode().float()).cpu()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode clips, one after the other.

        Args:
            latents: [B, 16, T, h, w] normalized.

        Returns:
            [B, F, H, W, 3] float32 in [0, 1], on the CPU.
        """
        return torch.cat([self._decode_one(one) for one in latents.split(1)])

    def _decode_one(self, latents: Tensor) -> Tensor:
        latents = latents.to(self.device).float()
        if not self.chunked:
            return decode_video(self.vae, latents.to(self.dtype)).float().cpu()
        video = (self.vae.decode(denormalize(latents).to(self.dtype)).sample.float() + 1) / 2
        return rearrange(video.clamp(0, 1), "b c f h w -> b f h w c").cpu()


class TextEncoder:
    """Prompts -> embeddings cut after their last token.

    Args:
        path: ComfyUI's single UMT5 file, or a folder with a UMT5 encoder (and its tokenizer in it, or in
            "tokenizer" next to or below it).
        device, dtype: Of the computation.
        text_len: Longest prompt in tokens; None = as the file says, or 512. `num_cut` counts longer ones.

    Raises:
        ValueError: There is no UMT5 encoder, or no tokenizer, at `path`.
    """

    def __init__(
        self,
        path: str | Path,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        text_len: int | None = None,
    ) -> None:
        path = Path(path)
        if not path.exists():
            raise ValueError(
                f"the text encoder {shown(path)} does not exist; give a safetensors file or a folder"
            )
        encoder, self._ids, own_len = _load_folder(path, dtype) if path.is_dir() else _load_file(path, dtype)
        self.encoder = encoder.eval().requires_grad_(False).to(device=device, dtype=dtype)
        self.device, self.text_len = device, text_len or own_len
        self.num_cut = 0

    def _tokens(self, text: str) -> list[int]:
        """Ids of one prompt with its end token, at most `text_len`."""
        ids = self._ids(" ".join(html.unescape(text).split()))
        if len(ids) <= self.text_len:
            return ids
        self.num_cut += 1
        return [*ids[: self.text_len - 1], ids[-1]]

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, ...]:
        """Encode prompts one by one, so that none depends on its neighbors.

        Args:
            texts: Prompts; entities are resolved and white space is collapsed, as Wan does.

        Returns:
            [L, D] for each, on the CPU, in the encoder's number format.
        """
        embedded = []
        for text in texts:
            ids = torch.tensor([self._tokens(text)], device=self.device)
            embedded.append(embed(self.encoder, ids, torch.ones_like(ids))[0].cpu())
        return tuple(embedded)


def _load_file(path: Path, dtype: torch.dtype) -> tuple[nn.Module, Callable[[str], list[int]], int]:
    file = load_umt5(path, dtype)
    return file.encoder, file.tokenizer.ids, file.text_len


def _load_folder(path: Path, dtype: torch.dtype) -> tuple[nn.Module, Callable[[str], list[int]], int]:
    from transformers import AutoTokenizer, UMT5EncoderModel

    # Code of a folder is never run.
    no_code = {"trust_remote_code": False}
    folder = _tokenizer_folder(path)
    with loading("transformers", folder, "the tokenizer of UMT5"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, **no_code)
        tokenizer("a")
    folder = _subfolder(path, "text_encoder")
    encoder = load_weights(
        "transformers", UMT5EncoderModel, folder, "a UMT5 text encoder", torch_dtype=dtype, **no_code
    )
    return encoder, lambda text: tokenizer(text)["input_ids"], TEXT_LEN
