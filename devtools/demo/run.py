"""Runs the demo: from options to a video and a contact sheet."""

import asyncio
import io
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from PIL import Image

from devtools.demo.annotators import fit_pens, with_annotators
from devtools.demo.client import ComfyClient, Outcome
from devtools.demo.convert import to_prompt
from devtools.demo.graph import apply, final_units, region_nodes, tap_prompt
from devtools.demo.loaders import assign, loaders, mask_people
from devtools.demo.media import Clip, read_frames, spread
from devtools.demo.options import PEOPLE, PREFIX, DemoOptions
from devtools.demo.report import Progress, Stages, closing_words, node_notes
from devtools.demo.sheet import Row, contact_sheet
from devtools.demo.upload import fitted, inspect_files, send
from devtools.errors import DevError, UsageError
from devtools.server import ComfyServer
from vdot_core.pictures import read_picture

TAP_NODE = Path(__file__).with_name("tap_node.py")
NUM_COLUMNS = 6
VIDEO_SUFFIXES = (".mp4", ".webm", ".mov", ".mkv")


@dataclass(frozen=True)
class UnitPreview:
    """A unit's inputs to the model: frames and masks at the shown moments, and all references."""

    frames: list[Image.Image]
    masks: list[Image.Image]
    references: list[Image.Image]


@dataclass(frozen=True)
class DemoResult:
    """The server's results: the video's bytes and suffix, and the pictures for the sheet."""

    video: bytes
    suffix: str
    frames: list[Image.Image]
    previews: list[UnitPreview]
    prompt: dict


def run_demo(options: DemoOptions, comfyui: str, setup_seconds: float) -> None:
    """Start ComfyUI, run the task's workflow, write the video and the sheet, and print their paths.

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
    options = with_annotators(options)
    out = Path(options.out)
    with tempfile.TemporaryDirectory(prefix="vdot-demo-") as base:
        with stages.measure("start ComfyUI"):
            server = ComfyServer(Path(sys.executable), Path(comfyui), Path(base), cpu=True)
            shutil.copy(TAP_NODE, Path(base) / "custom_nodes" / "vdot_demo_tap.py")
            server.start()
        try:
            result = asyncio.run(_make(options, clips, server.url, stages))
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
        video = out / f"{PREFIX}{options.task}{result.suffix}"
        video.write_bytes(result.video)
        sheet = video.with_name(f"{PREFIX}{options.task}_sheet.png")
        draw_sheet(options, result).save(sheet)
    print(closing_words(options, video, sheet, result.frames, stages))


async def _make(options: DemoOptions, clips: dict[str, Clip], url: str, stages: Stages) -> DemoResult:
    async with ComfyClient(url) as client:
        with stages.measure("load and convert the workflow"):
            object_info = await client.object_info()
            prompt = to_prompt(options.read_workflow(), object_info)
            if options.mask == PEOPLE:
                options = mask_people(prompt, object_info, options)
            files = assign(loaders(prompt, object_info), options)
            what = "region" if region_nodes(prompt, object_info) else "video"
            options = fitted(options, files, clips, what=what)
            apply(prompt, object_info, options)
            fit_pens(prompt, options)
            await send(client, prompt, object_info, options, files, clips)
        progress = Progress(prompt)
        with stages.measure("run the workflow"):
            outcome = await client.run(prompt, progress)
        progress.close()
        if notes := node_notes(prompt, outcome.outputs):
            print(notes, flush=True)
        with stages.measure("collect pictures"):
            video, suffix = await _saved_video(client, outcome)
            frames = _decode(video, suffix)
            units = final_units(prompt, object_info)
            previews = await _previews(client, prompt, units, spread(len(frames), NUM_COLUMNS))
    return DemoResult(video, suffix, frames, previews, prompt)


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


async def _previews(
    client: ComfyClient, prompt: dict, units: list[tuple[str, int]], indices: list[int]
) -> list[UnitPreview]:
    """Each unit's frames at some moments, by a second prompt without any model."""
    outcome = await client.run(tap_prompt(prompt, units, indices))

    async def pictures(node_id: str, name: str) -> list[Image.Image]:
        items = outcome.outputs[node_id].get(name) or []
        return [Image.fromarray(read_picture(io.BytesIO(await client.download(item)))) for item in items]

    previews = []
    for number in range(len(units)):
        kinds = [await pictures(f"tap{number}", name) for name in ("frames", "masks", "references")]
        previews.append(UnitPreview(*kinds))
    return previews


def draw_sheet(options: DemoOptions, result: DemoResult) -> Image.Image:
    """Draw the contact sheet: inputs, masks, references, result."""
    indices = spread(len(result.frames), NUM_COLUMNS)
    size = result.frames[0].size
    rows = []
    for number, preview in enumerate(result.previews):
        rows += _preview_rows(preview, f" {number + 1}" if len(result.previews) > 1 else "", len(indices))
    rows.append(Row("Result", "four steps", [result.frames[i] for i in indices]))
    texts = (str(node["inputs"].get("text") or "") for node in result.prompt.values())
    seeds = (node["inputs"]["seed"] for node in result.prompt.values() if "seed" in node["inputs"])
    return contact_sheet(
        rows,
        [f"frame {i}" for i in indices],
        title=f"{options.task.replace('_', ' ').capitalize()}: {next(filter(None, texts), '')}",
        subtitle=f"{size[0]} x {size[1]} pixels, {len(result.frames)} frames, seed {next(seeds, '-')}",
        footer="Made by the bundled model: a tiny one that knows moving shapes.",
    )


def _preview_rows(preview: UnitPreview, number: str, num_columns: int) -> list[Row]:
    """Rows of input and mask, then rows of references."""
    rows = [
        Row(f"Input{number}", "input to the model", preview.frames),
        Row(f"Mask{number}", "white: generate, black: keep", preview.masks),
    ]
    for start in range(0, len(preview.references), num_columns):
        pictures = preview.references[start : start + num_columns]
        empty = [None] * (num_columns - len(pictures))
        rows.append(Row(f"Reference{number}", "subjects to show", [*pictures, *empty]))
    return rows
