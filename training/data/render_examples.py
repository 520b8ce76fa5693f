"""Draws the small example inputs that the bundled workflows use: a clip, its depth, and a mask.

    python training/data/render_examples.py [--out assets/examples]

Needs PyAV and Pillow.
"""

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
FRAME_RATE = 16
DEPTH_SEED = 2**41 + 2
CLIP_SEED = 2**41 + 4

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


def render(folder: Path) -> None:
    """Draw depth.mp4, clip.mp4 and mask.png into a folder."""
    from PIL import Image

    from training.data.shapes import clip

    folder.mkdir(parents=True, exist_ok=True)
    depth = clip(DEPTH_SEED).depth
    write_video(folder / "depth.mp4", depth[..., None].expand(-1, -1, -1, 3))
    source = clip(CLIP_SEED)
    write_video(folder / "clip.mp4", source.frames)
    mask = (source.masks.amax(0) > 0.5).float()
    rows, columns = torch.nonzero(mask.amax(1)), torch.nonzero(mask.amax(0))
    box = torch.zeros_like(mask)
    box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = 1
    Image.fromarray((box * 255).byte().numpy()).save(folder / "mask.png")
    _log.info("depth: %s", clip(DEPTH_SEED).caption)
    _log.info("clip: %s", source.caption)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "examples")
    render(parser.parse_args().out)
