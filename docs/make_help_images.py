"""Draws the pictures at the head of the help pages whose nodes are no task, into js/docs/images.

    python docs/make_help_images.py

Those of tasks come from docs/images/tasks/make.py, those of loaders from `python -m tests.browser.screenshot
--nodes`. Needs the models of `python dev.py annotators`. They carry no words: both languages show them.
"""

import logging
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent / "images/tasks"))
from make import COLUMNS, HELP, SEED_INDEX, SIZE, png_bytes

from tiny.clips.mannequin import POSES, draw_person
from tiny.clips.shapes import SPLITS, clip
from tiny.tasks import TASKS
from vdot_core import vcu
from vdot_core.annotators import make_annotator
from vdot_core.vcu.drawing import GENERATE, GUIDE, KEEP, frame_picture, moments, window_picture

log = logging.getLogger("vdot")

CELL, PORTRAIT = (120, 208), (200, 160)  # height, width
GAP_PX, EDGE_PX, BAR_PX, ARROW_PX = 6, 12, 9, 26
BACKGROUND, LIGHT, DIM = (24, 24, 27), (228, 228, 231), (82, 82, 91)
GRAINS_PX = (40, 20, 8, 1)  # of the predictions of four steps
THING = -1  # the nearest of the clip's


def cell(frame: Tensor, size: tuple[int, int] = CELL) -> Image.Image:
    """A frame [H, W, 3], or a mask [H, W], in [0, 1] at `size` (height, width)."""
    pixels = frame if frame.ndim == 3 else frame[..., None].expand(-1, -1, 3)
    picture = Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().numpy())
    return picture.resize(size[::-1], Image.Resampling.BICUBIC)


def row(cells: list, below_px: int = 0) -> tuple[Image.Image, list[int]]:
    """A sheet with cells side by side, where None is an arrow; and the left edge of every cell."""
    wide = [ARROW_PX if picture is None else picture.width for picture in cells]
    high = max(picture.height for picture in cells if picture)
    left = [EDGE_PX + sum(wide[:number]) + GAP_PX * number for number in range(len(cells))]
    size = (left[-1] + wide[-1] + EDGE_PX, high + 2 * EDGE_PX + below_px)
    sheet = Image.new("RGB", size, BACKGROUND)
    draw, middle = ImageDraw.Draw(sheet), EDGE_PX + high // 2
    for x, picture in zip(left, cells, strict=True):
        if picture:
            sheet.paste(picture, (x, EDGE_PX + (high - picture.height) // 2))
        else:
            draw.line((x + 3, middle, x + 15, middle), LIGHT, 3)
            draw.polygon([(x + 13, middle - 7), (x + 23, middle), (x + 13, middle + 7)], LIGHT)
    return sheet, left


def framed(picture: Image.Image, color: tuple[int, int, int]) -> Image.Image:
    """The picture with a border."""
    ImageDraw.Draw(picture).rectangle((0, 0, picture.width - 1, picture.height - 1), outline=color, width=3)
    return picture


def outlined(frame: Tensor, boxes: list, size: tuple[int, int] = CELL) -> Image.Image:
    """A frame with boxes (left, top, right, bottom) in its pixels."""
    picture, (height, width) = cell(frame, size), frame.shape[:2]
    for left, top, right, bottom in boxes:
        x, y = size[1] / width, size[0] / height
        place = (left * x, top * y, right * x, bottom * y)
        ImageDraw.Draw(picture).rectangle(place, outline=GENERATE, width=2)
    return picture


def as_box(left: int, top: int, right: int, bottom: int) -> dict[str, int]:
    """Corners as ComfyUI's bounding box."""
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}


def prediction(frame: Tensor, grain_px: int) -> Tensor:
    """A frame whose details below `grain_px` are not there yet."""
    size = [side // grain_px for side in frame.shape[:2]]
    coarse = torch.nn.functional.interpolate(frame.movedim(-1, 0)[None], size, mode="area")
    return torch.nn.functional.interpolate(coarse, frame.shape[:2], mode="bicubic")[0].movedim(0, -1)


def noise_like(frame: Tensor) -> Tensor:
    """Noise as coarse as latents are."""
    rows, columns = (side // 8 for side in frame.shape[:2])
    noise = torch.randn(rows, columns, 3, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.5
    return noise.repeat_interleave(8, 0).repeat_interleave(8, 1)


def regions(things) -> dict[str, Image.Image]:
    """Crop, Stitch, Paste Back, Box Mask and Encode: one of two things is generated, or gone."""
    frames, without = things.frames, things.without(THING)
    wide = vcu.augment(things.object_masks[THING], grow_px=6)
    part, cut, crop = vcu.crop_region(frames, wide[:1], margin=0.5)
    window = window_picture(frames[0], wide[0], crop, CELL)
    small = (CELL[0], round(CELL[0] * part.shape[2] / part.shape[1]))
    new, _, _ = vcu.crop_region(without, wide[:1], margin=0.5)
    stitched = vcu.stitch(frames[:1], new[:1], vcu.inpaint(part[:1], cut[:1]), crop)
    unit = vcu.inpaint(frames[:1], wide[:1])
    blurred = torch.nn.functional.avg_pool2d(without[:1].movedim(-1, 1), 8)
    decoded = torch.nn.functional.interpolate(blurred, frames.shape[1:3], mode="bicubic").movedim(1, -1)
    boxes = things.boxes.tolist()
    box_masks = vcu.box_masks([[as_box(*box)] for box in boxes[THING]], **SIZE)
    task = TASKS["inpainting_depth"](things)
    mask, gray = task.masks[..., None], torch.tensor(0.5)
    kept, free = torch.where(mask > 0, gray, task.frames), torch.where(mask > 0, task.frames, gray)
    first, last = 0, len(frames) - 1
    return {
        "crop": row([window, None, framed(cell(part[0], small), KEEP)])[0],
        "stitch": row([window, framed(cell(new[0], small), KEEP), None, cell(stitched[0])])[0],
        "paste_back": row(
            [
                frame_picture(unit, 0, CELL),
                cell(decoded[0]),
                None,
                cell(vcu.paste_back(decoded, unit, feather_px=4)[0]),
            ]
        )[0],
        "box_mask": row(
            [outlined(frames[i], [boxes[THING][i]]) for i in (first, last)]
            + [None]
            + [cell(box_masks[i]) for i in (first, last)]
        )[0],
        "encode": row([frame_picture(task, 0, CELL), None, *map(cell, (kept[0], free[0], task.masks[0]))])[0],
    }


def people() -> dict[str, Image.Image]:
    """Matte and Face, of a drawn person, by the models that the nodes run."""
    frame, _, _ = draw_person(POSES["waving"], height=480, width=384, body_px=380, x=190, y=250)
    mask = make_annotator("matte").run(frame[None]).masks[0]
    faces = make_annotator("face").run(frame[None])
    boxes = [(box.left, box.top, box.right, box.bottom) for box in faces.boxes[0]]
    return {
        "matte": row([cell(frame, PORTRAIT), None, cell(mask, PORTRAIT)])[0],
        "faces": row([outlined(frame, boxes, PORTRAIT), None, cell(faces.masks[0], PORTRAIT)])[0],
    }


def steps(things) -> dict[str, Image.Image]:
    """Sampler and Step Range: from noise to the video, and a control for the first two of four steps."""
    frame = things.frames[len(things.frames) // 2]
    small = (CELL[0] * 3 // 4, CELL[1] * 3 // 4)
    cells = [
        cell(stage, small) for stage in (noise_like(frame), *(prediction(frame, px) for px in GRAINS_PX))
    ]
    with_arrows = [picture for stage in cells for picture in (None, stage)][1:]
    sampled, _ = row(with_arrows)
    ranged, left = row(with_arrows, below_px=GAP_PX + BAR_PX)
    draw, top = ImageDraw.Draw(ranged), ranged.height - EDGE_PX - BAR_PX
    for step, x in enumerate(left[2::2]):
        draw.rectangle((x, top, x + small[1] - 1, top + BAR_PX), GUIDE if step < 2 else DIM)
    return {"sampler": sampled, "step_range": ranged}


def times(things) -> dict[str, Image.Image]:
    """Load Clip, Strength, Long Video and From Frame: what holds for a part of the time."""
    small = (CELL[0] // 2, CELL[1] // 2)
    at = moments(len(things.frames), 8)
    pictures = [cell(things.frames[index], small) for index in at]
    loaded, left = row(pictures, below_px=GAP_PX + BAR_PX)
    shade = Image.new("RGB", small[::-1], BACKGROUND)
    for number in (0, 1, 6, 7):
        loaded.paste(Image.blend(pictures[number], shade, 0.7), (left[number], EDGE_PX))
    top = loaded.height - EDGE_PX - BAR_PX
    ends = (left[2], left[5] + small[1])
    ImageDraw.Draw(loaded).rectangle((ends[0], top, ends[1] - 1, top + BAR_PX), GUIDE)

    depth = TASKS["depth"](things)
    strong, left = row([frame_picture(depth, index, small) for index in at], below_px=64)
    draw, floor, roof = ImageDraw.Draw(strong), strong.height - EDGE_PX, strong.height - EDGE_PX - 56
    curve = [(left[0], roof), (left[3], roof), (left[6], floor), (left[7] + small[1], floor)]
    draw.polygon([(left[0], floor), *curve], tuple(value // 3 for value in GUIDE))
    draw.line(curve, GUIDE, 3)

    chunks = Image.new("RGB", (loaded.width, 3 * (small[0] + GAP_PX) + 2 * EDGE_PX), BACKGROUND)
    for number, start in enumerate((0, 2, 4)):
        for step in range(4):
            if start + step < len(pictures):
                border = KEEP if number and step < 2 else GENERATE
                place = (left[start + step], EDGE_PX + number * (small[0] + GAP_PX))
                chunks.paste(framed(pictures[start + step].copy(), border), place)

    other = things.without(THING)
    story = [cell((things.frames if number < 4 else other)[index], small) for number, index in enumerate(at)]
    changed, left = row(story, below_px=GAP_PX + BAR_PX)
    draw, top = ImageDraw.Draw(changed), changed.height - EDGE_PX - BAR_PX
    draw.rectangle((left[0], top, left[4] - GAP_PX - 1, top + BAR_PX), KEEP)
    draw.rectangle((left[4], top, left[7] + small[1] - 1, top + BAR_PX), GENERATE)
    return {"load_clip": loaded, "strength": strong, "long_video": chunks, "from_frame": changed}


def main() -> None:
    """Draw them all."""
    things = clip(SPLITS["evaluation"][SEED_INDEX], **SIZE)
    sheets = regions(things) | people() | steps(things) | times(things)
    pictures = {name: torch.from_numpy(np.array(sheet)) / 255 for name, sheet in sheets.items()}
    pictures["preview_unit"] = vcu.preview(TASKS["reference_depth"](things), COLUMNS)
    for name, pixels in pictures.items():
        data = png_bytes(pixels)
        (HELP / f"{name}.png").write_bytes(data)
        log.info("%s: %d bytes", name, len(data))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
