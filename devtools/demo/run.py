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
from devtools.demo.graph import Loader, apply, final_units, loaders, tap_prompt
from devtools.demo.media import Clip, fitting_size, probe_image, probe_video, read_frames, scaled_mask, spread
from devtools.demo.options import DemoOptions
from devtools.demo.report import Progress, Stages, closing_words
from devtools.demo.sheet import Row, contact_sheet
from devtools.errors import DevError, UsageError
from devtools.paths import ROOT
from devtools.server import ComfyServer

EXAMPLES = ROOT / "assets" / "examples"
TAP_NODE = Path(__file__).with_name("tap_node.py")
NUM_COLUMNS = 6
# Pixels of a real clip's frame: more than the bundled model was trained on, so that it stays recognisable.
DEMO_AREA = 128 * 128
DEMO_FRAMES = 17
VIDEO_SUFFIXES = (".mp4", ".webm", ".mov", ".mkv")


@dataclass(frozen=True)
class Told:
    """What the model was told by one unit: pictures of the shown moments, and all references."""

    frames: list[Image.Image]
    masks: list[Image.Image]
    references: list[Image.Image]


@dataclass(frozen=True)
class Made:
    """What the server made: the video's bytes and file name, and the pictures for the sheet."""

    video: bytes
    suffix: str
    frames: list[Image.Image]
    told: list[Told]
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
            shutil.copy(TAP_NODE, Path(base) / "custom_nodes" / "vdot_demo_tap.py")
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
            units = final_units(prompt, object_info)
            told = await _told(client, prompt, units, spread(len(frames), NUM_COLUMNS))
    return Made(video, suffix, frames, told, prompt)


async def _upload(client: ComfyClient, prompt: dict, found: list[Loader], files: dict[Loader, str]) -> None:
    """Send the user's files, and for every other loader the example that its workflow names."""
    paths = {loader: _file_of(loader, prompt, files) for loader in found}
    clips = [path for loader, path in paths.items() if loader.role == "video"]
    with tempfile.TemporaryDirectory() as scratch:
        for loader, path in paths.items():
            if loader.role == "mask" and clips:
                path = _mask_for(path, probe_video(clips[0], "--video"), Path(scratch))
            prompt[loader.node_id]["inputs"][loader.input_name] = await client.upload(path)


def _file_of(loader: Loader, prompt: dict, files: dict[Loader, str]) -> Path:
    if loader in files:
        return Path(files[loader])
    name = str(prompt[loader.node_id]["inputs"][loader.input_name])
    example = EXAMPLES / Path(name).name
    if not example.is_file():
        raise UsageError(f"the workflow reads {name}, which is not among the examples: give a {loader.role}")
    return example


def _mask_for(mask: Path, clip: Clip, scratch: Path) -> Path:
    size = probe_image(mask, "--mask")
    if size == (clip.width, clip.height):
        return mask
    print(f"[demo] the mask is stretched from {size[0]}x{size[1]} to the clip's {clip.width}x{clip.height}")
    return scaled_mask(mask, (clip.width, clip.height), scratch)


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


async def _told(
    client: ComfyClient, prompt: dict, units: list[tuple[str, int]], indices: list[int]
) -> list[Told]:
    """What each unit says at some moments, by a second prompt without any model."""
    outcome = await client.run(tap_prompt(prompt, units, indices))

    async def pictures(node_id: str, name: str) -> list[Image.Image]:
        items = outcome.outputs[node_id].get(name) or []
        return [Image.open(io.BytesIO(await client.download(item))) for item in items]

    told = []
    for number in range(len(units)):
        kinds = [await pictures(f"tap{number}", name) for name in ("frames", "masks", "references")]
        told.append(Told(*kinds))
    return told


def draw_sheet(options: DemoOptions, made: Made) -> Image.Image:
    """The contact sheet: what went in, the mask, the references, the result."""
    indices = spread(len(made.frames), NUM_COLUMNS)
    size = made.frames[0].size
    rows = []
    for number, told in enumerate(made.told):
        rows += _told_rows(told, f" {number + 1}" if len(made.told) > 1 else "", len(indices))
    rows.append(Row("Result", "four steps", [made.frames[i] for i in indices]))
    texts = (str(node["inputs"].get("text") or "") for node in made.prompt.values())
    seeds = (node["inputs"]["seed"] for node in made.prompt.values() if "seed" in node["inputs"])
    return contact_sheet(
        rows,
        [f"frame {i}" for i in indices],
        title=f"{options.task.replace('_', ' ').capitalize()}: {next(filter(None, texts), '')}",
        subtitle=f"{size[0]} x {size[1]} pixels, {len(made.frames)} frames, seed {next(seeds, '-')}",
        footer="Made by the bundled model: a tiny one that knows moving shapes.",
    )


def _told_rows(told: Told, number: str, num_columns: int) -> list[Row]:
    """Input and mask, and the references in rows of their own."""
    rows = [
        Row(f"Input{number}", "what the model is given", told.frames),
        Row(f"Mask{number}", "white is made, black is kept", told.masks),
    ]
    for start in range(0, len(told.references), num_columns):
        pictures = told.references[start : start + num_columns]
        empty = [None] * (num_columns - len(pictures))
        rows.append(Row(f"Reference{number}", "what it shall look like", [*pictures, *empty]))
    return rows
