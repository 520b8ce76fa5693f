"""Everything that leads to the demo's model names the sampler preset that the model was distilled for."""

import json
import re

import pytest
from safetensors import safe_open

from tests.support.comfy import ROOT
from tests.support.pack import submodule

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))


@pytest.fixture(scope="module")
def demo_preset(pack) -> str:
    """The preset whose steps, shift and solver the bundled model's file says it was trained with."""
    with safe_open(ROOT / "assets" / submodule("nodes.comfy_demo").MODEL_FILE, framework="pt") as file:
        schedule = file.metadata()["schedule"]
    steps, shift, solver = re.fullmatch(r"(\d+) steps, shift ([\d.]+), (\w+)", schedule).groups()
    sampling = submodule("vdot_core.sampling")
    expected = sampling.Schedule.shifted(int(steps), float(shift), labels="exact")
    (name,) = (
        name
        for name, (factory, used) in sampling.PRESETS.items()
        if used == solver and factory().sigmas.tolist() == expected.sigmas.tolist()
    )
    return name


@pytest.fixture(scope="module")
def default_preset(node_classes) -> str:
    """A new VDOT Sampler's setting: the preset for the authors' weights."""
    (entry,) = (entry for entry in node_classes["VDOTSampler"].GET_SCHEMA().inputs if entry.id == "preset")
    return entry.default


def node_texts(language: str) -> dict:
    return json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))


def sampler_preset(workflow: dict) -> str:
    (sampler,) = (node for node in workflow["nodes"] if node["type"] == "VDOTSampler")
    return sampler["widgets_values"][2]  # after the seed and what becomes of it


def test_a_new_sampler_does_not_fit_the_demo(demo_preset, default_preset):
    """Why the texts are needed: with one preset for both they could go."""
    assert demo_preset != default_preset


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_sample_each_model_with_its_preset(path, demo_preset, default_preset):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    bundled = any(node["type"] == "VDOTLoadDemo" for node in workflow["nodes"])
    assert sampler_preset(workflow) == (demo_preset if bundled else default_preset)


def test_the_nodes_say_which_preset_the_demo_needs(node_classes, demo_preset, default_preset):
    schema = node_classes["VDOTLoadDemo"].GET_SCHEMA()
    assert f"preset {demo_preset}" in schema.description and f"preset {default_preset}" in schema.description
    assert demo_preset in schema.outputs[0].tooltip
    (preset,) = (entry for entry in node_classes["VDOTSampler"].GET_SCHEMA().inputs if entry.id == "preset")
    assert re.search(rf"{demo_preset}: [^.]*{schema.display_name}", preset.tooltip)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_locales_and_help_pages_say_it(language, demo_preset, default_preset):
    texts = node_texts(language)
    demo = texts["VDOTLoadDemo"]
    assert {demo_preset, default_preset} <= set(re.findall("[a-z]+", demo["description"]))
    assert demo_preset in demo["outputs"]["0"]["tooltip"]
    assert demo["display_name"] in texts["VDOTSampler"]["inputs"]["preset"]["tooltip"]
    page = (ROOT / "js" / "docs" / "VDOTLoadDemo" / f"{language}.md").read_text(encoding="utf-8")
    assert f"`{demo_preset}`" in page and f"`{default_preset}`" in page
    row = next(line for line in page.splitlines() if line.startswith("| `model` |"))
    assert f"`{demo_preset}`" in row
    page = (ROOT / "js" / "docs" / "VDOTSampler" / f"{language}.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith(f"| `{demo_preset}` |"))
    assert demo["display_name"] in row


def test_english_locales_are_the_schema_itself(node_classes):
    texts = node_texts("en")
    for node_id in ("VDOTLoadDemo", "VDOTSampler"):
        schema = node_classes[node_id].GET_SCHEMA()
        assert texts[node_id]["description"] == schema.description
        tooltips = {entry.id: entry.tooltip for entry in schema.inputs}
        assert {name: entry["tooltip"] for name, entry in texts[node_id]["inputs"].items()} == tooltips
        outputs = [entry["tooltip"] for entry in texts[node_id]["outputs"].values()]
        assert outputs == [entry.tooltip for entry in schema.outputs]


def test_readme_changes_the_preset_with_the_weights(demo_preset, default_preset):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (paragraph,) = (part for part in readme.split("\n\n") if "replace **VDOT Load Demo** by" in part)
    assert "**VDOT Sampler**" in paragraph
    assert paragraph.index(f"*{demo_preset}*") < paragraph.index(f"*{default_preset}*")
