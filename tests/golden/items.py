"""The recorded items: each function makes one JSON file's items, by name, from the current code."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import prompts, scenes, subjects
from .measure import DrawWatch, GradientWatch, round_trip, sha256, sizes, summary

FLOW_STEPS = 5
STOP_AT = 4


def prompt_items(folder: Path) -> dict[str, Any]:
    """API prompts of the saved workflows."""
    return prompts.saved_prompts()


def sampler_items(folder: Path) -> dict[str, Any]:
    """Latents of the bundled student with every preset's schedule and every solver."""
    sampling, network = subjects.sampling, subjects.student()
    context = subjects.vcu.encode(scenes.sampler_unit(), subjects.vae_encoder())
    generator = torch.Generator().manual_seed(11)
    text = torch.randn(1, 7, network.config.text_dim, generator=generator)
    noise = torch.randn(context.latent_shape, generator=generator)

    def velocity(x, timestep):
        return network(x, timestep, text, context.contexts, context_scale=context.context_scale)

    items: dict[str, Any] = {"noise": summary(noise), "contexts": summary(context.contexts)}
    few_steps = {name: preset for name, preset in sampling.PRESETS.items() if preset.guidance == 1}
    for name, preset in few_steps.items():
        schedule = preset.schedule()
        items[f"schedule {name}"] = {
            "solver": preset.solver,
            "sigmas": [round_trip(sigma) for sigma in schedule.sigmas.tolist()],
            "timesteps": [round_trip(timestep) for timestep in schedule.timesteps.tolist()],
        }
        for solver in sampling.SOLVERS:
            source = torch.Generator().manual_seed(12)
            with torch.no_grad():
                latents = sampling.sample(velocity, noise, schedule, solver, source)
            items[f"{name}, {solver}"] = summary(latents)
    return items


def encode_items(folder: Path) -> dict[str, Any]:
    """Contexts of several tasks' units."""
    vae_encode, items = subjects.vae_encoder(), {}
    for name, build in scenes.UNITS.items():
        context = subjects.vcu.encode(build(), vae_encode)
        items[name] = {
            "contexts": summary(context.contexts),
            "references": context.num_reference_latents,
            "video": [context.num_frames, context.height, context.width],
            "scales": context.context_scale.frames,
        }
    return items


def distill_items(folder: Path) -> dict[str, Any]:
    """Runs of the micro network: metrics, gradients and draws of each step, and the weights at the end."""
    items: dict[str, Any] = {
        f"draw of step {step}: {name}": summary(draw, 16) if isinstance(draw, torch.Tensor) else draw
        for step in (0, 7)
        for name, draw in subjects.keyed_draws(5, step, (0, 3)).items()
    }
    for name in subjects.DISTILLATIONS:
        items |= _distillation(folder / name, name)
    return items


def _distillation(folder: Path, name: str) -> dict[str, Any]:
    return _steps(subjects.distillation(folder, name), folder, name)


def _steps(trainer: Any, folder: Path, name: str) -> dict[str, Any]:
    """Metrics, gradients and draws of each step of a run, and the weights at its end."""
    networks = subjects.distilled_networks(trainer)
    gradients, items = GradientWatch(networks), {}
    train_step, step = trainer.train_step, 0

    def watched_step(*batches):
        nonlocal step
        step += 1
        with DrawWatch() as draws:
            result = train_step(*batches)
        items[f"{name}, step {step}"] = {"gradients": gradients.take(), "draws": draws.take()}
        return result

    trainer.train_step = watched_step
    trainer.run()
    for number, metrics in subjects.losses_by_step(folder).items():
        del metrics["step"]
        items[f"{name}, step {number}"]["metrics"] = metrics
    ends = {name: sizes(network.parameters()) for name, network in networks.items()}
    items[f"{name}, weights"] = {**ends, "average": sizes(subjects.averaged_weights(trainer))}
    return items


def processes_items(folder: Path) -> dict[str, Any]:
    """The corrected recipe on two processes, which share its networks."""
    from tests.support.processes import launch, wait

    folder.mkdir(parents=True, exist_ok=True)
    values, source = subjects.distillation_values(folder / "out", "corrected")
    if wait(launch(folder, values, source), folder):
        raise RuntimeError((folder / "log.txt").read_text()[-3000:])
    return {f"step {step}": metrics for step, metrics in subjects.losses_by_step(folder / "out").items()}


def flow_matching_items(folder: Path) -> dict[str, Any]:
    """Steps of flow matching on cached clips."""
    return _steps(subjects.flow_matching(folder), folder, "flow matching")


def cache_items(folder: Path) -> dict[str, Any]:
    """Batches of the old cache."""
    items = {}
    for name, changes in (("all", {}), ("weighted", {"task_weights": {"depth": 2.0, "text": 1.0}})):
        source = subjects.cached_source(**changes)
        for step in range(3):
            for number, batch in enumerate(source.batches(step, 0, 1)):
                items[f"{name}, step {step}, batch {number}"] = {
                    "ids": batch.ids,
                    "tasks": batch.tasks,
                    "positions": batch.positions,
                    "shape": batch.shape,
                    "references": batch.num_reference_latents,
                    "text": summary(batch.text, 8),
                    "latents": summary(batch.latents, 8),
                    "contexts": summary(batch.contexts, 8),
                }
        items[f"{name}, state"] = source.state_dict()
    return items


def export_items(folder: Path) -> dict[str, Any]:
    """The old export, as it is read, and what an export of the old run holds today."""
    network = subjects.load_network(subjects.OLD / "export.safetensors", dtype=torch.float32)
    trainer = subjects.distillation(unpack_run(folder), "corrected", max_steps=STOP_AT)
    again = subjects.export_run(trainer, folder / "again.safetensors")
    weights = subjects.load_network(again, dtype=torch.float32)
    return {
        "config": network.config.to_dict(),
        "weights": {name: sha256(value)[:16] for name, value in network.state_dict().items()},
        "exported today": {name: sha256(value)[:16] for name, value in weights.state_dict().items()},
    }


ITEMS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "prompts": prompt_items,
    "sampler": sampler_items,
    "encode": encode_items,
    "distill": distill_items,
    "processes": processes_items,
    "flow_matching": flow_matching_items,
    "cache": cache_items,
    "export": export_items,
}


def unpack_run(folder: Path) -> Path:
    """A copy of the old run's folder, which was stopped after `STOP_AT` of ten steps."""
    with tarfile.open(subjects.RUN) as archive:
        archive.extractall(folder, filter="data")
    return folder / "run"


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mtime = entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def write_old(folder: Path) -> None:
    """Keep files of today's code: a run stopped early, its teacher and its export, a cache, workflows."""
    shutil.rmtree(subjects.OLD, ignore_errors=True)
    subjects.OLD.mkdir()
    subjects.write_teacher(subjects.TEACHER)
    trainer = subjects.distillation(folder / "run", "corrected", max_steps=STOP_AT)
    trainer.run()
    shutil.rmtree(folder / "run" / "tensorboard")
    with tarfile.open(subjects.RUN, "w:gz") as archive:
        archive.add(folder / "run", "run", filter=_anonymous)
    subjects.export_run(trainer, subjects.OLD / "export.safetensors")
    subjects.write_cache(subjects.CACHE)
    prompts.write_graphs()
