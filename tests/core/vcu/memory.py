"""Peak memory and time of every task on a real clip, encoded with a VAE that holds nothing.

    python -m tests.core.vcu.memory CLIP.mp4 [REFERENCE.png]

Each task runs in a fork of its own, so that one's peak is not another's. The clip itself is not counted.
"""

import os
import resource
import sys
import time

import numpy as np
import torch

from training.data.shapes import Clip, ShapeTrack
from training.data.task_inputs import TASKS
from vdot_core.signals import draw_lines, luma
from vdot_core.vcu import cover, encode
from vdot_core.vcu.__main__ import _read
from vdot_core.vcu.checks import MAX_FRAMES

WIDTH, HEIGHT, FRAMES = 832, 480, 81


def real_clip(path, picture=None):
    """A video at 480p as the tasks take it: with a moving ellipse for its subject and luma for its depth."""
    from pathlib import Path

    frames = cover(_read(Path(path))[: min(FRAMES, MAX_FRAMES)], WIDTH, HEIGHT)
    total = len(frames)
    centres = torch.stack([torch.linspace(250, 580, total), torch.linspace(220, 260, total)], 1)
    x, y = torch.arange(WIDTH), torch.arange(HEIGHT)[:, None]
    masks = torch.stack([(((x - cx) / 120) ** 2 + ((y - cy) / 150) ** 2 < 1).float() for cx, cy in centres])
    still = torch.zeros(total)
    colors = (0.2, 0.5, 0.9)
    track = ShapeTrack(
        "circle", "blue", "large", "linear", "right", False, colors, 130.0, 1.0, centres, still
    )
    image = frames[0] if picture is None else _read(Path(picture))[0]
    lines = 1 - draw_lines(frames)[..., 0].contiguous()
    words = ("a clip",)
    return Clip(
        seed=0, split="train", frames=frames, masks=masks, object_masks=masks[None], depth=luma(frames),
        lines=lines, caption=words[0], captions=words, references=(image,), objects=(track,),
        background="", pan=(0.0, 0.0),
    )  # fmt: skip


def pooling_vae(video):
    """Wan's latent shapes, one latent frame at a time."""
    batch, total, height, width, _ = video.shape
    out = torch.zeros(batch, 16, (total - 1) // 4 + 1, height // 8, width // 8)
    for t in range(out.shape[2]):
        part = video[:, max(0, 4 * t - 3) : 4 * t + 1].mean(1)
        assert part.min() >= 0 and part.max() <= 1
        out[:, :3, t] = part.reshape(batch, height // 8, 8, width // 8, 8, 3).mean((2, 4)).permute(0, 3, 1, 2)
    return out


def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def measure(name, clip):
    """(MB to build, MB to build and encode, seconds), by a forked child."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        before, start = resident_mb(), time.perf_counter()
        unit = TASKS[name](clip, torch.Generator().manual_seed(0))
        built = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
        encode(unit, pooling_vae)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
        os.write(write, f"{built} {peak} {time.perf_counter() - start}".encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as file:
        return tuple(float(number) for number in file.read().split())


if __name__ == "__main__":
    torch.set_num_threads(1)
    scene = real_clip(*sys.argv[1:3])
    size = np.prod(scene.frames.shape) * 4 / 2**20
    print(f"{len(scene.frames)} frames of {WIDTH}x{HEIGHT}: {size:.0f} MB as float32, not counted below")
    print("| task | MB to build | MB with encoding | seconds |\n|---|---|---|---|")
    for name in TASKS:
        built, peak, seconds = measure(name, scene)
        print(f"| {name} | {built:.0f} | {peak:.0f} | {seconds:.1f} |", flush=True)
