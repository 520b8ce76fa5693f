"""GGUF files that we write, read by the `gguf` package: formats, values and metadata; llama-quantize."""

import json
import os
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from tests.core.checkpoints.helpers import assert_same, weights_of
from tests.core.checkpoints.test_forms import CONFIG, is_quantized
from tests.support.watch import check_refusal
from vdot_core.checkpoints import convert, convert_to_gguf, inspect, read_weights, save_weights, streams
from vdot_core.checkpoints.__main__ import main
from vdot_core.checkpoints.gguf_write import GGUF_TYPES, K_TYPES

# Largest error of a value over the largest value of its block: half a step of the format, and of its scale.
ERRORS = {"Q8_0": 0.005, "Q5_1": 0.04, "Q5_0": 0.07, "Q4_1": 0.08, "Q4_0": 0.14, "BF16": 0.004, "F16": 0.0005}
# What city96's patched llama-quantize does of its work here: it refuses more axes than ggml has, and other
# architectures; keeps fields and names; and quantizes the blocks' matrices.
LLAMA_QUANTIZE = """#!{python}
import sys
import gguf
source, target, kind = sys.argv[1:]
reader = gguf.GGUFReader(source)
arch = reader.get_field("general.architecture").contents()
if kind == "Q3_K_L" or arch != "wan" or any(len(tensor.shape) > 4 for tensor in reader.tensors):
    sys.exit("llama_model_quantize: failed to quantize: unknown model architecture: 'wan'")
writer = gguf.GGUFWriter(None, arch)
for key, field in reader.fields.items():
    if not key.startswith(("GGUF.", "general.architecture")):
        writer.add_key_value(key, field.contents(), field.types[0], *field.types[1:2])
for tensor in reader.tensors:
    is_matrix = "blocks." in tensor.name and tensor.tensor_type == gguf.GGMLQuantizationType.BF16
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    ggml_type = gguf.GGMLQuantizationType.Q4_0 if is_matrix else tensor.tensor_type
    writer.add_tensor(tensor.name, gguf.quants.quantize(values, ggml_type), raw_dtype=ggml_type)
writer.write_header_to_file(target)
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
"""


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    weights = weights_of(CONFIG)
    weights["patch_embedding.weight"] = weights["patch_embedding.weight"].float()
    return weights


@pytest.fixture
def source(tmp_path, weights):
    path = tmp_path / "source.safetensors"
    save_weights(path, CONFIG, weights, metadata={"control_conventions": "2"})
    return path


@pytest.fixture
def llama_quantize(tmp_path) -> Path:
    path = tmp_path / "llama-quantize"
    path.write_text(LLAMA_QUANTIZE.format(python=sys.executable))
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("kind", GGUF_TYPES)
def test_the_package_reads_what_we_write(tmp_path, source, weights, kind):
    target = tmp_path / "w.gguf"
    info = convert_to_gguf(source, target, kind)
    assert (info.config, info.layout, info.problem) == (CONFIG, "vdot", "")
    assert info.metadata["control_conventions"] == "2"
    reader = gguf.GGUFReader(target)
    assert reader.get_field("general.architecture").contents() == "wan"
    assert reader.get_field("general.file_type").contents() == gguf.LlamaFileType[f"MOSTLY_{kind}"]
    assert reader.get_field("general.quantization_version").contents() == gguf.GGML_QUANT_VERSION
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert tensors.keys() == weights.keys()
    read = read_weights(target, dtype=torch.float32).state_dict
    for name, tensor in tensors.items():
        value = weights[name].float().numpy()
        decoded = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(value.shape)
        assert tuple(tensor.shape[::-1]) == value.shape  # five axes too, as in published files
        assert np.array_equal(read[name].numpy(), decoded), name
        if is_quantized(name):
            assert tensor.tensor_type.name == kind
            blocks = np.abs(value).reshape(-1, 32).max(1, keepdims=True)
            errors = np.abs(decoded - value).reshape(-1, 32)
            assert (errors <= ERRORS[kind] * blocks).all() and (kind in ("BF16", "F16") or errors.any()), name
        else:
            is_vector = value.ndim in (1, 5) or "modulation" in name or value.size <= 1024
            numbers = "F16" if kind == "F16" else "BF16"
            assert tensor.tensor_type.name == ("F32" if is_vector else numbers), name
            assert kind == "F16" or np.array_equal(decoded, value)


def test_progress_counts_the_bytes_of_the_file(tmp_path, source, monkeypatch, caplog):
    """Not those of the values before they are quantized: a report for each tenth, no more."""
    monkeypatch.setattr(streams, "_LARGE", 0)
    caplog.set_level("INFO", "vdot")
    convert_to_gguf(source, tmp_path / "w.gguf", "Q4_0")
    assert 0 < caplog.text.count("written ") <= 11


def test_rows_of_no_whole_block_are_float16(tmp_path, weights):
    narrow = {**vars(CONFIG), "ffn_dim": 40}
    config = type(CONFIG)(**narrow)
    save_weights(tmp_path / "w.safetensors", config, weights_of(config))
    info = convert_to_gguf(tmp_path / "w.safetensors", tmp_path / "w.gguf", "Q8_0")
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(info.path).tensors}
    assert types["blocks.0.ffn.2.weight"] == "F16" and types["blocks.0.ffn.0.weight"] == "Q8_0"


@pytest.mark.parametrize("kind", [K_TYPES[3], "Q3_K_L"])
def test_k_types_are_written_by_llama_quantize(tmp_path, source, weights, llama_quantize, kind, capsys):
    """From a file of at most four axes, which is removed; the shapes are restored from its fields."""
    arguments = ["convert", str(source), str(tmp_path / "w.gguf"), "--type", kind]
    assert main(arguments) == 1
    error = capsys.readouterr().err.strip()
    check_refusal(error)
    assert "by --llama_quantize" in error
    before = sorted(os.listdir(tmp_path))
    status = main([*arguments, "--llama_quantize", str(llama_quantize)])
    if kind == "Q3_K_L":
        error = capsys.readouterr().err.strip().splitlines()[-1]  # behind what the package logs
        check_refusal(error)
        assert status == 1 and "unknown model architecture: 'wan'; give a llama-quantize" in error
        assert sorted(os.listdir(tmp_path)) == before
        return
    assert status == 0 and sorted(os.listdir(tmp_path)) == sorted([*before, "w.gguf"])
    info = inspect(tmp_path / "w.gguf")
    assert (info.config, info.ggml_types, info.problem) == (CONFIG, ("Q4_0",), "")
    read = read_weights(info.path, dtype=torch.float32).state_dict
    assert_same(
        {name: read[name] for name in read if not is_quantized(name)},
        {name: value.float() for name, value in weights.items() if not is_quantized(name)},
    )


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("w.gguf", ["--type", "Q4_K_M", "--llama_quantize", "missing"], "no program that can be run"),
        ("w.gguf", [], "give --type, one of Q8_0"),
        ("w.gguf", ["--type", "Q8_0", "--dtype", "bf16"], "leave --dtype, --shard_size and --plain out"),
        ("w.gguf", ["--type", "Q8_0", "--shard_size", "1GB"], "leave --dtype, --shard_size and --plain out"),
        ("w.safetensors", ["--type", "Q8_0"], "give a name that ends in .gguf"),
        ("w.safetensors", ["--llama_quantize", "x"], "give an OUT that ends in .gguf"),
        ("folder/w.gguf", ["--type", "Q8_0"], "does not exist; create it first"),
        ("link.gguf", ["--type", "Q8_0", "--overwrite"], "is a link"),
        ("there.gguf", ["--type", "Q8_0"], "exists already; give another name, or --overwrite"),
    ],
)
def test_refusals(tmp_path, source, capsys, name, arguments, sentence):
    (tmp_path / "there.gguf").write_bytes(b"there")
    (tmp_path / "link.gguf").symlink_to("there.gguf")
    before = sorted(os.listdir(tmp_path))
    assert main(["convert", str(source), str(tmp_path / name), *arguments]) == 1
    error = capsys.readouterr().err.strip()
    assert sentence in error and len(error) < 400 and error.isprintable()
    assert sorted(os.listdir(tmp_path)) == before and (tmp_path / "there.gguf").read_bytes() == b"there"


def test_a_missing_package_is_named(tmp_path, source, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ValueError, match="pip install gguf") as error:
        convert_to_gguf(source, tmp_path / "w.gguf", "Q8_0")
    check_refusal(str(error.value))
    assert inspect(source).problem == ""


def test_a_failed_or_stopped_write_leaves_the_old_file(tmp_path, source, monkeypatch):
    target = tmp_path / "w.gguf"
    convert_to_gguf(source, target, "Q8_0")
    before, names = target.read_bytes(), sorted(os.listdir(tmp_path))
    write = gguf.GGUFWriter.write_tensor_data

    def full(self, tensor, *arguments):
        if len(self.tensors[0]) < 5:
            raise OSError(28, os.strerror(28))
        write(self, tensor, *arguments)

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", full)
    with pytest.raises(ValueError, match=r"cannot write .*No space left on device; make room"):
        convert_to_gguf(source, target, "Q4_0", overwrite=True)
    assert target.read_bytes() == before and sorted(os.listdir(tmp_path)) == names
    monkeypatch.undo()
    assert convert_to_gguf(source, target, "Q4_0", overwrite=True).ggml_types == ("Q4_0",)


def test_values_that_no_scale_fits_are_refused(tmp_path, weights):
    name = "blocks.0.ffn.0.weight"
    wrong = {**weights, name: torch.full_like(weights[name], float("inf"))}
    save_weights(tmp_path / "w.safetensors", CONFIG, wrong)
    with pytest.raises(ValueError, match="not finite"):
        convert_to_gguf(tmp_path / "w.safetensors", tmp_path / "w.gguf", "Q8_0")
    assert not (tmp_path / "w.gguf").exists()


@pytest.mark.parametrize("kind", [kind for kind in GGUF_TYPES if kind.startswith("Q")])
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid:RuntimeWarning")
def test_values_beyond_a_float16_scale_are_refused(tmp_path, weights, kind):
    name = "blocks.0.ffn.0.weight"
    wrong = {**weights, name: weights[name].clone()}
    wrong[name][1, 2] = 1e8
    save_weights(tmp_path / "w.safetensors", CONFIG, wrong)
    with pytest.raises(ValueError, match=rf"blocks\.0\.ffn\.0\.weight .* of {kind}.*; use BF16 instead"):
        convert_to_gguf(tmp_path / "w.safetensors", tmp_path / "w.gguf", kind)
    assert sorted(os.listdir(tmp_path)) == ["w.safetensors"]


def test_back_to_safetensors(tmp_path, source, weights):
    """A file without blocks gives the numbers back; metadata that is GGUF's own is left out."""
    convert_to_gguf(source, tmp_path / "w.gguf", "BF16")
    info = convert(tmp_path / "w.gguf", tmp_path / "back.safetensors")
    assert json.loads(info.metadata["config"])["transformer"]["vdot"] == 1
    assert not [key for key in info.metadata if key.startswith(("general", "vdot."))]
    for name, value in read_weights(info.path).state_dict.items():
        assert torch.equal(value.float(), weights[name].float()), name
