"""The pack in the ComfyUI of $COMFYUI_PATH, also older ones: `python dev.py test --host VERSION`."""

import pytest

from devtools.demo.options import workflow_file
from tests.support.pack import load_nodes
from tests.workflows.prompts import PLAIN_WIDGETS, to_prompt
from tests.workflows.test_workflows import load

pytestmark = pytest.mark.full


def num_widgets(inputs):
    entries = [*inputs.get("required", {}).values(), *inputs.get("optional", {}).values()]
    return sum(isinstance(entry[0], list) or entry[0] in PLAIN_WIDGETS for entry in entries)


def test_the_server_lists_every_node(info, comfy):
    assert load_nodes().keys() <= info.keys()


@pytest.mark.parametrize("name", ["depth", "inpaint", "reference"])
def test_a_workflow_saves_a_video(server, info, name):
    workflow = load(workflow_file(f"vdot_{name}"))
    for node in workflow["nodes"]:
        if node["type"] == "CreateVideo":  # older ones have fewer widgets; the page drops the rest
            node["widgets_values"] = node["widgets_values"][: num_widgets(info["CreateVideo"]["input"])]
    run = server.run(to_prompt(workflow, info))
    assert run.status == "success", run.error
    saved = [item for output in run.outputs.values() for item in output.get("images", [])]
    (video,) = [item for item in saved if item["type"] == "output"]
    assert (server.base / "output" / video["subfolder"] / video["filename"]).stat().st_size > 1000
