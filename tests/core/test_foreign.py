"""Networks of transformers and diffusers: whole, from safetensors, from their own folder, or refused."""

import ast
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vdot_core.foreign import load_weights
from vdot_core.foreign_files import check_files

ROOT = Path(__file__).resolve().parents[2]
# What reads no weights, or only networks that were loaded by `load_weights`.
OTHERS = {
    ("training/data/encoders.py", "AutoTokenizer"),
    ("training/benchmark/makers.py", "diffusers.WanVACEPipeline"),
}


class Payload:
    """An attacker's pickle: a shell command that unpickling would run."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


def text_encoder():
    from transformers import UMT5Config, UMT5EncoderModel

    sizes = {"vocab_size": 9, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    return "transformers", UMT5EncoderModel(UMT5Config(**sizes)), "pytorch_model.bin"


def vae():
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    network = AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    return "diffusers", network, "diffusion_pytorch_model.bin"


@pytest.fixture(params=[text_encoder, vae])
def model(request, tmp_path):
    """Library, network, its folder, its file, and the name of its pickle."""
    library, network, pickle = request.param()
    folder = tmp_path / "model"
    network.save_pretrained(folder)
    return library, network, folder, next(folder.glob("*.safetensors")), folder / pickle


def refused(library, network, folder):
    with pytest.raises(ValueError) as caught:
        load_weights(library, type(network), folder, "a model")
    assert len(str(caught.value)) <= 400 and folder.name in str(caught.value)
    return str(caught.value)


def test_an_entire_network_is_read(model):
    library, network, folder, file, _ = model
    loaded = load_weights(library, type(network), folder, "a model").state_dict()
    assert loaded.keys() == network.state_dict().keys() and len(load_file(file)) <= len(loaded)
    assert all(torch.equal(loaded[name], value) for name, value in network.state_dict().items())


def test_tensors_that_are_missing_or_of_another_shape_are_named(model):
    library, network, folder, file, _ = model
    tensors = load_file(file)
    name = sorted(tensors)[0]
    value = tensors.pop(name)
    save_file(tensors, file, {"format": "pt"})
    assert f"is not a model: it lacks 1 tensors ({name})" in refused(library, network, folder)
    load_weights(library, type(network), folder, "a model", unused=name)
    save_file(tensors | {name: torch.zeros(3, *value.shape[1:])}, file, {"format": "pt"})
    assert name in refused(library, network, folder)


@pytest.mark.parametrize("content", ["payload", "weights"])
def test_a_pickle_is_not_opened(model, content, tmp_path):
    library, network, folder, file, pickle = model
    torch.save(load_file(file) if content == "weights" else Payload(tmp_path / "ran"), pickle)
    file.unlink()
    assert f"{pickle.name}, which can run code; download its .safetensors" in refused(
        library, network, folder
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("place", ["../outside.safetensors", "{absolute}", "sub/inside.safetensors"])
def test_an_index_names_files_of_its_own_folder_only(model, place, tmp_path):
    library, network, folder, file, _ = model
    outside = tmp_path / "outside.safetensors"
    place = place.format(absolute=outside)
    (folder / "sub").mkdir()
    target = (folder / place).resolve()
    names = list(load_file(file))
    file.rename(target)
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, place)}
    file.with_name(f"{file.name}.index.json").write_text(json.dumps(index))
    assert "a shard must be a file in the same folder" in refused(library, network, folder)


ELSEWHERE = {
    "attn_implementation": "someone/kernel",
    "_attn_implementation": "flash_attention_2",
    "text_config": {"attn_implementation": {"": "kernels-community/flash-attn"}},
    "experts_implementation": "someone/kernel",
    "backbone": "hf-hub:someone/model",
    "use_pretrained_backbone": True,
}


@pytest.mark.parametrize("key", ELSEWHERE)
def test_a_config_that_names_code_or_weights_elsewhere_is_refused(model, key):
    library, network, folder, _, _ = model
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: ELSEWHERE[key]}))
    assert "config.json" in refused(library, network, folder)
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: None}))
    load_weights(library, type(network), folder, "a model")


def test_an_adapter_and_a_folder_without_config_are_refused(model):
    library, network, folder, _, _ = model
    adapter = folder / "adapter_config.json"
    adapter.write_text('{"base_model_name_or_path": "someone/model", "peft_type": "LORA"}')
    assert "holds an adapter of another model" in refused(library, network, folder)
    adapter.unlink()
    (folder / "config.json").unlink()
    assert "(config.json is not there)" in refused(library, network, folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "vocab.txt", "spiece.model"])
@pytest.mark.parametrize("kind", ["pipe", "device", "endless"])
def test_files_that_would_be_read_without_end_are_not_opened(model, name, kind):
    library, network, folder, _, _ = model
    path = folder / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(30 << 30)
    expected = "bytes, expected at most" if kind == "endless" else f"not a file but a {kind}"
    assert expected in refused(library, network, folder)


def test_a_network_much_larger_than_its_files_is_not_built(tmp_path):
    library, network, _ = text_encoder()
    network.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    for change in ({"vocab_size": 10**11}, {"d_ff": 10**8, "d_model": 10**4}, {"num_layers": 10**5}):
        path.write_text(json.dumps(values | change))
        assert "config.json describes a network of far more than the" in refused(library, network, tmp_path)


@pytest.mark.parametrize(
    "size",
    [{"height": 10**6, "width": 10**6}, 10**9, {"shortest_edge": 10**5},
     {"shortest_edge": 10**9, "longest_edge": 10**9}],
)  # fmt: skip
def test_pictures_of_an_absurd_size_are_refused(tmp_path, size):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": size}))
    with pytest.raises(ValueError, match=r"asks for pictures of .* expected at most"):
        check_files(tmp_path)
    # Limits of areas, and what a tokenizer without a limit writes.
    (tmp_path / "preprocessor_config.json").write_text(
        '{"size": {"shortest_edge": 65536, "longest_edge": 16777216}}'
    )
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    check_files(tmp_path)


def test_a_package_that_a_model_needs_is_named(tmp_path):
    class Network:
        def from_pretrained(self, *_, **__):
            raise ImportError("GPTQ needs optimum (`pip install optimum`)")

    text_encoder()[1].save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"needs a package that is not here .* optimum.*; install it"):
        load_weights("transformers", Network(), tmp_path, "a model")


def test_nobody_else_loads_a_network():
    calls = set()
    for package in ("vdot_core", "training", "tiny", "nodes"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            for node in ast.walk(ast.parse(text)) if "from_pretrained" in text else ():
                if isinstance(node, ast.Attribute) and node.attr == "from_pretrained":
                    calls.add((path.relative_to(ROOT).as_posix(), ast.unparse(node.value)))
    others = {call for call in calls if call[0] != "vdot_core/foreign.py"}
    assert others == OTHERS, "networks are loaded by vdot_core.foreign.load_weights"
