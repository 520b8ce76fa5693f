"""Renders workflows/<name>.jpg, the pictures of the template browser, from what the workflows made.

    python dev.py demo --task text | depth | inpaint      # leaves outputs/<name>.mp4
    python docs/make_images.py
    python docs/make_images.py --hero                     # README's animation, from docs/images/results

The picture of a workflow that starts from an example clip shows the clip above and the result below. Run it
again when the weights improve.
"""

import argparse
import io
import json
import logging
import sys
from pathlib import Path

import av
from PIL import Image

log = logging.getLogger("vdot")

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "assets" / "examples"
SIZE_PX = 512
GAP_PX = 6
BACKGROUND = (24, 24, 27)
MAX_BYTES = 60 * 1024
# README's animation: tasks and rows of the evaluation's animations, and columns of these.
HERO = (("depth", 2), ("depth", 3), ("inpainting", 2), ("inpainting", 3), ("layout", 2), ("layout", 3))
CONDITION, STUDENT = 1, 3
RESULT_CELL_PX, RESULT_GAP_PX, HERO_CELL_PX, HERO_MS = 64, 4, 128, 90
QUALITIES = (92, 88, 84, 78, 70, 60)


def read_frames(path: Path) -> list[Image.Image]:
    """Every frame of a video as an RGB picture.

    Raises:
        ValueError: the file holds no picture.
    """
    with av.open(str(path)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    if not frames:
        raise ValueError(f"{path} holds no frame; make it again by running its workflow")
    return frames


def pick(frames: list[Image.Image], count: int) -> list[Image.Image]:
    """`count` frames spread over the video; the first and the last are among them."""
    last = len(frames) - 1
    return [frames[round(index * last / max(count - 1, 1))] for index in range(count)]


def contact_sheet(rows: list[list[Image.Image]]) -> Image.Image:
    """Pictures in rows on a dark square, each cropped to fill its cell."""
    sheet = Image.new("RGB", (SIZE_PX, SIZE_PX), BACKGROUND)
    edges_y = _edges(len(rows))
    for (top, bottom), row in zip(edges_y, rows, strict=True):
        for (left, right), picture in zip(_edges(len(row)), row, strict=True):
            sheet.paste(_cover(picture, right - left, bottom - top), (left, top))
    return sheet


def _edges(count: int) -> list[tuple[int, int]]:
    """Start and end of `count` cells along one side, with a gap between them."""
    cell = (SIZE_PX - GAP_PX * (count - 1)) / count
    starts = [index * (cell + GAP_PX) for index in range(count)]
    return [(round(start), round(start + cell)) for start in starts]


def _cover(picture: Image.Image, width: int, height: int) -> Image.Image:
    scale = max(width / picture.width, height / picture.height)
    size = (max(width, round(picture.width * scale)), max(height, round(picture.height * scale)))
    resized = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return resized.crop((left, top, left + width, top + height))


def jpeg_bytes(picture: Image.Image) -> bytes:
    """The picture as JPEG, at the best quality that stays under MAX_BYTES."""
    for quality in QUALITIES:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
        if buffer.tell() <= MAX_BYTES:
            break
    return buffer.getvalue()


def input_clip(workflow: Path) -> Path | None:
    """The example clip that a workflow loads, if it loads one."""
    for node in json.loads(workflow.read_text("utf-8"))["nodes"]:
        if node["type"] == "VDOTLoadClip":
            clip = EXAMPLES / Path(node["widgets_values"][0]).name
            return clip if clip.is_file() else None
    return None


def render(workflow: Path, video: Path) -> bytes:
    """The thumbnail of one workflow's result, with its input above where there is one."""
    source = input_clip(workflow)
    result = read_frames(video)
    rows = _halves(pick(result, 4)) if source is None else [pick(read_frames(source), 2), pick(result, 2)]
    return jpeg_bytes(contact_sheet(rows))


def _halves(pictures: list[Image.Image]) -> list[list[Image.Image]]:
    return [pictures[:2], pictures[2:]]


def render_hero(results: Path, path: Path) -> None:
    """Write README's animation from the evaluation's: conditions above, the student's videos below.

    Args:
        results: Folder of docs/RESULTS.md's animations, whose cells are RESULT_CELL_PX wide with a gap.
        path: The WebP.
    """
    pitch, cell = RESULT_CELL_PX + RESULT_GAP_PX, HERO_CELL_PX
    animations = [Image.open(results / f"{task}.webp") for task, _ in HERO]
    size = (len(HERO) * (cell + GAP_PX) - GAP_PX, 2 * cell + GAP_PX)
    frames = []
    for number in range(min(animation.n_frames for animation in animations)):
        sheet = Image.new("RGB", size, BACKGROUND)
        for column, (animation, (_, row)) in enumerate(zip(animations, HERO, strict=True)):
            animation.seek(number)
            for place, source in enumerate((CONDITION, STUDENT)):
                left, top = source * pitch, row * pitch
                box = (left, top, left + RESULT_CELL_PX, top + RESULT_CELL_PX)
                picture = animation.convert("RGB").crop(box).resize((cell, cell), Image.Resampling.BICUBIC)
                sheet.paste(picture, (column * (cell + GAP_PX), place * (cell + GAP_PX)))
        frames.append(sheet)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=HERO_MS, loop=0, quality=80)
    log.info("%s: %.0f KB", path.name, path.stat().st_size / 1024)


def main() -> int:
    """Render what can be rendered; 1 when a workflow has no video."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--videos", type=Path, default=ROOT / "outputs", help="folder of <workflow name>.mp4 files"
    )
    parser.add_argument("--workflows", type=Path, default=ROOT / "workflows")
    parser.add_argument("--hero", action="store_true", help="only README's animation, docs/images/hero.webp")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.hero:
        images = ROOT / "docs" / "images"
        render_hero(images / "results", images / "hero.webp")
        return 0
    missing = []
    for workflow in sorted(options.workflows.glob("*.json")):
        video = options.videos / f"{workflow.stem}.mp4"
        if not video.is_file():
            missing.append(video)
            continue
        data = render(workflow, video)
        workflow.with_suffix(".jpg").write_bytes(data)
        log.info("%s: %.0f KB", workflow.with_suffix(".jpg").name, len(data) / 1024)
    for video in missing:
        log.error("no picture for %s: %s is missing; run the workflow first", video.stem, video)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
