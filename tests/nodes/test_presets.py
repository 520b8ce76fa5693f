"""The preset auto: what a model's file says it was trained for, and what the nodes' texts promise of it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.nodes.small_models import lora_of
from tests.support.comfy import ROOT
from tests.support.pack import submodule

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
PLAIN = "plain_vace.safetensors"


@pytest.fixture(scope="module")
def choose(pack):
    """choose(model, negative=.., ..) resolves the settings of VDOT Sampler."""
    presets, inputs = submodule("nodes.sample_presets"), submodule("nodes.sample_inputs")

    def call(model, negative=None, cfg=1.0, **settings):
        return presets.choose_sampling(inputs.Settings(**settings), cfg, model, negative)

    return call


@pytest.fixture(scope="module")
def load(run, model_folder):
    def call(name, **optional):
        return run("VDOTLoadModel", model_name=name, weight_dtype="default", **optional).args[0]

    return call


def exported(models_dir, name, **metadata):
    """A network as this project's training writes it."""
    save_file(load_file(models_dir / PLAIN), models_dir / name, {"format": "pt", **metadata})
    return name


def test_the_demo_runs_as_it_was_distilled(run, choose, pack):
    """From all that loads it: the metadata of its file is the only source."""
    sampling = submodule("vdot_core.sampling")
    demo = "bundled demo"
    for model in (
        run("VDOTLoadDemo").args[0],
        run("VDOTLoad", model=demo, text_encoder=demo, vae=demo).args[0],
        run("VDOTLoadDemo").args[0].clone(),
    ):
        chosen = choose(model)
        assert (chosen.schedule, chosen.solver, chosen.cfg) == (sampling.trained(), "renoise", 1.0)
        assert chosen.lines[0].startswith("auto: trained (distilled so, by its metadata): 4 steps, renoise")


def test_an_exports_own_numbers_run(load, choose, models_dir):
    metadata = {"trained_by": "training/distill.py", "schedule": "2 steps, shift 5, renoise"}
    chosen = choose(load(exported(models_dir, "own.safetensors", **metadata)))
    expected = submodule("vdot_core.sampling").trained(2, 5.0)
    assert chosen.schedule == expected and chosen.solver == "renoise"


def test_vdots_release_by_content_and_by_name(load, choose, models_dir):
    released = submodule("vdot_core.sampling").released()
    for name in ("vdot_release.pt", exported(models_dir, "my_vdot_14b_fp8.safetensors")):
        chosen = choose(load(name))
        assert (chosen.schedule, chosen.solver) == (released, "unipc")
        assert "auto: released (a VDOT file)" in chosen.lines[0]


def test_comfyuis_own_loader_is_understood_too(choose, models_dir):
    import comfy.sd

    name = exported(models_dir, "another_vdot.safetensors")
    model = comfy.sd.load_diffusion_model(str(models_dir / name))
    assert "released" in choose(model.clone()).lines[0]
    model.cached_patcher_init = None
    with pytest.raises(ValueError, match="auto cannot tell from this model's file"):
        choose(model)


def test_vace_without_distillation_says_what_it_needs(load, choose, text, models_dir):
    model = load(PLAIN)
    with pytest.raises(ValueError, match=r"20 to 50 steps and guidance.*negative.*preset vace") as error:
        choose(model)
    assert len(str(error.value)) <= 400
    chosen = choose(model, negative=text)
    assert (chosen.schedule.num_steps, chosen.solver, chosen.cfg) == (25, "unipc", 5.0)
    assert "25 steps, unipc, cfg 5" in chosen.lines[0]
    finetuned = exported(models_dir, "fine.safetensors", trained_by="training/finetune.py")
    assert "trained, not distilled" in choose(load(finetuned), negative=text).lines[0]


def test_behind_a_lora_the_choice_is_yours_unless_it_says_what_it_is(
    load, choose, text, model_folder, native_state, tmp_path_factory
):
    import folder_paths

    folder = tmp_path_factory.mktemp("loras")
    folder_paths.add_model_folder_path("loras", str(folder))
    lora, _ = lora_of(native_state, ["blocks.0.ffn.0"])
    save_file(lora, folder / "style.safetensors")
    save_file(lora, folder / "vdot_rank4.safetensors")
    metadata = {"trained_by": "training/distill.py", "schedule": "4 steps, shift 8, renoise"}
    save_file(lora, folder / "own.safetensors", metadata)
    folder_paths.filename_list_cache.clear()
    with pytest.raises(ValueError, match="whether the LoRA on this VACE model makes it a few-step one"):
        choose(load(PLAIN, lora_1="style.safetensors"), negative=text)
    assert "released" in choose(load(PLAIN, lora_1="vdot_rank4.safetensors")).lines[0]
    assert "trained" in choose(load(PLAIN, lora_1="own.safetensors")).lines[0]


def test_a_preset_with_guidance_rules_the_guidance(choose, ours, text):
    assert choose(ours, negative=text, preset="vace", cfg=1.0).cfg == 5.0
    assert choose(ours, negative=text, preset="released", cfg=2.5).cfg == 2.5
    assert choose(ours, preset="custom", steps=7, shift=3.0, solver="euler").schedule.num_steps == 7


def test_guidance_without_a_text_is_refused(run, load, text):
    settings = {"preset": "vace", "steps": 4, "shift": 16.0, "solver": "unipc"}
    latent = {"samples": torch.zeros(1, 16, 2, 4, 4)}
    with pytest.raises(ValueError, match="cfg is 5 but nothing is connected to negative"):
        run("VDOTSampler", model=load(PLAIN), positive=text, latent=latent, seed=0, **settings)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_sample_each_model_with_its_preset(path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    own = "trained" if any(node["type"] == "VDOTLoadDemo" for node in workflow["nodes"]) else "released"
    samplers = [node for node in workflow["nodes"] if node["type"] == "VDOTSampler"]
    for sampler in samplers:
        assert sampler["widgets_values"][2] in ("auto", own)  # after the seed and what becomes of it


def test_a_new_sampler_chooses_by_the_model(node_classes):
    (entry,) = (entry for entry in node_classes["VDOTSampler"].GET_SCHEMA().inputs if entry.id == "preset")
    assert entry.default == "auto"


def test_english_locales_are_the_schema_itself(node_classes):
    texts = json.loads((ROOT / "locales/en/nodeDefs.json").read_text(encoding="utf-8"))
    for node_id, node in node_classes.items():
        schema = node.GET_SCHEMA()
        assert texts[node_id]["description"] == schema.description
        tooltips = {entry.id: entry.tooltip for entry in schema.inputs if not hasattr(entry, "template")}
        assert {name: texts[node_id]["inputs"][name]["tooltip"] for name in tooltips} == tooltips
        outputs = [entry["tooltip"] for entry in texts[node_id]["outputs"].values()]
        assert outputs == [entry.tooltip for entry in schema.outputs]
