"""LoRA files in the forms that are in use, made from known changes."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.core.networks.helpers import diffusers_name

WEIGHT, CONV, NORM, TABLE = (
    "blocks.1.self_attn.q.weight",
    "patch_embedding.weight",
    "blocks.0.norm3.weight",
    "blocks.2.modulation",
)
BIAS = "vace_blocks.0.after_proj.bias"


def factors(shape: tuple[int, ...], rank: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random (up, down) for a weight [out, ...]."""
    generator = torch.Generator().manual_seed(seed)
    columns = torch.Size(shape[1:]).numel()
    return (
        torch.randn(shape[0], rank, generator=generator),
        torch.randn(rank, columns, generator=generator) / columns**0.5,
    )


def kohya(name: str, up: torch.Tensor, down: torch.Tensor, alpha: float) -> dict[str, torch.Tensor]:
    module = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
    return {
        f"{module}.lora_up.weight": up,
        f"{module}.lora_down.weight": down,
        f"{module}.alpha": torch.tensor(alpha),
    }


def wan_fun(name: str, up: torch.Tensor, down: torch.Tensor, alpha: float) -> dict[str, torch.Tensor]:
    return {key.replace("lora_unet_", "lora_unet__"): v for key, v in kohya(name, up, down, alpha).items()}


def dotted(name: str, up: torch.Tensor, down: torch.Tensor, alpha: float) -> dict[str, torch.Tensor]:
    module = "diffusion_model." + name.removesuffix(".weight")
    return {
        f"{module}.lora_up.weight": up,
        f"{module}.lora_down.weight": down,
        f"{module}.alpha": torch.tensor([alpha]),
    }


def peft(name: str, up: torch.Tensor, down: torch.Tensor, alpha: float) -> dict[str, torch.Tensor]:
    """Trainers of PEFT's family write no alpha; their factors are scaled already."""
    module, scale = "diffusion_model." + name.removesuffix(".weight"), alpha / down.shape[0]
    return {f"{module}.lora_B.weight": up * scale, f"{module}.lora_A.weight": down}


def diffsynth(name: str, up: torch.Tensor, down: torch.Tensor, alpha: float) -> dict[str, torch.Tensor]:
    module, scale = name.removesuffix(".weight"), alpha / down.shape[0]
    return {f"{module}.lora_B.default.weight": up * scale, f"{module}.lora_A.default.weight": down}


def diffusers(name: str, up: torch.Tensor, down: torch.Tensor, alpha: float) -> dict[str, torch.Tensor]:
    module, scale = diffusers_name(name).removesuffix(".weight"), alpha / down.shape[0]
    return {
        f"transformer.{module}.lora_B.weight": up * scale,
        f"transformer.{module}.lora_A.weight": down,
    }


FORMS = {form.__name__: form for form in (kohya, wan_fun, dotted, peft, diffsynth, diffusers)}


def save_lora(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file({key: value.clone().contiguous() for key, value in tensors.items()}, path, metadata=metadata)
    return path
