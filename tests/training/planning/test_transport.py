"""The transport's share of the plan against what a matching update's solver takes."""

import dataclasses

import pytest
import torch

import vdot_core.transport.solver as solver
import vdot_core.transport.tiling as tiling
from tests.support.memory import peak_bytes
from training.methods.programs import distill_config
from training.methods.vdot import transport_gradient
from training.methods.vdot_model import Scores
from training.planning.memory import peaks, transport_bytes
from training.planning.workload import Clip
from vdot_core.networks import vdot_tiny

KERNEL_480P = 4 * 6240**2


def config_of(**losses):
    config = distill_config({})
    return dataclasses.replace(config, losses=dataclasses.replace(config.losses, **losses))


@pytest.mark.parametrize(
    ("losses", "num_references"), [({}, 0), ({"debias": False}, 1), ({"cost": "l1", "otd_pool": 2}, 0)]
)
def test_a_gpu_s_layout_takes_what_is_planned(monkeypatch, losses, num_references):
    """Laid out as on a GPU, on this device: three frames at a time have their kernels in memory."""
    clip = Clip(width=256, height=192, num_frames=9, num_references=num_references)
    config, batch = config_of(**losses, iterations=3, tol=1e-9), 2
    shape = (batch, 16, *clip.latent_shape)
    points = shape[3] * shape[4] // config.losses.otd_pool**2
    for device in ("cpu", "cuda"):
        monkeypatch.setitem(tiling.KEPT_ELEMENTS, device, 3 * points**2)
        monkeypatch.setitem(tiling.CHUNK_ELEMENTS, device, points**2)
    monkeypatch.setattr(solver, "group_size", lambda device, *size: tiling.group_size("cuda", *size))
    sample, fake, real = (torch.randn(shape) for _ in range(3))
    scores = Scores(sample, torch.tensor([500.0] * batch), fake, real)
    peak = peak_bytes(lambda: transport_gradient(sample, scores, config.losses, num_references))
    predicted = transport_bytes(clip, batch, config)
    assert 4 * 3 * points**2 < peak <= predicted <= 1.6 * peak


def test_the_kernels_of_a_480p_clip_are_planned_for():
    """Six frames of 6240 points at a time, at any batch size; none without the transport."""
    clip, config = Clip(), config_of()
    one, two = (transport_bytes(clip, batch, config) for batch in (1, 2))
    assert 6 * KERNEL_480P < one < two < one + 0.3 * 6 * KERNEL_480P
    assert transport_bytes(clip, 1, config_of(otd_pool=2)) < one / 2
    assert transport_bytes(clip, 1, config_of(otd=False)) == 0
    matching = next(
        peak for peak in peaks(vdot_tiny(), clip, 1, config) if peak.name == "generator, matching"
    )
    assert matching.working >= one
