"""Steps of the distillation of training/configs at a released size, on one GPU, with random weights.

Generator and critic are updated in every step, by transport, DMD and GAN, on noise in place of clips.
Networks, losses and optimizers are those of `training/distill.py`, at the largest clip that fits.
"""

import dataclasses
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.gpu.machine import against, bf16_tflops, gib, peak_bytes, reset_peak, synchronize
from benchmarks.gpu.sampling import name_of, random_network
from training.data.batch import Batch
from training.distributed import world as processes
from training.engine.trainer import Trainer
from training.methods.programs import distill_config
from training.methods.vdot import Vdot
from training.methods.vdot_config import DistillConfig
from training.planning.budget import Budget, Machine, make_budget
from training.planning.phases import Rates
from training.planning.workload import Clip
from vdot_core.checkpoints import save_network
from vdot_core.networks import PRESETS, WanVaceConfig

ROOT = Path(__file__).resolve().parents[2]
CLIPS = (Clip(832, 480, 81), Clip(832, 480, 33), Clip(416, 240, 33), Clip(416, 240, 9))
STEPS = {"cuda": 4, "cpu": 2}  # matching and GAN take turns
LONGEST_STEP = 12.0
"""Predicted seconds of a step that a part has time for."""


def measure(device: str, preset: str, file: str) -> dict:
    """Train a few steps of a shipped configuration at the largest clip that fits into memory and time."""
    tiny = device != "cuda"
    network = PRESETS["vdot_tiny" if tiny else preset]()
    memory = math.inf if tiny else torch.cuda.mem_get_info()[0]
    machine = Machine(gpus=1, rates=Rates(tflops=bf16_tflops(device)))
    budgets, left_out = [], []
    for clip in (Clip(32, 32, 5),) if tiny else CLIPS:
        config = run_config("vdot_tiny" if tiny else preset, file, Path("none"), clip, device)
        budget = make_budget(config, network, clip, machine)
        if budget.total > memory:
            left_out.append({"clip": name_of(clip), "needs_gib": gib(budget.total)})
        elif not tiny and budget.time.total > LONGEST_STEP:
            left_out.append({"clip": name_of(clip), "predicted_seconds": round(budget.time.total, 1)})
        else:
            budgets.append(budget)
    if not budgets:
        return {
            "not_measured": f"{preset} fits no clip into {gib(memory)} GiB: the smallest needs "
            f"{left_out[-1].get('needs_gib', 'more time')} GiB on one GPU",
            "too_large": left_out,
        }
    budget = budgets[0]
    with tempfile.TemporaryDirectory() as scratch:
        figures = train(budget, Path(scratch), device, file)
    return {"preset": preset, "config": file, "clip": name_of(budget.clip), "too_large": left_out, **figures}


def run_config(preset: str, file: str, folder: Path, clip: Clip, device: str) -> DistillConfig:
    """The shipped configuration, for one clip on one GPU without data."""
    values: dict[str, Any] = yaml.safe_load(
        (ROOT / "training" / "configs" / file).read_text(encoding="utf-8")
    )
    values["model"] |= {
        "preset": preset,
        "real_score": str(folder / "teacher.safetensors"),
        "acc_wan_init": None,
        **({"taps": [1], "discriminator_width": 64, "discriminator_heads": 4} if device == "cpu" else {}),
    }
    values["data"] = {"source": "cache", "batch_size": 1, "accumulation": 1, "num_frames": clip.num_frames}
    values["data"] |= {"width": clip.width, "height": clip.height, "workers": 0}
    values["optim"]["generator_every"] = 1
    values["parallel"] |= {"device": device, "fsdp": False, "cpu_offload": False}
    values["log"] = {"asynchronous": False}
    return distill_config({**values, "out_dir": str(folder / "run"), "steps": 1000})


class NoiseSource:
    """Batches of noise of one shape, in place of a cache."""

    encoding = "noise"
    skipped: tuple = ()
    held_out: tuple = ()

    def __init__(self, network: WanVaceConfig, clip: Clip):
        self.network, self.clip = network, clip
        self.empty_text = torch.randn(1, 8, network.text_dim)

    def batch(self, step: int) -> Batch:
        """The one sample of a step."""
        generator, shape = torch.Generator().manual_seed(step), self.clip.latent_shape

        def noise(*size: int) -> torch.Tensor:
            return torch.randn(1, *size, generator=generator)

        return Batch(
            ids=(f"noise{step}",),
            tasks=("depth",),
            positions=(0,),
            text=noise(64, self.network.text_dim),
            shape=(16, *shape),
            latents=noise(16, *shape),
            contexts=noise(1, self.network.vace_in_channels, *shape),
        )

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass


def train(budget: Budget, folder: Path, device: str, file: str) -> dict:
    """Run the steps and compare time and memory with the plan's."""
    network, clip = budget.network, budget.clip
    config = run_config(budget.config.model.preset, file, folder, clip, device)
    teacher = random_network(network, device)
    save_network(folder / "teacher.safetensors", teacher)
    del teacher
    if device == "cuda":
        torch.cuda.empty_cache()
    source = NoiseSource(network, clip)
    world = processes.start(dataclasses.replace(config.parallel))
    try:
        begin = time.perf_counter()
        trainer = Trainer(config, Vdot(config, world, source.empty_text), source, world)
        built = time.perf_counter() - begin
        steps = [_step(trainer, source, index, device) for index in range(STEPS[device])]
        trainer.progress.close()
    finally:
        processes.stop()
    warm = steps[len(steps) // 2 :]
    peaks = [step["peak_bytes"] for step in steps]
    measured = None if device != "cuda" else max(peaks)
    predicted = budget.total - budget.overhead
    return {
        "seconds_to_build": round(built, 2),
        "seconds_per_step": round(sum(step["seconds"] for step in warm) / len(warm), 4),
        "predicted_seconds": round(budget.time.total, 4),
        "steps": [{k: v for k, v in step.items() if k != "peak_bytes"} for step in steps],
        "worst_update": budget.worst.name,
        **against(measured, predicted),
        "reserved_gib": gib(torch.cuda.max_memory_reserved()) if device == "cuda" else None,
        "predicted_with_overhead_gib": gib(budget.total),
    }


def _step(trainer: Trainer, source: NoiseSource, index: int, device: str) -> dict:
    reset_peak(device)
    synchronize(device)
    begin = time.perf_counter()
    metrics, _ = trainer.train_step([source.batch(index)])
    trainer.step += 1
    synchronize(device)
    seconds = time.perf_counter() - begin
    finite = all(math.isfinite(float(value)) for value in metrics.values())
    return {"seconds": round(seconds, 4), "finite": finite, "peak_bytes": peak_bytes(device)}
