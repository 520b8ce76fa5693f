"""The workflows with ComfyUI's own detectors: the server finds nothing wrong but the model files it lacks."""

import pytest

from devtools.demo.flags import parse
from devtools.demo.options import names, read_workflow
from devtools.errors import DevError
from tests.support.server import PromptRefusedError
from tests.workflows.native_tasks import NATIVE, URLS, WAN_CHOICES, WAN_FOLDERS
from tests.workflows.prompts import to_prompt

NAMES = [name for name in names() if name.startswith("native_")]
FILES = {
    "CheckpointLoaderSimple": "ckpt_name",
    "UNETLoader": "unet_name",
    "LoadDA3Model": "model_name",
}
FOLDERS = {
    "CheckpointLoaderSimple": "checkpoints",
    "UNETLoader": "diffusion_models",
    "LoadDA3Model": "geometry_estimation",
}


@pytest.fixture(params=NAMES)
def workflow(request):
    return read_workflow(request.param)


def test_there_is_one_for_each_detector():
    assert {name.removeprefix("native_") for name in NAMES} >= {task.__name__ for task in NATIVE}
    used = {node["type"] for name in NAMES for node in read_workflow(name)["nodes"]}
    assert {"DA3Inference", "SDPoseKeypointExtractor", "SAM3_VideoTrack", "RTDETR_detect"} <= used


def refusal(server, prompt: dict) -> dict:
    """(node type, input) -> kind of error, by the server's own check of the graph."""
    with pytest.raises(PromptRefusedError) as caught:
        server.post("/prompt", {"prompt": prompt})
    return {
        (prompt[node]["class_type"], error["extra_info"]["input_name"]): error["type"]
        for node, entry in caught.value.answer["node_errors"].items()
        for error in entry["errors"]
    }


def test_only_model_files_are_missing(workflow, server, info):
    """Types, required inputs, ranges and all other choices pass."""
    prompt = to_prompt(workflow, info)
    errors = refusal(server, prompt)
    loaders = {node["class_type"] for node in prompt.values()} & set(FILES)
    others = {("VDOTLoad", menu): "custom_validation_failed" for menu in WAN_CHOICES}
    assert errors == {(loader, FILES[loader]): "value_not_in_list" for loader in loaders} | others


def test_the_check_sees_a_wrong_link_and_a_wrong_value(server, info):
    prompt = to_prompt(read_workflow("native_depth_anything"), info)
    by_type = {node["class_type"]: key for key, node in prompt.items()}
    prompt[by_type["DA3Render"]]["inputs"]["output.normalization"] = "near_white"
    assert refusal(server, prompt)["DA3Render", "output.normalization"] == "value_not_in_list"
    prompt[by_type["VDOTNormalizeDepth"]]["inputs"]["depth"] = [by_type["DA3Inference"], 0]
    assert refusal(server, prompt)["VDOTNormalizeDepth", "depth"] == "return_type_mismatch"


def test_the_note_names_every_file_and_its_folder(workflow):
    text = workflow["nodes"][0]["widgets_values"][0]
    for node in workflow["nodes"]:
        if node["type"] in FILES:
            file = node["widgets_values"][0]
            assert f"| {file} | models/{FOLDERS[node['type']]} |" in text, node["type"]
    for menu, file in WAN_CHOICES.items():
        assert f"| {file} | models/{WAN_FOLDERS[menu]} |" in text


def test_missing_files_are_those_that_the_menus_name(workflow):
    """ComfyUI's dialog of missing models compares names with the values of widgets."""
    for node in workflow["nodes"]:
        for model in node["properties"].get("models", []):
            assert model["name"] in node["widgets_values"] and model["url"].endswith("/" + model["name"])
            assert f"/{model['directory']}/" in model["url"] and model["url"] in URLS
    (load,) = (node for node in workflow["nodes"] if node["type"] == "VDOTLoad")
    assert len(load["properties"]["models"]) == 2  # its dialog takes no pickle such as the .pt file


@pytest.mark.parametrize("name", NAMES)
def test_the_demo_says_why_it_cannot_run_it(name):
    with pytest.raises(DevError, match=r"needs model files .* workflows/\d\d .*\.json"):
        parse(["--task", name.removeprefix("native_")])
