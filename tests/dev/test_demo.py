"""The demo against the real ComfyUI: its templates convert, a user's clip becomes a video and a sheet."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from devtools.demo.client import ComfyClient
from devtools.demo.convert import to_prompt
from devtools.demo.flags import parse
from devtools.demo.media import Clip, probe_video
from devtools.errors import DevError
from tests.dev.test_sheet import picture, write_video

ROOT = Path(__file__).resolve().parents[2]
CHECKS = {"INT": int, "FLOAT": (int, float), "BOOLEAN": bool, "STRING": str}


def run(server, prompt):
    async def ask():
        async with ComfyClient(server.url) as client:
            return await client.run(prompt)

    return asyncio.run(ask())


def test_the_templates_that_comfyui_ships_convert(object_info):
    """Hundreds of real workflows: every widget gets a value of its type, so none has slipped by a place."""
    package = pytest.importorskip("comfyui_workflow_templates_json")
    num_converted = 0
    for path in sorted(Path(package.__file__).parent.rglob("*.json")):
        workflow = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(workflow, dict) or "nodes" not in workflow:
            continue
        try:
            prompt = to_prompt(workflow, object_info)
        except DevError:
            continue  # uses subgraphs, or nodes that are switched off here
        num_converted += 1
        for node_id, node in prompt.items():
            specs = object_info[node["class_type"]]["input"]
            for name, spec in {**specs.get("required", {}), **specs.get("optional", {})}.items():
                value = node["inputs"].get(name)
                if value is None or isinstance(value, (list, dict)) or not isinstance(spec[0], str):
                    continue
                kind = CHECKS.get(spec[0], object)
                assert isinstance(value, kind), (
                    f"{path.name}: node {node_id} {node['class_type']}.{name} is {value!r}"
                )
    assert num_converted >= 20


def test_a_refused_prompt_names_the_node(server, object_info):
    prompt = {"1": {"class_type": "LoadImage", "inputs": {"image": "no_such.png"}, "_meta": {"title": "x"}}}
    prompt["2"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}, "_meta": {"title": "y"}}
    with pytest.raises(DevError, match=r"(?s)refused the workflow.*LoadImage \(1\).*no_such"):
        run(server, prompt)


def test_a_partly_refused_prompt_is_not_taken_for_a_success(server):
    """ComfyUI answers 200 and leaves out the bad part."""
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        "3": {"class_type": "PreviewImage", "inputs": {}},
    }
    with pytest.raises(DevError, match=r"PreviewImage \(3\)"):
        run(server, prompt)


def test_uploads_with_folders_come_back_as_they_were_sent(server, tmp_path):
    path = tmp_path / "a picture.png"
    picture((1, 2, 3)).save(path)

    async def there_and_back():
        async with ComfyClient(server.url) as client:
            name = await client.upload(path, "some folder/b.png")
            folder, _, file_name = name.rpartition("/")
            return name, await client.download({"filename": file_name, "subfolder": folder, "type": "input"})

    name, data = asyncio.run(there_and_back())
    assert name == "some folder/b.png" and data == path.read_bytes()


def test_the_demo_makes_a_video_and_a_sheet_from_a_users_clip(comfyui, tmp_path):
    """As `dev.py demo` runs it, from its options to its files; with sizes that do not fit by themselves."""
    clip = write_video(tmp_path / "clip.mp4", 23, (208, 120))
    mask = tmp_path / "mask.png"
    picture((0, 0, 0), (100, 60)).save(mask)
    arguments = ["--task", "inpaint", "--video", str(clip), "--mask", str(mask), "--prompt", "a green circle"]
    options = parse([*arguments, "--frames", "9", "--seed", "7", "--out", str(tmp_path / "out")])
    environment = {**os.environ, "VDOT_DEMO_COMFYUI": str(comfyui), "VDOT_DEMO_SETUP": "0"}
    command = [sys.executable, "-m", "devtools.demo", options.to_json()]
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stdout + process.stderr
    video, sheet = tmp_path / "out/vdot_inpaint.mp4", tmp_path / "out/vdot_inpaint_sheet.png"
    assert probe_video(video, "") == Clip(192, 112, 9)
    for words in (str(video), str(sheet), "start ComfyUI", "208x120", "model is tiny", "VDOT Encode: "):
        assert words in process.stdout
    with Image.open(sheet) as image:
        # The clip's frames get redder by 8 a frame: the upper row shows them in order, and the mask is black.
        image = image.convert("RGB")
        columns = [190 + 330 * i for i in range(6)]
        reds = [image.getpixel((min(x + 100, image.width - 60), 240))[0] for x in columns]
    assert reds == sorted(reds) and reds[-1] > reds[0]
