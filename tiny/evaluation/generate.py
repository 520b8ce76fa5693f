"""Making videos with the tiny model, many at once, with guidance.

Letters: B clips, K contexts, F frames, T latent frames, h w latents, L tokens, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from training.data.umt5 import Tokenizer, embed, load_umt5
from training.data.wan_vae import decode_video, encode_video, load_vae
from training.distributed.world import compile_blocks
from vdot_core import sampling, vcu

from ..text import FILE_NAME as TEXT_FILE
from ..vae_task import FILE_NAME as VAE_FILE
from .config import SamplerConfig

TRANSFORMER_FILE = "vdot_tiny.safetensors"

VAE_BATCH = 4


@dataclass(frozen=True)
class TinyModel:
    """The three parts of a tiny model, in float32, their files, and the decoder."""

    network: nn.Module
    vae: nn.Module
    encoder: nn.Module
    tokenizer: Tokenizer
    files: tuple[Path, ...] = ()
    decode_video: Callable[[nn.Module, Tensor], Tensor] = decode_video

    def compiled(self) -> TinyModel:
        """Compile the network's blocks, in place, and the VAE's decoder: some minutes at their first use."""
        compile_blocks(self.network)
        return replace(self, decode_video=torch.compile(decode_video))

    def to(self, device: str | torch.device) -> TinyModel:
        """Move all parts."""
        for part in (self.network, self.vae, self.encoder):
            part.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """The network's device."""
        return next(self.network.parameters()).device


def model_files(folder: str | Path, transformer: str | Path | None = None) -> tuple[Path, Path, Path]:
    """Transformer, VAE and text encoder of a folder; arguments as for `load_tiny`."""
    folder = Path(folder)
    network = Path(transformer) if transformer else folder / TRANSFORMER_FILE
    return network, folder / VAE_FILE, folder / TEXT_FILE


def load_tiny(folder: str | Path, transformer: str | Path | None = None) -> TinyModel:
    """Read transformer, VAE and text encoder from a folder.

    Args:
        folder: With the three files as the nodes read them.
        transformer: Another transformer than the folder's.
    """
    from vdot_core.checkpoints import load_network

    files = model_files(folder, transformer)
    network = load_network(files[0], dtype=torch.float32).eval().requires_grad_(False)
    text = load_umt5(files[2])
    return TinyModel(network, load_vae(files[1]), text.encoder, text.tokenizer, files)


def _precision(model: TinyModel, bf16: bool) -> torch.autocast:
    return torch.autocast(model.device.type, torch.bfloat16, enabled=bf16)


@torch.no_grad()
def reconstruct(model: TinyModel, videos: Tensor, *, bf16: bool = False) -> Tensor:
    """[B, F, H, W, 3] encoded and decoded: the upper bound of any latents."""
    parts = []
    for video in videos.split(VAE_BATCH):
        with _precision(model, bf16):
            latents = encode_video(model.vae, video.to(model.device))
        parts.append(decode(model, latents, bf16=bf16))
    return torch.cat(parts)


@torch.no_grad()
def decode(model: TinyModel, latents: Tensor, *, bf16: bool = False) -> Tensor:
    """Videos [B, F, H, W, 3] on the CPU of normalized latents [B, 16, T, h, w]."""
    with _precision(model, bf16):
        parts = [model.decode_video(model.vae, part).float().cpu() for part in latents.split(VAE_BATCH)]
    return torch.cat(parts)


class UnitEncoder:
    """Encodes units for the network.

    Args:
        model: The model whose VAE encodes.
        bf16: Encode under bfloat16 autocast.
    """

    def __init__(self, model: TinyModel, *, bf16: bool = False) -> None:
        self.model, self.bf16, self.gray = model, bf16, vcu.GrayCache()

    @torch.no_grad()
    def __call__(self, units: Sequence[vcu.VCU]) -> tuple[Tensor, int]:
        """Contexts [B, 1, 96, T, h, w] of units of one kind, and how many latent frames are references."""

        def vae_encode(video: Tensor) -> Tensor:
            with _precision(self.model, self.bf16):
                return encode_video(self.model.vae, video.to(self.model.device)).float()

        # A float32 convolution over a single clip is ten times slower on a CPU than over two.
        options = {"cache": self.gray, "vae": self.model.vae, "max_batch": 4}
        encoded = [vcu.encode(unit, vae_encode, **options) for unit in units]
        counts = {one.num_reference_latents for one in encoded}
        if len(counts) > 1:
            raise ValueError(f"the units have {sorted(counts)} references; make units of one task together")
        return torch.cat([one.contexts for one in encoded]), counts.pop()


class RowNoise:
    """Normal noise of which each row depends on its own seed alone, not on the batch.

    The first draw is a video's initial noise; each further one is fresh and continues that row's generator,
    as in the sampler node: for one seed both draw the same.

    Args:
        seeds: B seeds, a row each.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, like: Tensor) -> Tensor:
        """Standard normal float32 of the shape and on the device of `like`, [B, ...]."""
        assert len(like) == len(self._generators), f"{len(like)} rows for {len(self._generators)} seeds"
        rows = [torch.randn(like.shape[1:], generator=generator) for generator in self._generators]
        return torch.stack(rows).to(like.device)


def generate(
    model: TinyModel,
    contexts: Tensor,
    num_references: int,
    prompts: Sequence[str],
    sampler: SamplerConfig,
    seeds: Sequence[int],
    *,
    bf16: bool = False,
) -> Tensor:
    """Make a batch of videos: `sample_latents`, without the references, decoded.

    Args:
        num_references: Leading latent frames that are references and not shown.

    Returns:
        [B, F, H, W, 3] float in [0, 1], on the CPU.
    """
    latents = sample_latents(model, contexts, prompts, sampler, seeds, bf16=bf16)
    return decode(model, latents[:, :, num_references:], bf16=bf16)


@torch.no_grad()
def sample_latents(
    model: TinyModel,
    contexts: Tensor,
    prompts: Sequence[str],
    sampler: SamplerConfig,
    seeds: Sequence[int],
    *,
    bf16: bool = False,
) -> Tensor:
    """Sample a batch.

    Args:
        model: The model.
        contexts: [B, 1, 96, T, h, w], from `UnitEncoder`.
        prompts: B texts.
        sampler: Schedule, solver and guidance.
        seeds: B seeds of the noise.
        bf16: Network and VAE compute under bfloat16 autocast.

    Returns:
        Latents [B, 16, T, h, w], references included.
    """
    device = model.device
    text = _embed(model, prompts)
    empty = _embed(model, [""]).expand_as(text)
    noise = RowNoise(seeds)
    start = noise(torch.empty(len(contexts), 16, *contexts.shape[3:], device=device))

    def network(x: Tensor, timestep: Tensor, text: Tensor, contexts: Tensor) -> Tensor:
        with _precision(model, bf16):
            return model.network(x, timestep, text, contexts).float()

    def velocity(x: Tensor, timestep: Tensor) -> Tensor:
        if sampler.guidance == 1:
            return network(x, timestep, text, contexts)
        # One call for both halves: at this size the cost of a call counts.
        pairs = [torch.cat([v, v]) for v in (x, timestep, contexts)]
        both = network(pairs[0], pairs[1], torch.cat([text, empty]), pairs[2])
        return sampling.guided(*both.chunk(2), sampler.guidance)

    schedule = sampling.Schedule.shifted(sampler.steps, sampler.shift, labels=sampler.labels)
    return sampling.sample(velocity, start, schedule, sampler.solver, noise)


def _embed(model: TinyModel, prompts: Sequence[str]) -> Tensor:
    ids, mask = model.tokenizer(prompts)
    return embed(model.encoder, ids.to(model.device), mask.to(model.device))
