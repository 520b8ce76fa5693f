"""The demo from its options to two files in the output folder."""

import asyncio
import io
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
from PIL import Image

from devtools.demo.client import ComfyClient, Outcome
from devtools.demo.convert import to_prompt
from devtools.demo.graph import Loader, Tap, apply, loaders, tap_prompt, taps
from devtools.demo.media import fitting_size, probe_image, probe_video, read_frames, spread
from devtools.demo.options import DemoOptions
from devtools.demo.report import Progress, Stages, closing_words
from devtools.demo.sheet import Row, contact_sheet
from devtools.errors import DevError, UsageError
from devtools.paths import ROOT
from devtools.server import ComfyServer

EXAMPLES = ROOT / "assets" / "examples"
NUM_COLUMNS = 6
DEMO_AREA = 64 * 64  # pixels per frame that the bundled model was trained on
DEMO_FRAMES = 17
VIDEO_SUFFIXES = (".mp4", ".webm", ".mov", ".mkv")
GREY = (128, 128, 128)
WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Made:
    """What the server made: the video's bytes and file name, and the pictures for the sheet."""

    video: bytes
    suffix: str
    taps: list[Tap]
    tapped: dict[tuple[int, int], Image.Image]
    frames: list[Image.Image]
    prompt: dict


def run_demo(options: DemoOptions, comfyui: str, setup_seconds: float) -> None:
    """Start ComfyUI, run the task's workflow, write the video and the sheet, say where they are.

    Args:
        options: what to run.
        comfyui: ComfyUI's folder.
        setup_seconds: how long the set-up took, for the closing table.

    Raises:
        DevError: an input cannot be read, or ComfyUI refused or failed.
    """
    stages = Stages()
    stages.add("set-up", setup_seconds)
    options = checked(options)
    out = Path(options.out)
    with tempfile.TemporaryDirectory(prefix="vdot-demo-") as base:
        with stages.measure("start ComfyUI"):
            server = ComfyServer(Path(sys.executable), Path(comfyui), Path(base), cpu=True)
            server.start()
        try:
            made = asyncio.run(_make(options, server.url, stages))
        except UsageError:
            raise
        except (DevError, aiohttp.ClientError) as error:
            log = out / "vdot_demo_server.log"
            shutil.copyfile(server.log, log)
            print(f"\nComfyUI's log: {log}", file=sys.stderr)
            if isinstance(error, DevError):
                raise
            raise DevError(f"ComfyUI stopped answering ({error}); it may have run out of memory") from error
        finally:
            server.stop()
    with stages.measure("contact sheet"):
        video = out / f"{options.workflow.stem}{made.suffix}"
        video.write_bytes(made.video)
        sheet = video.with_name(f"{options.workflow.stem}_sheet.png")
        draw_sheet(options, made).save(sheet)
    print(closing_words(options, video, sheet, made.frames, stages))


def checked(options: DemoOptions) -> DemoOptions:
    """Read every input file once, and choose a size and length that the bundled model can do.

    Raises:
        DevError: a file cannot be decoded.
    """
    for image in options.images:
        probe_image(Path(image), "--image")
    if options.mask:
        probe_image(Path(options.mask), "--mask")
    if not options.video:
        return options
    clip = probe_video(Path(options.video), "--video")
    size = options.size or fitting_size(clip, DEMO_AREA)
    num_frames = options.num_frames or min(DEMO_FRAMES, (clip.num_frames - 1) // 4 * 4 + 1)
    print(
        f"[demo] the clip has {clip.width}x{clip.height} pixels and {clip.num_frames} frames, "
        f"the video will have {size[0]}x{size[1]} and {num_frames} (--size and --frames change that)"
    )
    return replace(options, size=size, num_frames=num_frames)


async def _make(options: DemoOptions, url: str, stages: Stages) -> Made:
    async with ComfyClient(url) as client:
        with stages.measure("load and convert the workflow"):
            object_info = await client.object_info()
            workflow = json.loads(options.workflow.read_text(encoding="utf-8"))
            prompt = to_prompt(workflow, object_info)
            files = apply(prompt, object_info, options)
            await _upload(client, prompt, loaders(prompt, object_info), files)
        progress = Progress(prompt)
        with stages.measure("run the workflow"):
            outcome = await client.run(prompt, progress)
        progress.close()
        with stages.measure("collect pictures"):
            video, suffix = await _saved_video(client, outcome)
            frames = _decode(video, suffix)
            wanted = taps(prompt, object_info)
            tapped = await _tapped(client, prompt, wanted, spread(len(frames), NUM_COLUMNS))
    return Made(video, suffix, wanted, tapped, frames, prompt)


async def _upload(client: ComfyClient, prompt: dict, found: list[Loader], files: dict[Loader, str]) -> None:
    """Send the user's files, and for every other loader the example that its workflow names."""
    for loader in found:
        inputs = prompt[loader.node_id]["inputs"]
        if loader in files:
            inputs[loader.input_name] = await client.upload(Path(files[loader]))
            continue
        name = str(inputs[loader.input_name])
        example = EXAMPLES / Path(name).name
        if not example.is_file():
            raise DevError(
                f"the workflow reads {name}, which is not among the examples: give a {loader.role}"
            )
        inputs[loader.input_name] = await client.upload(example, name)


async def _saved_video(client: ComfyClient, outcome: Outcome) -> tuple[bytes, str]:
    for _, item in outcome.files():
        suffix = Path(item["filename"]).suffix.lower()
        if suffix in VIDEO_SUFFIXES and item.get("type") == "output":
            return await client.download(item), suffix
    raise DevError("the workflow saved no video: it needs a Save Video node")


def _decode(video: bytes, suffix: str) -> list[Image.Image]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"video{suffix}"
        path.write_bytes(video)
        return read_frames(path)


async def _tapped(
    client: ComfyClient, prompt: dict, wanted: list[Tap], indices: list[int]
) -> dict[tuple[int, int], Image.Image]:
    """The pictures that entered the task nodes, by (tap, column)."""
    if not wanted:
        return {}
    extended, places = tap_prompt(prompt, wanted, indices)
    outcome = await client.run(extended)
    return {
        places[node_id]: Image.open(io.BytesIO(await client.download(item)))
        for node_id, item in outcome.files()
        if node_id in places
    }


def draw_sheet(options: DemoOptions, made: Made) -> Image.Image:
    """The contact sheet: what went in, the mask, the result."""
    indices = spread(len(made.frames), NUM_COLUMNS)
    size = made.frames[0].size
    rows = [
        _row(tap, number, made.tapped, len(indices))
        for kind in ("IMAGE", "MASK")
        for number, tap in enumerate(made.taps)
        if tap.kind == kind
    ]
    kinds = {tap.kind for tap in made.taps}
    if "IMAGE" not in kinds:
        rows.insert(0, Row("Input", "none: the text alone", [Image.new("RGB", size, GREY)] * len(indices)))
    if "MASK" not in kinds:
        everything = Row(
            "Mask", "all white: all of it is made", [Image.new("RGB", size, WHITE)] * len(indices)
        )
        rows.append(everything)
    rows.append(Row("Result", "four steps", [made.frames[i] for i in indices]))
    text = next(
        (str(n["inputs"]["text"]) for n in made.prompt.values() if str(n["inputs"].get("text") or "")), ""
    )
    seed = next((n["inputs"]["seed"] for n in made.prompt.values() if "seed" in n["inputs"]), "-")
    return contact_sheet(
        rows,
        [f"frame {i}" for i in indices],
        title=f"{options.task.capitalize()}: {text}",
        subtitle=f"{size[0]} x {size[1]} pixels, {len(made.frames)} frames, seed {seed}",
        footer="Made by the bundled model: a first, tiny one that knows moving shapes.",
    )


def _row(tap: Tap, number: int, tapped: dict, num_columns: int) -> Row:
    notes = {"depth": "near is bright", "mask": "white is made anew", "region": "where the control speaks"}
    pictures = [tapped.get((number, column)) for column in range(num_columns)]
    return Row(tap.label.replace("_", " ").capitalize(), notes.get(tap.label, "what goes in"), pictures)
