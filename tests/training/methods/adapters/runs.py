"""Short runs with adapters, and what they are made from."""

import torch

from tests.support.distill import new_trainer, tiny_config
from training.engine.export import export
from training.methods.vdot_networks import adapted_from
from vdot_core.checkpoints import inspect
from vdot_core.checkpoints.lora import save_factors
from vdot_core.networks import WanVace

ADAPTERS = {"rank": 3, "alpha": 6.0}
CHANGES = {"model__adapters": ADAPTERS, "parallel__checkpoint_every": 1}


def train(folder, teacher, **changes):
    trainer = new_trainer(tiny_config(folder, teacher, **{**CHANGES, **changes}))
    trainer.run()
    return trainer


def base_of(network: WanVace) -> dict[str, torch.Tensor]:
    return {name: p for name, p in network.named_parameters() if ".adapters." not in name}


def stage_one_lora(folder, teacher, rank=2):
    """A LoRA of the text-only network, and its factors."""
    config = inspect(teacher).config
    generator = torch.Generator().manual_seed(3)
    factors = {
        f"blocks.{n}.ffn.{k}.weight": (
            0.3 * torch.randn((config.ffn_dim if k == 0 else config.dim), rank, generator=generator),
            0.3 * torch.randn(rank, (config.dim if k == 0 else config.ffn_dim), generator=generator),
        )
        for n in range(2)
        for k in (0, 2)
    }
    save_factors(folder / "stage_one.safetensors", factors)
    return folder / "stage_one.safetensors", factors


def export_of(folder, changes, path):
    config = tiny_config(folder / "run", folder / "own.safetensors", **changes)
    return export(config, path, {}, adapted_from(config))
