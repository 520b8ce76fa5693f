"""The demo's last words: what they advise works, and does what it says."""

import json
import shlex
from pathlib import Path

from PIL import Image

from devtools.demo.options import DemoOptions, parse, tasks
from devtools.demo.report import Stages, closing_words


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
            nodes = json.loads(options.workflow.read_text(encoding="utf-8"))["nodes"]
            assert not [node["type"] for node in nodes if node["type"].startswith(("LoadVideo", "LoadImage"))]
