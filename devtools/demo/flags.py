"""The demo's flags, checked before anything is installed or started."""

import argparse
import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from devtools.demo.convert import described, to_prompt
from devtools.demo.loaders import assign, loaders, mask_people
from devtools.demo.options import (
    DEFAULT_TASK,
    NATIVE_PREFIX,
    PEOPLE,
    DemoOptions,
    names,
    tasks,
    workflow_file,
)
from devtools.errors import DevError
from devtools.paths import ROOT


def parse(arguments: Sequence[str]) -> DemoOptions:
    """Read and check the command line of `dev.py demo`.

    Raises:
        DevError: a flag's value is invalid; the message says which and why.
    """
    parsed = _parser().parse_args(arguments)
    native = f"{NATIVE_PREFIX}{parsed.task}"
    if parsed.task not in tasks() and native in names():
        raise DevError(
            f"--task {parsed.task} needs model files that the demo does not have: load "
            f"{workflow_file(native).relative_to(ROOT)} in ComfyUI, its note says which"
        )
    if parsed.task not in tasks():
        near = difflib.get_close_matches(parsed.task, tasks(), 1)
        guess = f"did you mean {near[0]}? There are" if near else "choose from"
        raise DevError(f"--task {parsed.task}: there is no such workflow; {guess} {', '.join(tasks())}")
    if parsed.frames is not None and (parsed.frames < 1 or parsed.frames % 4 != 1):
        below = max(1, (parsed.frames - 1) // 4 * 4 + 1)
        raise DevError(f"--frames {parsed.frames}: the count must be 4n+1, as in {below} or {below + 4}")
    if parsed.seed is not None and not 0 <= parsed.seed < 2**64:
        raise DevError(f"--seed {parsed.seed}: a seed is an integer from 0 to 2^64 - 1")
    options = DemoOptions(
        task=parsed.task,
        video=_existing("--video", parsed.video),
        images=tuple(_existing("--image", image) for image in parsed.image),
        mask=parsed.mask if parsed.mask == PEOPLE else _existing("--mask", parsed.mask),
        prompt=parsed.prompt,
        num_frames=parsed.frames,
        size=_size(parsed.size),
        seed=parsed.seed,
        out=str(_out_folder(parsed.out)),
    )
    _require_places(options)
    return options


def _require_places(options: DemoOptions) -> None:
    """Refuse files that the task's workflow does not read, and a clip without the mask that belongs to it."""
    workflow = options.read_workflow()
    info = described(workflow)
    prompt = to_prompt(workflow, info)
    if options.mask == PEOPLE:
        options = mask_people(prompt, info, options)
    assign(loaders(prompt, info), options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dev.py demo",
        description="Makes a video with a real ComfyUI, the bundled tiny model and a bundled workflow.",
    )
    parser.add_argument(
        "--task", default=DEFAULT_TASK, help=f"{', '.join(tasks())} (default: {DEFAULT_TASK})"
    )
    parser.add_argument("--video", metavar="FILE", help="clip to use; for the depth task a depth clip")
    parser.add_argument(
        "--image", metavar="FILE", action="append", default=[], help="picture to use (repeatable)"
    )
    parser.add_argument(
        "--mask",
        metavar="FILE",
        help=f"picture, or video of the clip's length; white is regenerated. {PEOPLE}: those in the clip",
    )
    parser.add_argument("--prompt", metavar="TEXT", help="text prompt of the video")
    parser.add_argument("--frames", type=int, metavar="N", help="length in frames, 4n+1: 9, 13, 17 ..")
    parser.add_argument("--size", metavar="WxH", help="size in pixels, multiples of 16: 64x64")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the noise")
    parser.add_argument("--out", metavar="FOLDER", default=str(ROOT / "outputs"), help="default: %(default)s")
    return parser


def _existing(flag: str, name: str | None) -> str | None:
    if name is None:
        return None
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        place = "" if Path(name).expanduser().is_absolute() else f" in {Path.cwd()}"
        what = "is a folder" if path.is_dir() else f"does not exist{place}"
        raise DevError(f"{flag} {name} {what}; give a file")
    return str(path)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)[xX×](\d+)", text.strip())  # noqa: RUF001 - what people type
    if not match:
        raise DevError(f"--size {text}: expected WIDTHxHEIGHT in pixels, as in 64x64")
    width, height = int(match[1]), int(match[2])
    if width < 16 or height < 16 or width % 16 or height % 16:
        near = "x".join(str(max(16, round(side / 16) * 16)) for side in (width, height))
        raise DevError(f"--size {text}: both sides must be multiples of 16, as in {near}")
    return width, height


def _out_folder(name: str) -> Path:
    path = Path(name).expanduser().resolve()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DevError(f"--out {name}: cannot be made or is no folder ({error.strerror})") from error
    return path
