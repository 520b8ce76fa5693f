"""Files of real widths with random values, written tensor by tensor."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from vdot_core.checkpoints.safetensors_files import write_safetensors
from vdot_core.checkpoints.tensor_files import TensorSpec
from vdot_core.networks import WanVaceConfig, expected_shapes, wan_vace_1_3b

SLICE = replace(wan_vace_1_3b(), num_layers=2, vace_layers=(0,))
"""Two blocks of 1.3B, the first with a VACE block: 0.17 billion parameters."""


def write_random(path: Path, config: WanVaceConfig, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Write a plain Wan file whose values keep activations near 1."""
    specs = {name: TensorSpec(shape, dtype) for name, shape in expected_shapes(config).items()}
    write_safetensors(path, specs, _values(specs), {"format": "pt"})
    return path


def write_lora(path: Path, config: WanVaceConfig, rank: int = 8) -> Path:
    """Write a LoRA for every matrix of the blocks, which changes each by about a tenth."""
    shapes = {
        f"diffusion_model.{name.removesuffix('.weight')}": shape
        for name, shape in expected_shapes(config).items()
        if "blocks." in name and len(shape) == 2 and name.endswith(".weight")
    }
    specs = {}
    for name, (out, into) in shapes.items():
        specs[f"{name}.lora_up.weight"] = TensorSpec((out, rank), torch.bfloat16)
        specs[f"{name}.lora_down.weight"] = TensorSpec((rank, into), torch.bfloat16)
    values = ((name, 0.3 * value if ".lora_up." in name else value) for name, value in _values(specs))
    write_safetensors(path, specs, values, {"format": "pt"})
    return path


def _values(specs: dict[str, TensorSpec]) -> Iterator[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for name, spec in specs.items():
        values = torch.randn(spec.shape, generator=generator)
        if len(spec.shape) == 1:
            values = 0.1 * values + float("norm" in name and name.endswith("weight"))
        else:
            values *= 0.3 if name.endswith("modulation") else values[0].numel() ** -0.5
        yield name, values.to(spec.dtype)
