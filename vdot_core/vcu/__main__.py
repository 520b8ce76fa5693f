"""Command line: `python -m vdot_core.vcu preview` builds a unit from files and draws it."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import signals
from ..files import reason_of
from ..memory import RGB
from ..out_of_memory import is_out_of_memory, memory_in_words
from ..pictures import read_picture, without_alpha
from ..text import shown
from ..videos import eight_bits, open_video, shown_size, upright
from . import compose, control, depth, extend, inpaint, outpaint, reference, text
from .checks import check_volume
from .preview import write_preview
from .unit import VCU

VIDEO_ENDINGS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif")
CONTROLS = ("control", "depth", "gray", "scribble", "flow")
# Options that only change one of these inputs.
NEEDS = {
    ("mask_shape", "expand", "grow_px"): ("inpaint",),
    ("pad", "aspect", "feather_px"): ("outpaint",),
    ("start", "end"): CONTROLS,
}
EXAMPLES = """examples:
  %(prog)s --inpaint clip.mp4 mask.png --mask_shape box --expand 0.3 --reference cat.png --out swap.png
  %(prog)s --first photo.png --scribble clip.mp4 --width 832 --height 480 --num_frames 81
  %(prog)s --outpaint clip.mp4 --aspect 16:9 --feather_px 8
"""

logger = logging.getLogger("vdot")


@memory_in_words("give a smaller width, height or num_frames")
def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns 0, or 2 after an input error, printed in one sentence."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = _parser().parse_args(arguments)
    try:
        unit = _unit(options)
        write_preview(unit, options.out, options.columns)
    except ValueError as error:
        logger.error("%s", error)
        return 2
    except OSError as error:
        if is_out_of_memory(error):
            raise
        logger.error("%s: %s", shown(error.filename or options.out), reason_of(error))
        return 2
    logger.info("%s: %s", shown(options.out), unit)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vdot_core.vcu", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "preview",
        help="compose a unit from the given inputs and draw it into a picture",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, what in (
        ("control", "a ready-made control clip"),
        ("depth", "a depth clip; near is bright"),
        ("gray", "a clip whose grayscale video is the control"),
        ("scribble", "a clip whose line drawing is the control"),
        ("flow", "a clip whose optical flow is the control"),
        ("outpaint", "a clip to widen"),
        ("first", "how the video begins"),
        ("last", "how it ends"),
    ):
        command.add_argument(f"--{name}", type=Path, metavar="FILE", help=what)
    command.add_argument(
        "--inpaint", type=Path, nargs=2, metavar=("CLIP", "MASK"), help="mask; white: generate, black: keep"
    )
    command.add_argument("--mask_shape", default="original", help="original, hull or box")
    command.add_argument("--expand", type=float, default=0.0, help="grow the mask by this share of its box")
    command.add_argument("--grow_px", type=int, default=0, help="grow the mask by pixels")
    command.add_argument("--pad", type=int, nargs=4, default=(0, 0, 0, 0), metavar=("L", "R", "T", "B"))
    command.add_argument("--aspect", help="outpaint to this aspect, such as 16:9")
    command.add_argument(
        "--feather_px", type=int, default=0, help="pixels by which the generated margin reaches into the clip"
    )
    command.add_argument("--reference", type=Path, nargs="+", default=[], metavar="FILE", help="subjects")
    command.add_argument("--start", type=float, help="where controls start, as a share of the video, 0 to 1")
    command.add_argument("--end", type=float, help="where controls end, as a share of the video, 0 to 1")
    for name in ("width", "height", "num_frames"):
        command.add_argument(f"--{name}", type=int, help="of the video; default: the clip's own")
    command.add_argument("--columns", type=int, default=6, help="number of frames to show")
    command.add_argument("--out", default="unit.png", help="the picture to write")
    return parser


def _check_needs(options: argparse.Namespace) -> None:
    """Refuse options without the input that they change."""
    defaults = vars(_parser().parse_args(["preview"]))
    for names, inputs in NEEDS.items():
        changed = [name for name in names if getattr(options, name) != defaults[name]]
        if changed and not any(getattr(options, name) for name in inputs):
            wanted = " or ".join(f"--{name}" for name in inputs)
            raise ValueError(
                f"--{changed[0]} is given without {wanted}, which it changes; give both or neither"
            )


def _unit(options: argparse.Namespace) -> VCU:
    """The unit composed of all given inputs."""
    _check_needs(options)
    size = {"width": options.width, "height": options.height}
    canvas = {**size, "num_frames": options.num_frames}
    units = []
    if options.inpaint:
        clip, mask = _read(options.inpaint[0]), _read(options.inpaint[1], mask=True)
        augment = {"mask_shape": options.mask_shape, "expand": options.expand, "grow_px": options.grow_px}
        units.append(inpaint(clip, mask.mean(-1), **augment, **canvas))
    if options.outpaint:
        sides = dict(zip(("left", "right", "top", "bottom"), options.pad, strict=True))
        clip = _read(options.outpaint)
        units.append(outpaint(clip, **sides, aspect=options.aspect, feather_px=options.feather_px, **canvas))
    span = {"start": options.start, "end": options.end}
    for name, draw in (
        ("control", lambda clip: clip),
        ("depth", lambda clip: clip),
        ("gray", signals.to_gray),
        ("scribble", signals.draw_lines),
        ("flow", lambda clip: signals.flow_video(clip).frames),
    ):
        path = getattr(options, name)
        if path:
            build = depth if name == "depth" else control
            units.append(build(draw(_read(path)), **canvas, **span))
    if options.first or options.last:
        ends = [None if path is None else _read(path) for path in (options.first, options.last)]
        num_frames = options.num_frames or (units[0].num_frames if units else 81)
        if units:
            size = {"width": units[0].width, "height": units[0].height}
        units.append(extend(*ends, num_frames=num_frames, **size))
    base = units[0] if units else text(options.width or 832, options.height or 480, options.num_frames or 81)
    if options.reference:
        images = [_read(path, alpha=True)[0] for path in options.reference]
        canvas = {"width": base.width, "height": base.height, "num_frames": base.num_frames}
        units.append(reference(images, crop=None, **canvas))
    return compose(*(units or [base]))


def _read(path: Path, alpha: bool = False, mask: bool = False) -> Tensor:
    """A video or a picture as [F, H, W, 3 or 4] float in [0, 1]."""
    if path.suffix.lower() in VIDEO_ENDINGS:
        try:
            import av
        except ImportError as error:
            raise ValueError(f"{path} is a video, which needs PyAV; run `pip install av`") from error
        try:
            with open_video(path) as container:
                frames = []
                for stream in container.streams.video[:1]:
                    for frame in container.decode(stream):
                        check_volume(len(frames) + 1, *shown_size(frame, stream), RGB)
                        frames.append(eight_bits(upright(frame, stream)))
        except (av.FFmpegError, ValueError) as error:
            raise ValueError(f"{shown(path)} cannot be read: {shown(error, 200)}") from error
        if not frames:
            raise ValueError(f"{shown(path)} holds no frame; give another video")
        return torch.from_numpy(np.stack(frames)).float() / 255
    try:
        picture = read_picture(path)
        picture = without_alpha(picture) if mask else picture
    except (ValueError, OSError) as error:
        raise ValueError(f"{shown(path)} cannot be read: {shown(error, 200)}") from error
    return torch.from_numpy(picture if alpha else picture[..., :3]).float()[None] / 255


if __name__ == "__main__":
    sys.exit(main())
