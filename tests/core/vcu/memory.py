"""Peak memory and time of every task on real clips, encoded with a VAE that holds nothing.

    python -m tests.core.vcu.memory CLIP.mp4 [CLIP.mp4 ..] [REFERENCE.png ..]

Each task runs in a separate fork, so that one's peak is not another's. The clip itself is not counted.
"""

import os
import resource
import sys
import time
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import torch

from tiny.tasks import COMPOSITE, SINGLE
from vdot_core import signals, vcu
from vdot_core.vcu.__main__ import _read

WIDTH, HEIGHT, FRAMES = 832, 480, 81
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
FACE = {"x": 300, "y": 60, "width": 200, "height": 240}


class RealClip:
    """A video at 480p as the tasks take it, its signals made by our own nodes' functions when asked for.

    A moving ellipse stands for its subject, and its luma for its depth.
    """

    def __init__(self, path, pictures=()):
        self.frames = vcu.cover(_read(Path(path))[:FRAMES], WIDTH, HEIGHT)
        total = len(self.frames)
        centers = torch.stack([torch.linspace(250, 580, total), torch.linspace(220, 260, total)], 1)
        x, y = torch.arange(WIDTH), torch.arange(HEIGHT)[:, None]
        self.masks = torch.stack(
            [(((x - cx) / 120) ** 2 + ((y - cy) / 150) ** 2 < 1).float() for cx, cy in centers]
        )
        self.object_masks = self.masks[None]
        self.references = tuple(_read(Path(path))[0] for path in pictures) or (self.frames[0],)
        self.objects = (SimpleNamespace(rgb=(0.2, 0.5, 0.9), centers=centers),)
        left, top = centers[:, 0] - 120, centers[:, 1] - 150
        self.boxes = torch.stack([left, top, left + 240, top + 300], 1).round().long()[None]

    @cached_property
    def depth(self):
        return signals.luma(self.frames)

    @cached_property
    def lines(self):
        return 1 - signals.draw_lines(self.frames)[..., 0]

    @cached_property
    def flow(self):
        return signals.dis_flow(self.frames)


def face(clip):
    """A face cut out by a detector's box."""
    height, width = clip.references[0].shape[:2]
    mask = vcu.box_masks(FACE, width=width, height=height)
    size = {"width": WIDTH, "height": HEIGHT, "num_frames": len(clip.frames)}
    return vcu.reference(clip.references[0], masks=mask, **size)


def replacement(clip):
    """Someone else, moved by the poses, in the place of the subject."""
    place = vcu.inpaint(clip.frames, clip.object_masks[-1], mask_shape="box", expand=0.1)
    return vcu.compose(place, COMPOSITE["animate"](clip))


def pasted(clip):
    """An inpainted region's kept pixels put back."""
    unit = vcu.inpaint(clip.frames, clip.object_masks[-1])
    vcu.paste_back(clip.frames[: unit.num_frames], unit)
    return unit


def stitched(clip):
    """A small region cut out, enlarged, and put back."""
    part, mask, crop = vcu.crop_region(clip.frames, clip.object_masks[-1], width=WIDTH, height=HEIGHT)
    unit = vcu.inpaint(part, mask)
    vcu.stitch(clip.frames, part[: unit.num_frames], unit, crop)
    return unit


MORE = {
    "face": face,
    "face_pose": lambda clip: vcu.compose(face(clip), SINGLE["pose"](clip)),
    "replacement": replacement,
    "paste_back": pasted,
    "crop_and_stitch": stitched,
}
TASKS = SINGLE | COMPOSITE | MORE  # real clips have no joints: `face` and `replacement` are those above


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
    """(MB to build, MB to build and encode, CPU seconds), by a forked child."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        before, start = resident_mb(), time.process_time()
        unit = TASKS[name](clip)
        built = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
        context = vcu.encode(unit, pooling_vae)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
        assert torch.isfinite(context.contexts).all()
        os.write(write, f"{built} {peak} {time.process_time() - start}".encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as file:
        numbers = file.read().split()
    if not numbers:
        raise RuntimeError(f"{name} failed; its error is above")
    return tuple(float(number) for number in numbers)


def main(paths):
    torch.set_num_threads(1)
    pictures = [path for path in paths if path.lower().endswith(PICTURES)]
    videos = [path for path in paths if path not in pictures]
    clips = [RealClip(path, pictures) for path in videos]
    names = ", ".join(f"{Path(p).name} ({len(c.frames)} frames)" for p, c in zip(videos, clips, strict=True))
    print(f"{names}: at {WIDTH}x{HEIGHT}; the largest of them\n")
    print("| task | MB to build | MB with encoding | CPU seconds |\n|---|---|---|---|")
    for name in TASKS:
        peaks = torch.tensor([measure(name, clip) for clip in clips]).amax(0)
        print(f"| {name} | {peaks[0]:.0f} | {peaks[1]:.0f} | {peaks[2]:.1f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
