"""A server that lives long: its memory stays flat, and interrupts leave nothing behind."""

import random
import threading

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.support.server import ComfyServer

pytestmark = pytest.mark.full

NUM_PROMPTS, WARM_UP, GROWTH_MB = 200, 60, 60
NUM_INTERRUPTS = 50


@pytest.fixture(scope="module")
def server(comfy, tmp_path_factory):
    # ComfyUI's default keeps the results of earlier prompts, which would be measured too.
    with ComfyServer(tmp_path_factory.mktemp("life"), "--cache-classic") as running:
        yield running


def prompt(seed=0, steps=4, length=5, side=64, mask_shape="box"):
    """The demo from its models to a saved latent, through a builder that has loops."""
    size = {"width": side, "height": side, "length": length}
    custom = {"preset": "custom", "steps": steps, "shift": 5.0, "solver": "euler"}
    nodes = {
        "load": ("VDOTLoadDemo", {}),
        "text": ("CLIPTextEncode", {"clip": ["load", 1], "text": "a red circle"}),
        "image": ("EmptyImage", {"width": 64, "height": 64, "batch_size": min(length, 9), "color": 0x336699}),
        "mask": ("SolidMask", {"value": 1.0, "width": 64, "height": 64}),
        "unit": (
            "VDOTMask",
            {"frames": ["image", 0], "mask": ["mask", 0], "mask_shape": mask_shape, "expand": 0.0, **size},
        ),
        "encode": (
            "VDOTEncode",
            {"positive": ["text", 0], "vae": ["load", 2], "unit": ["unit", 0], "strength": 1.0},
        ),
        "sample": (
            "VDOTSampler",
            {
                "model": ["load", 0],
                "positive": ["encode", 0],
                "latent": ["encode", 2],
                "seed": seed,
                **custom,
            },
        ),
        "decode": ("VAEDecode", {"samples": ["sample", 0], "vae": ["load", 2]}),
        "save": ("SaveLatent", {"samples": ["sample", 0], "filename_prefix": "life"}),
        "look": ("PreviewImage", {"images": ["decode", 0]}),
    }
    return {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}


def saved_latent(server, run):
    """The latent that a run wrote; the file goes."""
    assert run.status == "success", run.error
    assert any(data.get("node") == "sample" for data in run.of_type("executing")), "the sampler was cached"
    file = run.outputs["save"]["latents"][0]
    path = server.base / "output" / file["subfolder"] / file["filename"]
    latent = load_file(path)["latent_tensor"]
    path.unlink()
    return latent


def test_memory_is_flat_over_many_prompts(server):
    """Of several sizes, lengths and builders' settings, each with a refused one in between."""
    process = psutil.Process(server.pid)
    sizes, rng = [], random.Random(0)
    for number in range(NUM_PROMPTS):
        change = {"length": rng.choice([1, 5, 9]), "side": rng.choice([48, 64]), "steps": rng.choice([1, 2])}
        saved_latent(server, server.run(prompt(seed=number, **change)))
        if number % 10 == 0:
            assert server.run(prompt(side=8192, length=8193)).status == "error"
        sizes.append(process.memory_info().rss / 2**20)
    warm, last = max(sizes[:WARM_UP]), max(sizes[-20:])
    print(f"RSS MB: first {sizes[0]:.0f}, after {WARM_UP} {warm:.0f}, after {NUM_PROMPTS} {last:.0f}")
    assert last - warm < GROWTH_MB


def test_interrupts_at_any_moment_leave_nothing_behind(server):
    rng = random.Random(1)
    expected = saved_latent(server, server.run(prompt(seed=7)))
    statuses = []
    for number in range(NUM_INTERRUPTS):
        timer = threading.Timer(rng.uniform(0, 2.0), server.interrupt)
        timer.start()
        run = server.run(prompt(seed=1000 + number, steps=40, length=rng.choice([5, 9]), side=48))
        timer.join()
        statuses.append(run.status)
        assert run.status in ("success", "interrupted"), run.error
        if number % 5 == 4:
            assert torch.equal(saved_latent(server, server.run(prompt(seed=7))), expected)
    print({status: statuses.count(status) for status in set(statuses)})
    assert statuses.count("interrupted") > NUM_INTERRUPTS // 2
