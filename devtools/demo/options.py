"""The demo's flags, checked before anything is installed or started."""

import argparse
import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from devtools.documents import read_json
from devtools.errors import DevError, UsageError
from devtools.paths import ROOT

WORKFLOWS = ROOT / "workflows"
PREFIX = "vdot_"
NATIVE_PREFIX = "native_"  # workflows that need more than the bundled model files
DEFAULT_TASK = "depth"


@dataclass(frozen=True)
class DemoOptions:
    """Options of a demo run. None and () keep the workflow's own value.

    Attributes:
        task: workflows/vdot_<task>.json.
        video: clip to use instead of the workflow's.
        images: pictures to use instead of the workflow's, in order.
        mask: picture or video; white is regenerated.
        prompt: text to use.
        num_frames: length of the video.
        size: (width, height) in pixels.
        seed: of the noise.
        out: folder for the results.
    """

    task: str = DEFAULT_TASK
    video: str | None = None
    images: tuple[str, ...] = field(default=())
    mask: str | None = None
    prompt: str | None = None
    num_frames: int | None = None
    size: tuple[int, int] | None = None
    seed: int | None = None
    out: str = str(ROOT / "outputs")

    def to_json(self) -> str:
        """One command-line argument that from_json() understands."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "DemoOptions":
        """The inverse of to_json()."""
        values = json.loads(text)
        values["images"] = tuple(values["images"])
        values["size"] = tuple(values["size"]) if values["size"] else None
        return cls(**values)

    @property
    def workflow(self) -> Path:
        """The workflow file of the task."""
        return WORKFLOWS / f"{PREFIX}{self.task}.json"

    def uses_node(self, kind: str) -> bool:
        """True if the task's workflow has a node of this class."""
        return any(node["type"] == kind for node in self.read_workflow()["nodes"])

    def read_workflow(self) -> dict[str, Any]:
        """The workflow, as the front end saved it.

        Raises:
            DevError: its file is damaged.
        """
        cure = f"restore it: git checkout {self.workflow.relative_to(ROOT)}"
        values = read_json(self.workflow, cure)
        nodes, links = values.get("nodes"), values.get("links")
        if not (isinstance(nodes, list) and isinstance(links, list) and all(map(_is_node, nodes))):
            raise DevError(f"{self.workflow} is damaged (it does not list nodes and links); {cure}")
        return values


def _is_node(node: Any) -> bool:
    return isinstance(node, dict) and {"id", "type"} <= node.keys()


def tasks() -> list[str]:
    """The tasks that have a workflow."""
    return sorted(path.stem.removeprefix(PREFIX) for path in WORKFLOWS.glob(f"{PREFIX}*.json"))


def parse(arguments: Sequence[str]) -> DemoOptions:
    """Read and check the command line of `dev.py demo`.

    Raises:
        DevError: a flag's value is invalid; the message says which and why.
    """
    parsed = _parser().parse_args(arguments)
    native = WORKFLOWS / f"{NATIVE_PREFIX}{parsed.task}.json"
    if parsed.task not in tasks() and native.is_file():
        raise DevError(
            f"--task {parsed.task} needs model files that the demo does not have: load "
            f"{native.relative_to(ROOT)} in ComfyUI, its note says which"
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
        mask=_existing("--mask", parsed.mask),
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
    from devtools.demo.convert import described, to_prompt
    from devtools.demo.loaders import assign, loaders  # they read options themselves

    workflow = options.read_workflow()
    info = described(workflow)
    assign(loaders(to_prompt(workflow, info), info), options)


def needs_mask(task: str) -> UsageError:
    """The error where a clip is given without the mask that belongs to it."""
    return UsageError(
        f"--video: the {task} workflow needs a mask, and its own was drawn for its own clip; "
        "give --mask FILE as well: a picture for all frames, or a video; white is regenerated"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dev.py demo",
        description="Makes a video with a real ComfyUI and the bundled tiny model: workflows/vdot_TASK.json.",
    )
    parser.add_argument(
        "--task", default=DEFAULT_TASK, help=f"{', '.join(tasks())} (default: {DEFAULT_TASK})"
    )
    parser.add_argument("--video", metavar="FILE", help="clip to use; for the depth task a depth clip")
    parser.add_argument(
        "--image", metavar="FILE", action="append", default=[], help="picture to use (repeatable)"
    )
    parser.add_argument(
        "--mask", metavar="FILE", help="picture, or video of the clip's length; white is regenerated"
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
