"""The demo from its options to two files in the output folder."""

import asyncio
import io
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from PIL import Image

from devtools.demo.client import ComfyClient, Outcome
from devtools.demo.convert import to_prompt
from devtools.demo.graph import apply, final_units, region_nodes, tap_prompt
from devtools.demo.loaders import assign, loaders
from devtools.demo.media import Clip, read_frames, spread
from devtools.demo.options import DemoOptions
from devtools.demo.report import Progress, Stages, closing_words
from devtools.demo.sheet import Row, contact_sheet
from devtools.demo.upload import fitted, inspect_files, send
from devtools.errors import DevError, UsageError
from devtools.server import ComfyServer

TAP_NODE = Path(__file__).with_name("tap_node.py")
NUM_COLUMNS = 6
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
    clips = inspect_files(options)
    out = Path(options.out)
    with tempfile.TemporaryDirectory(prefix="vdot-demo-") as base:
        with stages.measure("start ComfyUI"):
            server = ComfyServer(Path(sys.executable), Path(comfyui), Path(base), cpu=True)
            shutil.copy(TAP_NODE, Path(base) / "custom_nodes" / "vdot_demo_tap.py")
            server.start()
        try:
            made = asyncio.run(_make(options, clips, server.url, stages))
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


async def _make(options: DemoOptions, clips: dict[str, Clip], url: str, stages: Stages) -> Made:
    async with ComfyClient(url) as client:
        with stages.measure("load and convert the workflow"):
            object_info = await client.object_info()
            workflow = json.loads(options.workflow.read_text(encoding="utf-8"))
            prompt = to_prompt(workflow, object_info)
            files = assign(loaders(prompt, object_info), options)
            what = "region" if region_nodes(prompt, object_info) else "video"
            options = fitted(options, files, clips, what=what)
            apply(prompt, object_info, options)
            await send(client, prompt, object_info, options, files, clips)
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
