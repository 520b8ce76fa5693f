"""The only way from the recordings to the code: whoever moves or renames code edits this file alone.

The recordings themselves (*.json, old/) stay as they are, as long as no number changes on purpose.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from tests.support.distill import (
    SIZES,
    NoiseSource,
    losses_by_step,
    new_trainer,
    tiny_config,
    tiny_values,
    write_teacher,
)
from vdot_core import sampling, vcu
from vdot_core.checkpoints import inspect, load_network

__all__ = ["inspect", "load_network", "losses_by_step", "sampling", "vcu", "write_teacher"]

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "assets"
OLD = Path(__file__).with_name("old")
TEACHER = OLD / "teacher.safetensors"
CACHE = OLD / "cache"
RUN = OLD / "run.tar.gz"

# {class type: {old input id: new input id}}, and {(class type, old input id): {old value: new value}}.
RENAMED_INPUTS: dict[str, dict[str, str]] = {
    "VDOTDepth": {"normalisation": "normalization"},
    "VDOTDrawPose": {"colours": "colors"},
    "VDOTLayout": {"colours": "colors"},
    "VDOTMove": {"colours": "colors"},
}
RENAMED_VALUES: dict[tuple[str, str], dict[Any, Any]] = {}
# A pattern of the message by which old/cache is refused, where its format is given up on purpose.
OLD_CACHE_REFUSED: str | None = None
# A recording's metric -> today's name.
RENAMED_METRICS: dict[str, str] = {}

# Keys of `tests.support.distill.tiny_values`.
DISTILLATIONS: dict[str, dict[str, Any]] = {
    "corrected": {"optim__generator_every": 2},
    "released": {"recipe": "released", "optim__generator_every": 2},
    "variants": {
        "steps": 6,
        "optim__generator_every": 1,
        "optim__warmup": 3,
        "optim__betas": [0.5, 0.9],
        "losses__otd_through": "xt",
        "losses__otd_pool": 2,
        "losses__dmd_weighting": "timestep",
        "losses__cost": "l1",
        "losses__rho_fake": 20.0,
        "losses__rho_real": 20.0,
        "losses__batch_guidance": False,
        "losses__task_guidance": {"depth": 1.5},
        "losses__gan_form": "linear",
        "losses__gan_trains_score": False,
        "losses__r1": 0.5,
        "losses__r2": 0.5,
        "losses__text_drop": 0.4,
    },
}
SOURCES: dict[str, dict[str, Any]] = {
    "corrected": {},
    "released": {"accumulation": 2},
    "variants": {"tasks": ("depth", "text"), "references": 2},
}


def vae_encoder():
    """The tiny VAE in float32: video [B, F, H, W, 3] in [0, 1] -> latents [B, 16, T, h, w]."""
    from training.data.wan_vae import encode_video, load_vae

    vae = load_vae(ASSETS / "vdot_tiny_vae.safetensors")

    @torch.no_grad()
    def encode(video: Tensor) -> Tensor:
        return encode_video(vae, video)

    return encode


def student() -> nn.Module:
    """The bundled few-step generator in float32."""
    return load_network(ASSETS / "vdot_tiny_student.safetensors", dtype=torch.float32)


def distillation(folder: Path, name: str, **changes: Any):
    """A trainer of the micro network, in a folder that may hold an earlier start's checkpoints."""
    config = tiny_config(folder, TEACHER, **{**DISTILLATIONS[name], **changes})
    return new_trainer(config, NoiseSource(**SOURCES[name]))


def distillation_values(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same for another process: keys of the configuration and of the source of batches."""
    return tiny_values(folder, TEACHER, **DISTILLATIONS[name]), SOURCES[name]


def distilled_networks(trainer) -> dict[str, nn.Module]:
    """The trained networks by name."""
    return dict(trainer.method.networks)


def averaged_weights(trainer) -> list[Tensor]:
    """The generator's averaged weights."""
    return list(trainer.average.parameters)


def export_run(trainer, path: Path) -> Path:
    """Write the averaged generator of a run's newest checkpoint."""
    from training.engine.export import export

    return export(trainer.config, path, trainer.method.metadata())


def keyed_draws(seed: int, step: int, positions: tuple[int, ...]) -> dict[str, Any]:
    """One of each kind of draw of a training step, by name."""
    from training.engine.draws import Draws, keyed_generator

    draws = Draws(seed, step, positions)
    source = draws.noise_source("noise")
    like = torch.zeros(len(positions), 16, 2, 4, 6)
    return {
        "key": torch.randn(8, generator=keyed_generator(seed, "key", step)),
        "integer": draws.shared_integer(4, "exit"),
        "normal": draws.normal((16, 2, 4, 6), "normal"),
        "uniform": draws.uniform("uniform"),
        "timesteps": draws.timesteps("timesteps", shift=5.0, low=20.0, high=980.0),
        "noise 1": source(like),
        "noise 2": source(like),
    }


def cached_source(**changes: Any):
    """Batches of the old cache."""
    from training.data import DataConfig, build_source

    keys = {"source": "cache", "cache_dir": str(CACHE), "vae": None, "text_encoder": None}
    sizes = {"batch_size": 4, "accumulation": 2}
    return build_source(DataConfig(**{**keys, **sizes, **changes}), seed=3, need_latents=True)


def write_cache(folder: Path) -> None:
    """Encode a few drawn clips to a cache as the distillation's data store writes it."""
    from training import cache
    from training.data import DataConfig

    files = {name: str(ASSETS / f"vdot_tiny_{end}.safetensors") for name, end in _ENCODERS.items()}
    size = {"width": 32, "height": 32, "num_frames": 5}
    groups = [
        {**size, "num_clips": 2, "tasks": ["depth", "text"]},
        {**size, "num_clips": 1, "tasks": ["reference"]},
    ]
    shapes = {"producer": "tiny.producer.ShapesProducer", "producer_args": {"groups": groups}}
    assert cache.encode(DataConfig(source="producer", cache_dir=str(folder), **shapes, **files))


_ENCODERS = {"vae": "vae", "text_encoder": "text"}


def flow_matching(folder: Path):
    """A trainer of a micro transformer by flow matching, on the old cache's clips."""
    from training.distributed import world as processes
    from training.engine.trainer import Trainer
    from training.methods import flow_matching as method
    from training.methods.programs import finetune_config

    values = {
        "out_dir": str(folder),
        "seed": 4,
        "steps": 5,
        "model": {"preset": "vdot_tiny"},
        "losses": {"text_drop": 0.4},
        "optim": {"lr": 1e-3, "warmup": 2, "schedule": "cosine", "optimizer": "muon"},
        "parallel": {"precision": "fp32", "device": "cpu", "threads": 1, "checkpoint_every": 1},
        "data": {"workers": 0},
    }
    config, source = finetune_config(values), cached_source()
    world = processes.start(config.parallel)
    micro = dataclasses.replace(SIZES, text_dim=128, text_len=64)
    with mock.patch.object(method, "network_sizes", lambda *_: micro):
        return Trainer(config, method.FlowMatching(config, world, source.empty_text), source, world)


def own_node_inputs() -> dict[str, dict]:
    """The input section of /object_info for the pack's nodes; loads the real ComfyUI."""
    from tests.support.pack import load_nodes

    return {name: node.GET_NODE_INFO_V1()["input"] for name, node in load_nodes().items()}


def native_node_inputs(types: set[str]) -> dict[str, dict]:
    """The same for ComfyUI's own nodes."""
    import asyncio

    own_node_inputs()
    import nodes

    logging.disable(logging.WARNING)
    asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
    logging.disable(logging.NOTSET)
    classes = {name: nodes.NODE_CLASS_MAPPINGS[name] for name in sorted(types)}
    return {
        name: one.GET_NODE_INFO_V1()["input"] if hasattr(one, "GET_NODE_INFO_V1") else one.INPUT_TYPES()
        for name, one in classes.items()
    }


def prompt_of(workflow: dict, info: dict) -> dict[str, dict]:
    """API prompt of a workflow, given the server's /object_info."""
    from devtools.demo.convert import to_prompt

    return to_prompt(workflow, info)
