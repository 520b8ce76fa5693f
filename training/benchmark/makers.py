"""Who makes the videos of a model: our networks, diffusers' pipeline, or nobody.

Letters: B batch, T latent frames, h w latents, L tokens, D width, F frames, H W pixels.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from vdot_core import sampling, vcu
from vdot_core.foreign import load_weights, loading
from vdot_core.foreign_files import check_files
from vdot_core.text import described, shown

from ..data.encoders import TextEncoder, VideoEncoder, pick_device, text_encoder_digest, vae_digest
from ..diffusers_package import import_diffusers
from ..distributed.precision import uses_bf16
from ..engine.hashes import tree_hash
from .config import EvaluateConfig, ModelConfig
from .index import Sample
from .samples import Conditions

logger = logging.getLogger("vdot")


class Maker(Protocol):
    """Makes videos of a model."""

    def __call__(self, sample: Sample, conditions: Conditions, seed: int) -> Tensor:
        """[F, H, W, 3] float in [0, 1] on the CPU, of the size and length of the conditions."""


def make_maker(model: ModelConfig, config: EvaluateConfig, local_rank: int = 0) -> Maker:
    """Load a model; ValueError names a file that is missing or wrong."""
    if model.kind == "diffusers":
        return DiffusersMaker(model, config, local_rank)
    assert model.kind == "vdot", f"nobody makes videos of a {model.kind}"
    return VdotMaker(model, config, local_rank)


def weights_digest(model: ModelConfig) -> str:
    """Identifies the files that a model's videos depend on.

    Raises:
        ValueError: One of them is missing.
    """
    if not Path(model.path).exists():
        raise ValueError(f"models: {model.name}: {shown(model.path)} does not exist; give its file or folder")
    if model.kind == "folder":
        return ""
    parts = [tree_hash(model.path)]
    if model.kind == "vdot":
        parts += [vae_digest(model.vae), text_encoder_digest(model.text_encoder)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:32]


def seed_of(sample: Sample, seed: int) -> int:
    """A row's seed: the same for all models, processes and choices of rows."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{sample.name}".encode()).digest()[:7], "big")


class VdotMaker:
    """A transformer of this repository's formats.

    Args:
        model: Its files and sampler.
        config: Device and number format.
        local_rank: Index of this process's GPU on its machine.
    """

    def __init__(self, model: ModelConfig, config: EvaluateConfig, local_rank: int = 0) -> None:
        from vdot_core.checkpoints import load_network

        self.sampler, self.device = model.sampler, pick_device(config.device, local_rank)
        bf16 = uses_bf16(config.dtype, self.device, "dtype")
        dtype = torch.bfloat16 if bf16 else torch.float32
        self.network = load_network(model.path, device=self.device, dtype=dtype).requires_grad_(False)
        self.vae = VideoEncoder(model.vae, self.device)
        self.text = TextEncoder(model.text_encoder, self.device, dtype)
        self.dtype = dtype

    @torch.no_grad()
    def __call__(self, sample: Sample, conditions: Conditions, seed: int) -> Tensor:
        """Encode the conditions, sample, and decode without the references' latents."""
        # No latents of earlier rows: a batch of another size rounds differently. On a CPU, a convolution over
        # one clip takes longer than over two.
        max_batch = 2 if self.device.type == "cpu" else 1
        encoded = vcu.encode(conditions.unit(), self.vae, vae=self.vae, max_batch=max_batch)
        contexts = encoded.contexts.to(self.device)
        prompt, negative = (self._embed(text) for text in (sample.prompt, self.sampler.negative_prompt))
        guidance = self.sampler.guidance_of(sample.task)

        def network(x: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                return self.network(x, timestep, text, contexts, self.sampler.context_scale).float()

        def velocity(x: Tensor, timestep: Tensor) -> Tensor:
            conditional = network(x, timestep, prompt)
            if guidance == 1:
                return conditional
            return sampling.guided(conditional, network(x, timestep, negative), guidance)

        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(1, 16, *contexts.shape[3:], generator=generator).to(self.device)
        schedule = sampling.Schedule.shifted(
            self.sampler.steps, self.sampler.shift, labels=self.sampler.labels
        )
        latents = sampling.sample(velocity, noise, schedule, self.sampler.solver, generator)
        return self.vae.decode(latents[:, :, encoded.num_reference_latents :])[0]

    def _embed(self, prompt: str) -> Tensor:
        """[1, L, D], zero-padded as in training."""
        num_cut = self.text.num_cut
        tokens = self.text([prompt])[0]
        if self.text.num_cut > num_cut == 0:
            logger.warning(
                "a prompt is longer than the %d tokens that the network reads, and is cut: %s",
                self.text.text_len, shown(prompt, 80),
            )  # fmt: skip
        text = torch.zeros(1, self.text.text_len, tokens.shape[-1])
        text[0, : len(tokens)] = tokens
        return text.to(self.device)


class DiffusersMaker:
    """A folder of diffusers' WanVACEPipeline.

    Args:
        model: Its folder and sampler; the pipeline's own scheduler samples.
        config: Device and number format.
        local_rank: Index of this process's GPU on its machine.

    Raises:
        ValueError: diffusers cannot load the folder.
    """

    def __init__(self, model: ModelConfig, config: EvaluateConfig, local_rank: int = 0) -> None:
        self.sampler, self.device = model.sampler, pick_device(config.device, local_rank)
        bf16 = uses_bf16(config.dtype, self.device, "dtype")
        dtype = torch.bfloat16 if bf16 else torch.float32
        self.pipeline = _load_pipeline(model, dtype).to(self.device)
        self.pipeline.set_progress_bar_config(disable=True)

    @torch.no_grad()
    def __call__(self, sample: Sample, conditions: Conditions, seed: int) -> Tensor:
        """One call of the pipeline."""
        from PIL import Image

        def pictures(clip: Tensor) -> list:
            return [Image.fromarray(frame) for frame in (clip * 255).round().to(torch.uint8).numpy()]

        length, height, width = conditions.mask.shape
        masks = pictures(conditions.mask[..., None].expand(length, height, width, 3))
        result = self.pipeline(
            video=pictures(conditions.frames),
            mask=[mask.convert("L") for mask in masks],
            # The pipeline puts the last one first; the network was trained on their order.
            reference_images=[pictures(image[None])[0] for image in conditions.references[::-1]] or None,
            prompt=sample.prompt,
            negative_prompt=self.sampler.negative_prompt,
            conditioning_scale=self.sampler.context_scale,
            height=height,
            width=width,
            num_frames=length,
            num_inference_steps=self.sampler.steps,
            guidance_scale=self.sampler.guidance_of(sample.task),
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
        )
        return result.frames[0].permute(0, 2, 3, 1).float().cpu().clamp(0, 1)


def _load_pipeline(model: ModelConfig, dtype: torch.dtype) -> Any:
    """WanVACEPipeline of a folder. Its networks are loaded one by one: it would let each lack tensors."""
    from transformers import UMT5EncoderModel

    diffusers, library = import_diffusers(), f"models: {model.name}: diffusers"
    networks = {
        "transformer": diffusers.WanVACETransformer3DModel,
        "transformer_2": diffusers.WanVACETransformer3DModel,
        "vae": diffusers.AutoencoderKLWan,
        "text_encoder": UMT5EncoderModel,
    }
    local, what = {"local_files_only": True}, "a WanVACEPipeline"
    with loading(library, model.path, what):
        index = diffusers.WanVACEPipeline.load_config(model.path, **local)
        check_parts(Path(model.path), index)
        # [null, null] stands for one that this pipeline does without.
        names = [name for name in networks if index.get(name, [None])[0]]
    parts = {}
    for name in names:
        folder = Path(model.path, name)
        parts[name] = load_weights(
            library, networks[name], folder, f"the {name} of {what}", torch_dtype=dtype
        )
    with loading(library, model.path, what):
        return diffusers.WanVACEPipeline.from_pretrained(
            model.path, torch_dtype=dtype, use_safetensors=True, **local, **parts
        )


def check_parts(folder: Path, index: Mapping[str, Any]) -> None:
    """Refuse parts of other libraries, which would be imported by name, and files as `check_files` does."""
    for name, part in index.items():
        library = part[0] if isinstance(part, (list, tuple)) and part else None
        if library not in (None, "diffusers", "transformers"):
            raise ValueError(f"its {shown(name, 40)} is a class of {described(library)}, which is not loaded")
        if isinstance(part, (list, tuple)) and (folder / name).is_dir():
            check_files(folder / name)
