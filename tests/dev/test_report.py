"""The demo's last words: what they advise works, and does what it says."""

import shlex
from pathlib import Path

from PIL import Image

from devtools.demo.flags import parse
from devtools.demo.options import DemoOptions, tasks
from devtools.demo.report import Stages, closing_words, node_notes


def advised(task):
    words = closing_words(
        DemoOptions(task), Path("a.mp4"), Path("a.png"), [Image.new("RGB", (64, 48))] * 5, Stages()
    )
    lines = [shlex.split(line, comments=True) for line in words.splitlines() if "python dev.py demo" in line]
    return [parse(line[3:]) for line in lines]


def test_every_advised_command_is_accepted_and_another_task():
    for task in tasks():
        options = advised(task)
        assert len(options) == 2
        assert options[0].task != task


def test_an_advised_prompt_is_not_contradicted_by_an_example_clip():
    """An example's clip has its own motion; only without one does the text alone say what moves where."""
    for task in ("text", "depth", "inpaint"):
        with_prompt = [options for options in advised(task) if options.prompt]
        assert with_prompt
        for options in with_prompt:
            assert not options.uses_node("LoadVideo") and not options.uses_node("LoadImage")


def test_what_the_packs_nodes_say_is_repeated():
    """ComfyUI's own nodes show text too, and a node that says nothing has no line."""
    kinds = {"1": "VDOTReference", "2": "PreviewAny", "3": "VDOTSampler", "4": "VDOTEncode"}
    prompt = {i: {"class_type": kind, "_meta": {"title": f"{kind} node"}} for i, kind in kinds.items()}
    outputs = {
        "3": {"text": ["four steps", "17 frames"]},
        "2": {"text": ["else"]},
        "1": {"text": ["17 frames", "image0 lies on plain black"]},
        "4": {"images": [{"filename": "a.png"}]},
    }
    assert node_notes(prompt, outputs).splitlines() == [
        "[demo] VDOTReference node: 17 frames",
        "[demo] VDOTReference node: image0 lies on plain black",
        "[demo] VDOTSampler node: four steps",
    ]
    assert node_notes(prompt, {}) == ""
