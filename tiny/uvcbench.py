"""Draw a small benchmark in UVCBench's layout: `python tiny/uvcbench.py --out runs/uvcbench_tiny`.

18 tasks, 8 single and 10 composite, of drawn clips that no training sees; `training/evaluate.py --benchmark`
reads it. The folder `drawn` holds the clips themselves, as the videos of a perfect model.
"""

from __future__ import annotations

import json
import logging
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tiny.clips.shapes import Clip
from tiny.tasks import TASKS, draw_scene
from training.engine.cli import Formatter
from training.engine.files import write_problem
from training.preparation.clip_files import write_frames, write_mask, write_picture
from vdot_core import vcu
from vdot_core.files import atomic_write
from vdot_core.out_of_memory import is_out_of_memory, memory_in_words
from vdot_core.vcu.sizes import FRAME_RATE

logger = logging.getLogger("vdot")
# UVCBench's names -> plain examples of `tiny.tasks`.
SINGLE = {
    "depth": "depth",
    "pose": "pose",
    "flow": "flow",
    "gray": "gray",
    "scribble": "scribble",
    "extension": "firstframe",
    "outpainting": "outpainting",
    "R2V_object": "reference",
}
COMPOSITE = {
    **{
        f"reference+{name}": f"reference_{name}"
        for name in ("depth", "pose", "flow", "gray", "scribble", "layout")
    },
    **{f"reference+{name}": f"reference_{name}" for name in ("inpainting", "outpainting", "firstframe")},
    "firstframe+pose": "firstframe_pose",
}
CRF = 4
MAX_SIZE, MAX_FRAMES = 1024, 257
# Apart from the clips of tiny/evaluate.py.
FIRST_CLIP = 2000


def write_benchmark(folder: Path, num_clips: int, size: tuple[int, int, int]) -> int:
    """Draw a benchmark.

    Args:
        folder: Destination; the same arguments give the same files.
        num_clips: Rows of each task.
        size: (frames, height, width).

    Returns:
        The number of rows.
    """
    total = 0
    (folder / "indices").mkdir(parents=True, exist_ok=True)
    # Killed on the way, a benchmark of another size would be a mix of both under the earlier index.
    for index in ("single", "composite"):
        _index(folder, index).unlink(missing_ok=True)
    for index, tasks in (("single", SINGLE), ("composite", COMPOSITE)):
        lines = []
        for name, task in tasks.items():
            for number in range(num_clips):
                scene = draw_scene(FIRST_CLIP + number, "evaluation", 0.0, size, kind=TASKS[task].scene)
                lines.append(json.dumps(_row(folder, name, f"{number:04d}", TASKS[task](scene), scene)))
        with atomic_write(_index(folder, index)) as partial:
            partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        total += len(lines)
    return total


def _index(folder: Path, name: str) -> Path:
    return folder / "indices" / f"uvcbench_{name}.txt"


def _row(folder: Path, task: str, number: str, unit: vcu.VCU, scene: Clip) -> dict:
    """A line of the index; its files are written."""
    own = folder / "assets" / task
    own.mkdir(parents=True, exist_ok=True)
    (folder / "drawn" / task).mkdir(parents=True, exist_ok=True)
    write_frames(folder / "drawn" / task / f"{number}.mp4", scene.frames, FRAME_RATE, CRF)
    row = {
        "subtask": task,
        "sample_id": number,
        "en_prompt": scene.caption,
        "src_video": None,
        "src_mask": None,
    }
    if unit.kind != "generate":
        write_frames(own / f"{number}_video.mp4", unit.frames, FRAME_RATE, CRF)
        row["src_video"] = f"assets/{task}/{number}_video.mp4"
    if (unit.masks <= 0.5).any():
        write_mask(own / f"{number}_mask.mp4", (unit.masks > 0.5).float(), FRAME_RATE)
        row["src_mask"] = f"assets/{task}/{number}_mask.mp4"
    references = []
    for place, picture in enumerate(unit.references):
        references.append(f"assets/{task}/{number}_reference{place}.png")
        write_picture(folder / references[-1], picture)
    return {**row, "src_ref_images": references or None}


@memory_in_words("give a smaller --size or --frames")
def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the process's exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    parser = ArgumentParser(prog="python tiny/uvcbench.py", description=__doc__, formatter_class=Formatter)
    parser.add_argument("--out", default="runs/uvcbench_tiny", help="folder to write")
    parser.add_argument("--clips", type=int, default=20, help="rows of each task")
    parser.add_argument("--size", type=int, default=64, help="height and width in pixels, a multiple of 16")
    parser.add_argument("--frames", type=int, default=17, help="length, 4n + 1")
    options = parser.parse_args(argv)
    sizes, lengths = range(32, MAX_SIZE + 1, 16), range(5, MAX_FRAMES + 1, 4)
    if options.clips < 1 or options.size not in sizes or options.frames not in lengths:
        parser.error(
            f"expected clips of at least 1, a size in multiples of 16 from 32 to {MAX_SIZE}, frames 4n + 1 "
            f"from 5 to {MAX_FRAMES}"
        )
    size = options.frames, options.size, options.size
    try:
        count = write_benchmark(Path(options.out), options.clips, size)
    except OSError as error:
        if is_out_of_memory(error):
            raise
        logger.error("%s", write_problem(error, options.out, "give another --out"))
        return 1
    logger.info("%s: %d rows", options.out, count)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
