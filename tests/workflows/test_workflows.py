"""The bundled workflows: complete, laid out, as their script writes them, run to a video by a real server.

`python dev.py test --full` runs every one of them, and every task that is a workflow with optional groups
switched, instead of a few.
"""

import json
import re
import uuid
from collections.abc import Sequence

import av
import numpy as np
import pytest
from PIL import Image

from devtools.demo import convert, titles
from devtools.demo.options import names, read_workflow, tasks, workflow_file
from devtools.demo.titles import TITLES
from tests.support.annotators import skip_task_without
from tests.support.comfy import ROOT, comfyui_path
from tests.workflows.layout import PART_COLOR, STAGES
from tests.workflows.make_workflows import TABLE, files
from tests.workflows.prompts import FRONTEND_ONLY, to_prompt
from tiny.clips import render_examples

ALL_TASKS = [name for name in names() if name.startswith("vdot_")]
WORKFLOWS = [workflow_file(name) for name in TITLES if name.startswith("vdot_")]
NATIVE = [
    workflow_file(name) for name in TITLES if name.startswith("native_")
]  # test_native.py has more of them
EXAMPLES = ROOT / "assets/examples"
STUDENT = ROOT / "assets/vdot_tiny_student.safetensors"
TASKS = {
    *("text", "depth", "pose", "flow", "gray", "scribble", "layout", "inpaint", "outpaint", "reference"),
    *("firstframe", "lastframe", "firstlast", "extend", "keyframes", "swap", "tryon", "removal", "animate"),
    *("reference_depth", "reference_pose", "reference_firstframe", "expand", "move", "crop"),
    *("reference_flow", "reference_gray", "reference_scribble", "reference_inpaint", "reference_outpaint"),
    *("face", "face_pose", "replace", "long", "long_extend", "long_replace"),
}
# One of each way of saying something: nothing, a control, a mask with a reference, boxes, pictures in time.
REPRESENTATIVE = {"text", "depth", "swap", "layout_track", "keyframes", "reference_pose", "face", "crop"}
FOLLOWS = {"text", "outpaint", "crop"}  # --full: all
LONG_FRAMES = {"long": 65, "long_extend": 325, "long_replace": 65}  # others have 17
BLUEPRINTS = sorted((ROOT / "subgraphs").iterdir())
NATIVE_TAIL = {"VAEDecode", "CreateVideo", "SaveVideo"}


def name_of(path) -> str:
    return titles.name_of(path.stem).removeprefix("vdot_")


def rare_but(names: set[str]) -> list:
    """All tasks, of which only those named run without --full."""
    tasks = [name.removeprefix("vdot_") for name in ALL_TASKS]
    return [pytest.param(task, marks=() if task in names else pytest.mark.full) for task in tasks]


def load(path) -> dict:
    return json.loads(path.read_text())


def test_every_workflow_has_its_picture():
    folder = ROOT / "workflows"
    assert {path.stem for path in folder.glob("*.jpg")} == {path.stem for path in WORKFLOWS + NATIVE}
    assert {path.suffix for path in folder.iterdir()} == {".json", ".jpg"}


def test_every_task_has_a_workflow():
    assert set(tasks()) >= TASKS
    assert set(tasks()) >= REPRESENTATIVE | FOLLOWS
    assert {name_of(path) for path in WORKFLOWS} <= set(tasks())


def test_every_optional_group_is_some_task_s():
    """So that each of them runs, switched on or off."""
    for path in WORKFLOWS + NATIVE:
        file = load(path)
        groups = [group for group in file["groups"] if group["title"].startswith("Optional: ")]
        switched = set()
        for name in names():
            if workflow_file(name) == path:
                pairs = zip(file["nodes"], read_workflow(name)["nodes"], strict=True)
                switched |= {old["id"] for old, new in pairs if old["mode"] != new["mode"]}
        for group in groups:
            members = [node["id"] for node in file["nodes"] if lies_in(node, group)]
            assert members and switched >= set(members), (path.stem, group["title"])
            for node in file["nodes"]:
                if node["id"] in members:
                    assert node["mode"] in (0, 4)


def lies_in(node: dict, group: dict) -> bool:
    """True if the group's frame is around the node."""
    (x, y), (width, height) = node["pos"], node["size"]
    left, top, total, high = group["bounding"]
    return left <= x and x + width <= left + total and top <= y and y + height <= top + high


def test_ids_are_uuids_and_no_two_files_have_the_same():
    """The schema of ComfyUI's page takes no other id."""
    ids = [load(path)["id"] for path in WORKFLOWS + NATIVE]
    assert [str(uuid.UUID(id_)) for id_ in ids] == ids
    assert len(set(ids)) == len(ids)


def test_the_files_are_what_their_script_writes():
    contents = files()
    paths = [path.relative_to(ROOT).as_posix() for path in (*WORKFLOWS, *NATIVE, *BLUEPRINTS)]
    assert set(contents) == {*paths, TABLE}
    different = [path for path, text in contents.items() if (ROOT / path).read_text("utf-8") != text]
    assert not different, "bring them up to date: python -m tests.workflows.make_workflows"


@pytest.mark.parametrize("name", names())
def test_the_demo_converts_them_equally(name, info):
    """Two independent converters."""
    workflow = read_workflow(name)
    theirs = {key: node["inputs"] for key, node in convert.to_prompt(workflow, info).items()}
    assert theirs == {key: node["inputs"] for key, node in to_prompt(workflow, info).items()}


@pytest.mark.parametrize("name", names())
def test_every_input_file_is_an_example(name):
    loaders = ("VDOTLoadClip", "LoadImage", "LoadImageMask")
    files = [node["widgets_values"][0] for node in read_workflow(name)["nodes"] if node["type"] in loaders]
    assert all((EXAMPLES / file).is_file() for file in files)


@pytest.mark.parametrize("name", names())
def test_the_page_gets_every_task_by_its_name(name, server):
    """For ?template=NAME&source=ComfyUI-VDOT: of titles, which have spaces, it takes none."""
    assert server.get(f"/api/workflow_templates/ComfyUI-VDOT/{name}.json") == read_workflow(name)


@pytest.mark.parametrize("path", WORKFLOWS + NATIVE, ids=name_of)
def test_every_node_matches_the_server(path, info):
    workflow = load(path)
    types = {node["type"] for node in workflow["nodes"]}
    is_long = name_of(path) in LONG_FRAMES
    sampling = {"VDOTLongVideo"} if is_long else {"VDOTEncode", "VDOTSampler", *NATIVE_TAIL}
    assert {"VDOTLoad", "CLIPTextEncode", "MarkdownNote", *sampling} <= types
    assert types - FRONTEND_ONLY <= set(info), "nodes that a bare ComfyUI with this pack does not have"
    outputs = {node["id"]: node["outputs"] for node in workflow["nodes"]}
    for link_id, source, slot, target, place, kind in workflow["links"]:
        assert outputs[source][slot]["type"] == kind and link_id in outputs[source][slot]["links"]
        node = next(node for node in workflow["nodes"] if node["id"] == target)
        assert node["inputs"][place]["link"] == link_id and node["inputs"][place]["type"] == kind
    for node in workflow["nodes"]:
        if node["type"] not in FRONTEND_ONLY:
            kinds = [output["type"] for output in node["outputs"]]
            assert kinds == info[node["type"]]["output"], node["type"]
            entry = info[node["type"]]["input"]
            names = {*entry.get("required", {}), *entry.get("optional", {})}
            assert {i["name"].split(".")[0] for i in node["inputs"]} <= names, node["type"]


@pytest.mark.parametrize("path", WORKFLOWS + NATIVE, ids=name_of)
def test_layout_has_no_overlaps_and_groups_hold_everything(path):
    workflow = load(path)
    boxes = [(node["id"], *node["pos"], *node["size"]) for node in workflow["nodes"]]
    for index, (a, x, y, w, h) in enumerate(boxes):
        for b, x2, y2, w2, h2 in boxes[index + 1 :]:
            title = 30
            apart = x + w <= x2 or x2 + w2 <= x or y + h <= y2 - title or y2 + h2 <= y - title
            assert apart, f"nodes {a} and {b} overlap"
    for node in workflow["nodes"]:
        if node["type"] in FRONTEND_ONLY:
            continue
        inside = [group["title"] for group in workflow["groups"] if lies_in(node, group)]
        assert len(inside) == 1, node["type"]


@pytest.mark.parametrize("path", WORKFLOWS + NATIVE, ids=name_of)
def test_graphs_are_two_rows_of_at_most_2100_pixels(path):
    places = [group["bounding"] for group in load(path)["groups"]]
    assert max(x + width for x, _, width, _ in places) - min(place[0] for place in places) <= 2100
    assert len({place[1] for place in places}) <= 2


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_note_tells_how_to_use_the_large_model(path):
    notes = [node for node in load(path)["nodes"] if node["type"] == "MarkdownNote"]
    text = notes[0]["widgets_values"][0]
    titles = [group["title"] for group in load(path)["groups"]]
    for title in titles:
        if title.startswith("Optional: "):
            assert f"- **{title.removeprefix('Optional: ')}**: " in text
    for word in ("VDOT Load", "vdot_14b.pt", "umt5_xxl", "wan_2.1_vae", "832 x 480"):
        assert word in text


@pytest.mark.parametrize("path", [path for path in WORKFLOWS if "gray" in name_of(path)], ids=name_of)
def test_gray_is_what_the_bundled_model_was_trained_on(path):
    """By the size, which says it of every model."""
    (gray,) = (node for node in load(path)["nodes"] if node["type"] == "VDOTGray")
    size = next(entry for entry in gray["inputs"] if entry["name"] == "size")
    assert gray["widgets_values"] == ["auto"] and size["link"] is not None


def test_examples_are_small():
    sizes = [file.stat().st_size for file in EXAMPLES.iterdir()]
    assert max(sizes) < 60_000 and sum(sizes) < 600_000


def decoded(path) -> np.ndarray:
    if path.suffix == ".png":
        return np.asarray(Image.open(path))[None].astype(float)
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(
            float
        )


def test_examples_are_what_their_script_draws(tmp_path):
    render_examples.render(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in EXAMPLES.iterdir()}
    for file in tmp_path.iterdir():
        # The encoder's edge pixels differ slightly between runs.
        least = 0 if file.suffix == ".png" else 2
        assert np.abs(decoded(file) - decoded(EXAMPLES / file.name)).mean() <= least, file.name


@pytest.mark.parametrize("task", rare_but(REPRESENTATIVE))
def test_runs_to_a_video(task, server, info):
    skip_task_without(task)
    prompt = to_prompt(read_workflow(f"vdot_{task}"), info)
    num_frames = LONG_FRAMES.get(task, 17)
    run = server.run(prompt, timeout_s=240 + 2 * num_frames)
    assert run.status == "success", run.error
    saved = [item for output in run.outputs.values() for item in (output or {}).get("images", [])]
    (video,) = [item for item in saved if item["type"] == "output"]
    file = server.base / "output" / video["subfolder"] / video["filename"]
    with av.open(str(file)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert float(container.streams.video[0].average_rate) == 16
    assert len(frames) == num_frames and frames[0].shape == (64, 64, 3)
    spread = max(frame.std() for frame in frames)
    assert spread > 5, spread
    chunks = -(-(len(frames) - 5) // 12)
    assert len(run.of_type("vdot.preview")) == 4 * chunks


@pytest.mark.parametrize("task", rare_but(FOLLOWS))
def test_size_and_length_follow_vdot_load_alone(task, server, info):
    """Another class in its menu, as of the 14B model: no number of the workflow keeps the demo's size."""
    skip_task_without(task)
    prompt = to_prompt(read_workflow(f"vdot_{task}"), info)
    kinds = {key: node["class_type"] for key, node in prompt.items()}
    encoded = [key for key in prompt if kinds[key] in ("VDOTEncode", "VDOTLongVideo")]
    (source,) = (prompt[key]["inputs"]["unit"] for key in encoded)
    prompt["shown"] = {"class_type": "VDOTPreviewUnit", "inputs": {"unit": source, "columns": 5}}
    for key, kind in kinds.items():
        if kind == "VDOTLoad":
            prompt[key]["inputs"]["size_class"] = "480p"
        if kind in ("SaveVideo", "CreateVideo", "VDOTLongVideo"):
            del prompt[key]
    run = server.run(prompt)
    assert run.status == "success", run.error
    shown = run.outputs[source[0]]["text"][0]
    width, height, num_frames = map(int, re.search(r"(\d+)x(\d+), (\d+) frames", shown).groups())
    assert 0.8 * 832 * 480 < width * height <= 832 * 480
    assert num_frames % 4 == 1 and 17 <= num_frames <= max(81, LONG_FRAMES.get(task, 0))


def test_no_copy_of_comfyui_s_templates():
    for folder in ("example_workflows", "templates"):
        assert not (ROOT / folder).exists(), "one template folder only, or ComfyUI lists each twice"
    assert comfyui_path()


# ComfyUI's canvas, dark and light; it fills a group's head twice with a quarter of the title's color.
CANVASES = (0x18, 0xD3)
HEAD_ALPHA = 0.4375


def luminance(color: Sequence[float]) -> float:
    """Relative luminance of 8-bit sRGB, as WCAG defines it."""
    linear = [((side / 255 + 0.055) / 1.055) ** 2.4 for side in color]
    return sum(weight * side for weight, side in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("color", [PART_COLOR, *(color for _, color, *_ in STAGES)])
def test_titles_of_groups_are_as_legible_in_the_light_theme_as_in_the_dark(color):
    """No color has a contrast above 2.2 in both."""
    title = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    for canvas in CANVASES:
        head = [HEAD_ALPHA * side + (1 - HEAD_ALPHA) * canvas for side in title]
        low, high = sorted([luminance(title), luminance(head)])
        assert (high + 0.05) / (low + 0.05) > 2
