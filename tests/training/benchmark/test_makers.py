"""Our maker against diffusers' own pipeline, with the same weights, noise and solver."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from training.benchmark.config import ModelConfig, SamplerConfig
from training.benchmark.evaluate import evaluate
from training.benchmark.index import read_benchmark
from training.benchmark.makers import check_parts, make_maker
from training.benchmark.samples import load_conditions
from training.data.umt5 import load_umt5
from training.data.wan_vae import load_vae
from vdot_core.checkpoints import load_network
from vdot_core.checkpoints.layouts import wan_to_diffusers

from .conftest import STUDENT

SAMPLER = SamplerConfig(steps=3, shift=5.0, solver="unipc", labels="wan", guidance=3.0, context_scale=0.8)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """The bundled student as a folder of WanVACEPipeline."""
    from diffusers import UniPCMultistepScheduler, WanVACEPipeline, WanVACETransformer3DModel
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("pipeline")
    network = load_network(STUDENT.path, dtype=torch.float32)
    sizes = network.config
    transformer = WanVACETransformer3DModel(
        num_attention_heads=sizes.num_heads,
        attention_head_dim=sizes.dim // sizes.num_heads,
        text_dim=sizes.text_dim,
        freq_dim=sizes.freq_dim,
        ffn_dim=sizes.ffn_dim,
        num_layers=sizes.num_layers,
        vace_layers=list(sizes.vace_layers),
        vace_in_channels=sizes.vace_in_channels,
    )
    transformer.load_state_dict({wan_to_diffusers(k): v for k, v in network.state_dict().items()})
    text = load_umt5(STUDENT.text_encoder)
    (folder / "raw").mkdir()
    (folder / "raw" / "spiece.model").write_bytes(text.tokenizer.model)
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "raw" / "tokenizer_config.json").write_text(json.dumps(settings))
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SAMPLER.shift
    )
    tokenizer = AutoTokenizer.from_pretrained(folder / "raw")
    whole = WanVACEPipeline(tokenizer, text.encoder, load_vae(STUDENT.vae), scheduler, transformer)
    whole.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


@pytest.mark.full
@pytest.mark.parametrize("task", ["extension", "R2V_face", "reference+gray"])
def test_both_make_the_same_video(bench, config, pipeline, task):
    """Diffusers pads prompts to 512 tokens, as our encoder does of its folder."""
    ours = replace(STUDENT, text_encoder=str(pipeline), sampler=SAMPLER)
    theirs = ModelConfig("theirs", "diffusers", str(pipeline), sampler=SAMPLER)
    settings = config()
    sample = read_benchmark(bench).chosen([task], 1).samples[0]
    conditions = load_conditions(sample, settings)
    if task == "R2V_face":  # two, in order
        conditions = replace(conditions, references=(*conditions.references, torch.rand(20, 30, 3)))
    videos = [make_maker(model, settings)(sample, conditions, 7) for model in (ours, theirs)]
    other = make_maker(ours, settings)(sample, conditions, 8)
    assert videos[0].shape == videos[1].shape == conditions.frames.shape
    assert (videos[0] - videos[1]).abs().mean() < 0.01 < (videos[0] - other).abs().mean()


@pytest.mark.full
@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_a_network_that_lacks_a_tensor_is_named(config, pipeline, tmp_path, part):
    from safetensors.torch import load_file, save_file

    shutil.copytree(pipeline, tmp_path / "damaged")
    (file,) = (tmp_path / "damaged" / part).glob("*.safetensors")
    tensors = load_file(file)
    lost = sorted(tensors)[0]
    del tensors[lost]
    save_file(tensors, file, {"format": "pt"})
    model = ModelConfig("theirs", "diffusers", str(tmp_path / "damaged"), sampler=SAMPLER)
    with pytest.raises(ValueError, match=f"is not the {part} of a WanVACEPipeline: it lacks 1 tensors"):
        make_maker(model, config())


def test_a_folder_of_something_else_is_named(bench, config, tmp_path):
    (tmp_path / "empty").mkdir()
    model = ModelConfig("theirs", "diffusers", str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="theirs: diffusers cannot load"):
        evaluate(config(models=[model]))


@pytest.mark.parametrize("library", ["os", "evil", "../evil", "tests.evil", 5])
def test_parts_of_a_pipeline_from_other_libraries_are_not_imported(tmp_path, library):
    index = {"_class_name": "WanVACEPipeline", "scheduler": ["diffusers", "UniPCMultistepScheduler"]}
    check_parts(tmp_path, {**index, "transformer_2": [None, None], "expand_timesteps": False})
    with pytest.raises(ValueError, match="its vae is a class of"):
        check_parts(tmp_path, {**index, "vae": [library, "Evil"]})


def test_files_of_a_pipelines_parts_are_checked(tmp_path):
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds an adapter of another model"):
        check_parts(tmp_path, {"tokenizer": ["transformers", "T5TokenizerFast"]})
