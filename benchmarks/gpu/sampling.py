"""Four sampling steps of a released size with random weights in bf16: seconds, operations, memory."""

import math
import time

import torch

from benchmarks.gpu.machine import against, bf16_tflops, gib, peak_bytes, reset_peak, synchronize
from training.planning.activations import graph_activations
from training.planning.phases import Rates, sample_flops
from training.planning.workload import Clip, Workload
from vdot_core.networks import PRESETS, WanVace, WanVaceConfig, expected_shapes, vdot_tiny
from vdot_core.sampling import PRESETS as SAMPLERS
from vdot_core.sampling import sample

CLIPS = (Clip(832, 480, 81), Clip(832, 480, 33), Clip(416, 240, 33))
SPARE = 0.92
"""Share of the free memory that a prediction may fill."""
EVALUATIONS = 5  # the first and four steps
LONGEST = 60.0
"""Predicted seconds of the evaluations that a part has time for."""


def measure(device: str, preset: str) -> dict:
    """Sample the largest clip that the memory takes; smaller ones are not measured."""
    config = PRESETS[preset]() if device == "cuda" else vdot_tiny()
    clips = CLIPS if device == "cuda" else (Clip(32, 32, 5),)
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else math.inf
    needs = {clip: predicted_bytes(config, clip) for clip in clips}
    rate = bf16_tflops(device) * 1e12 * Rates().utilization
    seconds = {clip: EVALUATIONS * sample_flops(config, clip).forward / rate for clip in clips}
    fitting = [clip for clip in clips if needs[clip] <= SPARE * free and seconds[clip] <= LONGEST]
    too_large = [
        {"clip": name_of(clip), "needs_gib": gib(needs[clip]), "predicted_seconds": round(seconds[clip], 1)}
        for clip in clips
        if clip not in fitting
    ]
    if not fitting:
        least = f"{gib(min(needs.values()))} GiB and {min(seconds.values()):.0f} s"
        reason = f"{preset} needs {least}; {gib(free)} GiB are free, and {LONGEST:.0f} s"
        return {"not_measured": reason, "too_large": too_large}
    clip = fitting[0]
    network = random_network(config, device)
    figures = sample_clip(network, config, clip, device)
    measured = figures.pop("peak_bytes")
    return {"preset": preset, "clip": name_of(clip), "too_large": too_large, **figures} | against(
        measured, needs[clip]
    )


def name_of(clip: Clip) -> str:
    """A clip in words."""
    return f"{clip.num_frames} frames of {clip.width}x{clip.height}"


def predicted_bytes(config: WanVaceConfig, clip: Clip) -> int:
    """Weights in bf16 and what one evaluation uses at once."""
    weights = 2 * sum(math.prod(shape) for shape in expected_shapes(config).values())
    graph = graph_activations(
        config, Workload.of(config, clip), checkpoint_every=1, element_bytes=2, trained=False, taps=0
    )
    return weights + graph.inference


@torch.no_grad()
def random_network(config: WanVaceConfig, device: str) -> WanVace:
    """A network with random weights, never held twice."""
    network = WanVace(config, device="meta", dtype=torch.bfloat16).to_empty(device=device)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1 and name.endswith("weight"):
            parameter.fill_(1)
        else:
            parameter.normal_(std=0.02)
    return network.requires_grad_(False).eval()


@torch.inference_mode()
def sample_clip(network: WanVace, config: WanVaceConfig, clip: Clip, device: str) -> dict:
    """Sample twice; the second time is measured."""
    shape = clip.latent_shape
    text = torch.randn(1, config.text_len, config.text_dim, device=device, dtype=torch.bfloat16)
    contexts = torch.randn(1, 1, config.vace_in_channels, *shape, device=device, dtype=torch.bfloat16)
    noise = torch.randn(1, 16, *shape, device=device)
    preset = SAMPLERS["trained"]
    evaluations: list[float] = []

    def velocity(x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        synchronize(device)
        begin = time.perf_counter()
        value = network(x.to(torch.bfloat16), timestep, text, contexts)
        synchronize(device)
        evaluations.append(time.perf_counter() - begin)
        return value

    network(noise.to(torch.bfloat16), torch.full((1,), 500.0, device=device), text, contexts)
    reset_peak(device)
    begin = time.perf_counter()
    latents = sample(
        velocity, noise, preset.schedule(), preset.solver, generator=torch.Generator().manual_seed(0)
    )
    synchronize(device)
    seconds = time.perf_counter() - begin
    flops = sample_flops(config, clip).forward
    return {
        "seconds": round(seconds, 4),
        "seconds_by_evaluation": [round(value, 4) for value in evaluations],
        "tflops": round(flops / min(evaluations) / 1e12, 3),
        "finite": bool(latents.isfinite().all()),
        "peak_bytes": peak_bytes(device),
    }
