"""Draws every task of tiny/tasks.py, for docs/TASKS.md and the help pages of nodes.

python docs/images/tasks/make.py [--out docs/images/tasks]
"""

import argparse
import io
import logging
import sys
from pathlib import Path

import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
SEED_INDEX = 11  # of the evaluation split: two things, one passing before the other
FIGURE_INDEX = 5  # of the same: a stick figure, for the tasks that need a body or a face
SIZE = {"height": 240, "width": 416, "num_frames": 33}
COLUMNS = 5
MAX_BYTES = 30 * 1000
# Of these tasks, help pages of nodes show the picture too; ComfyUI serves only what lies in js/.
HELP = ROOT / "js/docs/images"
IN_HELP = {
    *("text", "depth", "pose", "layout", "inpainting", "outpainting", "firstframe", "keyframes", "move"),
    *("reference", "inpainting_depth", "scribble", "gray", "flow"),
}

log = logging.getLogger("vdot")


def png_bytes(pixels: torch.Tensor) -> bytes:
    """A picture [H, W, 3] in [0, 1] as PNG, with as many colors as stay under MAX_BYTES."""
    image = Image.fromarray((pixels * 255).round().byte().numpy())
    for colors in (128, 64, 32, 16):
        buffer = io.BytesIO()
        image.quantize(colors, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
        if buffer.tell() <= MAX_BYTES:
            break
    return buffer.getvalue()


def main() -> None:
    """Draw them all."""
    sys.path.insert(0, str(ROOT))
    from tiny.clips.shapes import SPLITS, clip, figure_clip
    from tiny.tasks import COMPOSITE, SINGLE
    from vdot_core.vcu import preview

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    seeds = SPLITS["evaluation"]
    things, figure = clip(seeds[SEED_INDEX], **SIZE), figure_clip(seeds[FIGURE_INDEX], **SIZE)
    for name, task in (SINGLE | COMPOSITE).items():
        unit = task(figure if task.scene == "figure" else things)
        data = png_bytes(preview(unit, COLUMNS))
        (folder / f"{name}.png").write_bytes(data)
        if name in IN_HELP and folder == Path(__file__).parent:
            (HELP / f"{name}.png").write_bytes(data)
        log.info("%s: %s, %d bytes", name, unit, len(data))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
