"""Draws the small example inputs that the bundled workflows use: clips, controls, masks and pictures.

    python tiny/clips/render_examples.py [--out assets/examples]

Pictures are the same every time; in videos, a few edge pixels may depend on the encoder.
Needs PyAV and Pillow.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
import torch
from jsonargparse import ArgumentParser

from tiny.clips import units
from tiny.clips.mannequin import waving_person
from tiny.clips.objects import FRAME_RATE
from tiny.clips.shapes import clip, figure_clip
from training.engine.cli import Formatter
from training.paths import ROOT
from vdot_core import signals

EVALUATION = 2**41  # the demo model has never seen these
DEPTH_SEED = EVALUATION + 132
CLIP_SEED = EVALUATION + 665
STORY_SEED = EVALUATION + 318
PAIR_SEED = EVALUATION + 1332  # two shapes, one of which is removed
POSE_SEED = EVALUATION + 4  # of a figure
LONG_SEED, PERSON_SEED = EVALUATION + 5, EVALUATION + 3  # of figures, the second in place of the first
SUBJECT_SEEDS = {"subject": EVALUATION + 582, "second": EVALUATION + 687, "clip_subject": CLIP_SEED}
NUM_START_FRAMES, NUM_LONG_FRAMES = 5, 65

_log = logging.getLogger("vdot")


def write_video(path: Path, frames: torch.Tensor) -> None:
    """Write frames [F, H, W, 3] float in [0, 1] as a small H.264 file."""
    import av

    pixels = (frames.clamp(0, 1) * 255).round().byte().numpy()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE)
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "12", "preset": "veryslow"}
        for picture in pixels:
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"))
            )
        container.mux(stream.encode())


def write_image(path: Path, image: torch.Tensor) -> None:
    """Write [H, W, 3], or a mask [H, W], float in [0, 1] as PNG."""
    from PIL import Image

    Image.fromarray((image.clamp(0, 1) * 255).round().byte().numpy()).save(path)


def videos() -> dict[str, torch.Tensor]:
    """The clips by file name, [F, 64, 64, 3] float in [0, 1]."""
    source, story, pair = clip(CLIP_SEED), clip(STORY_SEED), clip(PAIR_SEED)
    walk = figure_clip(LONG_SEED, num_frames=NUM_LONG_FRAMES)
    maps = signals.flow_to_frames(source.flow)
    return {
        "depth.mp4": _gray(clip(DEPTH_SEED).depth),
        "clip.mp4": source.frames,
        "mask.mp4": _gray((source.masks > 0.5).float()),
        "flow.mp4": torch.cat([maps[:1], maps]),
        "pose.mp4": units.pose(figure_clip(POSE_SEED), None).frames,
        "person.mp4": waving_person(),
        "pair.mp4": pair.frames,
        "pair_mask.mp4": _gray((pair.object_masks[-1] > 0.5).float()),
        "start.mp4": story.frames[:NUM_START_FRAMES],
        "long_clip.mp4": walk.frames,
        "long_clip_mask.mp4": _gray((walk.object_masks[-1] > 0.5).float()),
        "long_pose.mp4": units.pose(walk, None).frames,
    }


def images() -> dict[str, torch.Tensor]:
    """The pictures by file name, [64, 64, 3], and masks [64, 64]."""
    source, story = clip(CLIP_SEED), clip(STORY_SEED).frames
    pictures = {
        "mask.png": _box((source.masks.amax(0) > 0.5).float()),
        "first.png": story[0],
        "middle.png": story[len(story) // 2],
        "last.png": story[-1],
    }
    subjects = {name: clip(seed) for name, seed in SUBJECT_SEEDS.items()}
    for name, subject in {**subjects, "person": figure_clip(PERSON_SEED)}.items():
        frame = int(subject.masks.flatten(1).sum(1).argmax())
        pictures[f"{name}.png"] = subject.frames[frame]
        pictures[f"{name}_mask.png"] = (subject.masks[frame] > 0.5).float()
    return pictures


def render(folder: Path) -> None:
    """Draw every example into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frames in videos().items():
        write_video(folder / name, frames)
    for name, picture in images().items():
        write_image(folder / name, picture)
    for seed in {DEPTH_SEED, STORY_SEED, PAIR_SEED, *SUBJECT_SEEDS.values()}:
        _log.info("%d: %s", seed - EVALUATION, clip(seed).caption)
    _log.info("figure %d: %s", POSE_SEED - EVALUATION, figure_clip(POSE_SEED).caption)


def _gray(maps: torch.Tensor) -> torch.Tensor:
    return maps[..., None].expand(*maps.shape, 3)


def _box(mask: torch.Tensor) -> torch.Tensor:
    """The mask's bounding box."""
    rows, columns = torch.nonzero(mask.amax(1)), torch.nonzero(mask.amax(0))
    box = torch.zeros_like(mask)
    box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = 1
    return box


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the process's exit status."""
    prog = "python tiny/clips/render_examples.py"
    parser = ArgumentParser(prog=prog, description=__doc__, formatter_class=Formatter)
    parser.add_argument("--out", default=str(ROOT / "assets" / "examples"), help="folder to write")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    render(Path(parser.parse_args(argv).out))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
