"""Renders workflows/<title>.jpg, the moving pictures of the template browser, from what the workflows made.

    python dev.py demo --task text | depth | inpaint      # leaves outputs/<name>.mp4
    python docs/make_images.py
    python docs/make_images.py --hero                     # README's animation, from docs/images/results

ComfyUI looks for a .jpg beside each workflow; what is in it is an animated WebP, which browsers recognize. It
shows the example that the workflow starts from beside the result. Run it again when the weights improve.
"""

import argparse
import io
import json
import logging
import sys
import textwrap
from pathlib import Path

import av
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from devtools.demo.titles import name_of, stem_of

log = logging.getLogger("vdot")

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "assets" / "examples"
SIZE_PX = 512
GAP_PX = 6
BACKGROUND = (24, 24, 27)
LABEL_COLOR, WORDS_COLOR = (190, 190, 196), (225, 225, 230)
LABEL_PX, LINE_PX, EDGE_PX = 34, 30, 24
MAX_BYTES, MAX_FRAMES, FRAME_MS = 140 * 1024, 33, 90
# README's animation: tasks and rows of the evaluation's animations, and columns of these.
HERO = (("depth", 2), ("depth", 3), ("inpainting", 2), ("inpainting", 3), ("layout", 2), ("layout", 3))
CONDITION, STUDENT = 1, 3
RESULT_CELL_PX, RESULT_GAP_PX, HERO_CELL_PX, HERO_MS = 64, 4, 128, 90
# Workflows whose model files are large show what the demo model does of the same task.
STAND_INS = {
    "native_depth_anything": "vdot_depth",
    "native_sdpose": "vdot_pose",
    "native_sam3_inpaint": "vdot_removal",
}
QUALITIES = (86, 78, 70, 60, 50, 40)


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


def _cover(picture: Image.Image, width: int, height: int) -> Image.Image:
    scale = max(width / picture.width, height / picture.height)
    size = (max(width, round(picture.width * scale)), max(height, round(picture.height * scale)))
    resized = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return resized.crop((left, top, left + width, top + height))


def example(workflow: dict) -> list[Image.Image]:
    """Frames of the example that a workflow starts from: its first clip, or else its first picture."""
    for kind in ("VDOTLoadClip", "LoadImage"):
        for node in workflow["nodes"]:
            if node["type"] == kind and node["mode"] == 0:  # not in an optional group that is off
                path = EXAMPLES / Path(node["widgets_values"][0]).name
                return read_frames(path) if path.suffix == ".mp4" else [Image.open(path).convert("RGB")]
    return []


def prompt_of(workflow: dict) -> str:
    """The workflow's prompt."""
    (node,) = (n for n in workflow["nodes"] if n.get("title") == "What the video shows")
    return node["widgets_values"][0]


def thumbnail(cells: dict[str, list[Image.Image]], words: str) -> list[Image.Image]:
    """Frames of a square picture: videos side by side below their labels, the prompt below.

    Args:
        cells: label -> frames; a single one stands still.
        words: the prompt.
    """
    side = (SIZE_PX - EDGE_PX - GAP_PX * (len(cells) - 1)) // max(len(cells), 2) + (
        0 if len(cells) > 1 else 60
    )
    left = (SIZE_PX - len(cells) * side - GAP_PX * (len(cells) - 1)) // 2
    lines = textwrap.wrap(f"\u201c{words}\u201d", 42)
    top = (SIZE_PX - LABEL_PX - side - GAP_PX - LINE_PX * len(lines)) // 2 + LABEL_PX
    count = max(map(len, cells.values()))
    frames = []
    for index in range(count):
        sheet = Image.new("RGB", (SIZE_PX, SIZE_PX), BACKGROUND)
        draw = ImageDraw.Draw(sheet)
        for column, (label, pictures) in enumerate(cells.items()):
            x = left + column * (side + GAP_PX)
            picture = pictures[index * len(pictures) // count]
            sheet.paste(_cover(picture, side, side), (x, top))
            draw.text((x + 2, top - LABEL_PX + 2), label, LABEL_COLOR, ImageFont.load_default(22))
        for row, line in enumerate(lines):
            place = (SIZE_PX // 2, top + side + 3 * GAP_PX + row * LINE_PX)
            draw.text(place, line, WORDS_COLOR, ImageFont.load_default(22), anchor="mt")
        frames.append(sheet)
    return frames


def webp_bytes(frames: list[Image.Image]) -> bytes:
    """An animated WebP, at the best quality that stays under MAX_BYTES."""
    for quality in QUALITIES:
        buffer = io.BytesIO()
        options = {"duration": FRAME_MS, "loop": 0, "quality": quality, "method": 6}
        frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], **options)
        if buffer.tell() <= MAX_BYTES:
            break
    return buffer.getvalue()


def render(path: Path, video: Path) -> bytes:
    """The thumbnail of one workflow's result, beside the example that it starts from."""
    workflow = json.loads(path.read_text("utf-8"))
    source, result = example(workflow), read_frames(video)
    result = pick(result, min(len(result), MAX_FRAMES))
    source = pick(source, min(len(source), len(result)))
    cells = {"input": source, "result": result} if source else {"result": result}
    return webp_bytes(thumbnail(cells, prompt_of(workflow)))


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
        name = STAND_INS.get(name_of(workflow.stem), name_of(workflow.stem))
        video = options.videos / f"{name}.mp4"
        if not video.is_file():
            missing.append(video)
            continue
        data = render(options.workflows / f"{stem_of(name)}.json", video)
        workflow.with_suffix(".jpg").write_bytes(data)
        log.info("%s: %.0f KB", workflow.with_suffix(".jpg").name, len(data) / 1024)
    for video in missing:
        log.error("no picture for %s: %s is missing; run the workflow first", video.stem, video)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
