"""Quantized forms: what is stored how, and how near it is; sharded sets, which are never half there."""

import errno
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.core.checkpoints.helpers import assert_same, prefixed, weights_of
from tests.support.watch import check_refusal
from vdot_core.checkpoints import convert, convert_to_gguf, inspect, load_network, read_weights, save_weights
from vdot_core.checkpoints import forms as forms_module
from vdot_core.checkpoints import shards as shards_module
from vdot_core.checkpoints.__main__ import main
from vdot_core.networks import WanVaceConfig

# Rows of one 256-block and of several, as K types and rotations take them.
CONFIG = WanVaceConfig(
    dim=64, ffn_dim=256, num_heads=2, num_layers=4, vace_layers=(0, 2), text_dim=12, freq_dim=8, text_len=16
)
MATRICES = (
    *(f"{kind}_attn.{part}" for kind in ("self", "cross") for part in "qkvo"),
    *("ffn.0", "ffn.2", "before_proj", "after_proj"),
)


def is_quantized(name: str) -> bool:
    """The Linear layers of the blocks, by their names in Wan's own code."""
    block, _, rest = name.partition("blocks.")[2].partition(".")
    return block.isdecimal() and rest.removesuffix(".weight") in MATRICES and rest.endswith(".weight")


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    weights = weights_of(CONFIG)
    weights["patch_embedding.weight"] = weights["patch_embedding.weight"].float()
    return weights


@pytest.fixture
def source(tmp_path, weights):
    path = tmp_path / "source.safetensors"
    save_weights(path, CONFIG, weights, metadata={"control_conventions": "2", "step": "7"})
    return path


def rotation(size: int) -> torch.Tensor:
    """ConvRot's matrix by its definition: Kronecker powers of a 4 x 4 Hadamard matrix of equal row sums."""
    first = 1 - 2 * torch.eye(4).flip(0)
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.kron(matrix, first) / 2
    assert torch.allclose(matrix @ matrix.T, torch.eye(size), atol=1e-6)
    return matrix


@pytest.mark.parametrize("form", ["fp8_scaled", "int8"])
def test_matrices_of_the_blocks_are_stored_in_the_form(tmp_path, source, weights, form):
    target = tmp_path / "out.safetensors"
    info = convert(source, target, form=form)
    stored = load_file(target)
    assert (
        info.problem == "" and info.config == CONFIG and info.num_parameters == inspect(source).num_parameters
    )
    assert info.metadata["control_conventions"] == "2" and info.metadata["step"] == "7"
    kept = {name: value for name, value in weights.items() if not is_quantized(name)}
    helpers = {n for n in stored if n.endswith((".weight_scale", ".comfy_quant"))}
    assert_same({name: stored[name] for name in kept}, kept)  # norms, biases, modulations, embeddings, head
    assert len(helpers) == 2 * (len(weights) - len(kept)) and stored.keys() == weights.keys() | helpers
    for name in weights.keys() - kept.keys():
        layer = name.removesuffix(".weight")
        settings = json.loads(stored[f"{layer}.comfy_quant"].numpy().tobytes())
        scale, values = stored[f"{layer}.weight_scale"], weights[name].float()
        if form == "fp8_scaled":
            assert stored[name].dtype == torch.float8_e4m3fn and scale.shape == ()
            assert settings == {"format": "float8_e4m3fn", "full_precision_matrix_mult": True}
            error = (stored[name].float() * scale - values).abs()
            # Half a step of 3 bits of mantissa, or of the smallest numbers.
            assert (error <= torch.maximum(values.abs() / 16, scale * 2**-10) * 1.001).all(), name
        else:
            assert stored[name].dtype == torch.int8 and scale.shape == (len(values), 1)
            size = settings.pop("convrot_groupsize")
            assert settings == {"format": "int8_tensorwise", "convrot": True} and size in (64, 256)
            turned = (values.view(len(values), -1, size) @ rotation(size).T).view_as(values)
            assert ((stored[name] * scale - turned).abs() <= scale * 0.501).all(), name


def test_other_sources_take_a_form_and_forms_are_expanded_again(tmp_path, source, weights):
    """From a release's pickle and from scaled fp8 to GGUF; metadata of the old form is not carried along."""
    torch.save({"generator": prefixed(weights, "model.")}, tmp_path / "w.pt")
    first = convert(tmp_path / "w.pt", tmp_path / "first.safetensors", config=CONFIG, form="fp8_scaled")
    assert first.encoded_as == "scaled fp8"
    convert_to_gguf(first.path, tmp_path / "second.gguf", "Q8_0")
    third = convert(tmp_path / "second.gguf", tmp_path / "third.safetensors", dtype=torch.bfloat16)
    assert third.encoded_as == "" and not [key for key in third.metadata if key.startswith("general.")]
    read, direct = (
        read_weights(third.path).state_dict,
        read_weights(first.path, dtype=torch.float32).state_dict,
    )
    for name, value in direct.items():
        limit = value.abs().max() * (1 / 127 + 1 / 256)
        assert (read[name].float() - value).abs().max() <= limit, name


def test_int8_is_expanded_again(tmp_path, source, weights):
    """Rotated or not, by settings of either place: to bf16, to GGUF and to a network."""
    info = convert(source, tmp_path / "int8.safetensors", form="int8")
    assert info.encoded_as == "int8" and not info.formats
    stored = load_file(info.path)
    name = "blocks.0.self_attn.q"
    nested = {"format": "int8_tensorwise", "params": {"convrot": True, "convrot_groupsize": 64}}
    stored[f"{name}.comfy_quant"] = torch.tensor(list(json.dumps(nested).encode()), dtype=torch.uint8)
    plain = (weights["blocks.1.self_attn.q.weight"].float() * 100).round().clamp(-127, 127)
    stored["blocks.1.self_attn.q.weight"] = plain.to(torch.int8)
    stored["blocks.1.self_attn.q.weight_scale"] = torch.tensor(0.01)
    stored["blocks.1.self_attn.q.comfy_quant"] = torch.tensor(list(b'{"convrot": false}'), dtype=torch.uint8)
    with safe_open(info.path, "pt") as file:
        save_file(stored, tmp_path / "other.safetensors", metadata=file.metadata())
    read = read_weights(tmp_path / "other.safetensors", dtype=torch.float32).state_dict
    torch.testing.assert_close(read["blocks.1.self_attn.q.weight"], plain * 0.01)
    for key, value in weights.items():
        if key != "blocks.1.self_attn.q.weight":
            # The rotation keeps norms: a rounding of half a step in each of a row's numbers.
            error = (read[key] - value.float()).norm()
            assert error <= value.float().norm() * 0.012 if is_quantized(key) else error == 0, key
    bf16 = convert(info.path, tmp_path / "bf16.safetensors", dtype=torch.bfloat16)
    gguf = convert_to_gguf(info.path, tmp_path / "w.gguf", "Q8_0")
    assert not bf16.problem and not gguf.problem
    network = load_network(info.path, dtype=torch.float32)
    value = network.get_parameter("blocks.2.ffn.2.weight")
    torch.testing.assert_close(value, read["blocks.2.ffn.2.weight"])


@pytest.mark.parametrize("form", ["fp8_scaled", "int8"])
def test_edges_of_a_form(tmp_path, weights, form):
    """A matrix of zeros, one whose rows are no multiple of a rotation's size, and one that has no numbers."""
    name = "blocks.0.ffn.0.weight"
    zeros = {**weights, name: torch.zeros_like(weights[name])}
    save_weights(tmp_path / "w.safetensors", CONFIG, zeros)
    convert(tmp_path / "w.safetensors", tmp_path / "out.safetensors", form=form)
    stored = load_file(tmp_path / "out.safetensors")
    assert not stored[name].float().any() and torch.isfinite(stored["blocks.0.ffn.0.weight_scale"]).all()
    matrix = torch.randn(3, 24)  # of no rotation's size
    weight, scale = forms_module._quantize_int8(matrix)
    assert ((weight * scale - matrix).abs() <= scale * 0.501).all()
    assert "convrot" not in json.loads(forms_module._settings("int8", (3, 24)))
    zeros[name] = torch.full_like(zeros[name], float("nan"))
    save_weights(tmp_path / "w.safetensors", CONFIG, zeros)
    with pytest.raises(
        ValueError, match=r"blocks\.0\.ffn\.0\.weight has values that are not finite"
    ) as error:
        convert(tmp_path / "w.safetensors", tmp_path / "other.safetensors", form=form)
    check_refusal(str(error.value))
    assert not (tmp_path / "other.safetensors").exists()


@pytest.mark.parametrize("form", ["fp8_scaled", "int8", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("value", [1e35, 3e38])
def test_huge_values_stay_finite_or_are_refused(tmp_path, weights, form, value):
    """A rotation adds values of a row, and the factors of GGUF's blocks are float16."""
    name = "blocks.0.ffn.0.weight"
    huge = {**weights, name: torch.full_like(weights[name].float(), value)}
    save_weights(tmp_path / "w.safetensors", CONFIG, huge)
    is_form = form in forms_module.FORMS
    target = tmp_path / ("out.safetensors" if is_form else "out.gguf")
    try:
        if is_form:
            convert(tmp_path / "w.safetensors", target, form=form)
        else:
            convert_to_gguf(tmp_path / "w.safetensors", target, form)
    except ValueError as error:
        assert f"{name} has values" in str(error)
        check_refusal(str(error))
        assert not target.exists()
        return
    result = read_weights(target, dtype=torch.float32).state_dict[name]
    assert value < 1e38 and torch.allclose(result, huge[name], rtol=0.05)


def test_a_layer_that_lost_its_scale_is_refused(tmp_path, source):
    """Without it, its numbers would be taken as they are."""
    path = convert(source, tmp_path / "w.safetensors", form="fp8_scaled").path
    tensors = load_file(path)
    del tensors["blocks.0.ffn.0.weight_scale"]
    with safe_open(path, "pt") as file:
        save_file(tensors, path, file.metadata())
    with pytest.raises(ValueError, match=r"blocks\.0\.ffn\.0\.weight has no weight_scale, which") as error:
        read_weights(path, dtype=torch.float32)
    check_refusal(str(error.value))


def test_large_matrices_are_quantized_in_parts(monkeypatch):
    matrix = torch.randn(7, 64)
    whole = [quantize(matrix) for quantize in (forms_module._quantize_fp8, forms_module._quantize_int8)]
    monkeypatch.setattr(forms_module, "_CHUNK_VALUES", 128)
    parts = [quantize(matrix) for quantize in (forms_module._quantize_fp8, forms_module._quantize_int8)]
    for (weight, scale), (other, other_scale) in zip(whole, parts, strict=True):
        # Products of parts are summed in another order, so that a value in the middle may go either way.
        assert ((weight.float() - other.float()).abs() <= weight.float().abs() / 8 + 1).all()
        torch.testing.assert_close(scale, other_scale)


@pytest.mark.parametrize("form", ["", "fp8_scaled"])
def test_a_sharded_set(tmp_path, source, weights, form):
    target = tmp_path / "out" / "w.safetensors"
    target.parent.mkdir()
    info = convert(source, target, form=form, shard_bytes=100_000)
    index = json.loads((target.parent / "w.safetensors.index.json").read_text())
    names = sorted({path.name for path in target.parent.glob("*.safetensors")})
    assert len(names) > 3 and names[1] == f"w-00002-of-{len(names):05d}.safetensors"
    assert {path.name for path in info.files} == set(names) == set(index["weight_map"].values())
    parts = {name: load_file(target.parent / name) for name in names}
    sizes = {name: sum(v.numel() * v.itemsize for v in part.values()) for name, part in parts.items()}
    assert index["metadata"]["total_size"] == sum(sizes.values()) and max(sizes.values()) <= 100_000
    assert {n: part for part, tensors in parts.items() for n in tensors} == index["weight_map"]
    single = convert(source, tmp_path / "one.safetensors", form=form)
    assert_same({n: v for part in parts.values() for n, v in part.items()}, load_file(single.path))
    dtype = torch.float32 if form else None
    assert_same(
        read_weights(target.parent, dtype=dtype).state_dict, read_weights(single.path, dtype=dtype).state_dict
    )
    assert info.config == CONFIG and info.metadata["control_conventions"] == "2"
    with safe_open(target.parent / names[0], "pt") as file:
        assert file.metadata()["format"] == "pt"


def test_a_set_that_fails_leaves_the_earlier_one(tmp_path, source, monkeypatch):
    target = tmp_path / "out" / "w.safetensors"
    target.parent.mkdir()
    fill, calls = shards_module.fill_safetensors, []

    def failing(path, *arguments):
        calls.append(path)
        if len(calls) % 3 == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fill(path, *arguments)

    monkeypatch.setattr(shards_module, "fill_safetensors", failing)
    full = r"cannot write .*w-00003-of-\d{5}\.safetensors: No space left on device; make room"
    with pytest.raises(ValueError, match=full) as error:
        convert(source, target, shard_bytes=100_000)
    check_refusal(str(error.value))
    assert not files_of(target.parent)
    monkeypatch.undo()
    convert(source, target, shard_bytes=100_000)
    with pytest.raises(ValueError, match="exists already; give another name, or --overwrite"):
        convert(source, target, shard_bytes=100_000)
    before = {path: path.read_bytes() for path in target.parent.iterdir()}
    monkeypatch.setattr(shards_module, "fill_safetensors", failing)
    for arguments in ({"shard_bytes": 100_000}, {"form": "int8", "shard_bytes": 20_000}):
        with pytest.raises(ValueError, match="No space left"):
            convert(source, target, overwrite=True, **arguments)
        assert {path: path.read_bytes() for path in target.parent.iterdir()} == before
    monkeypatch.undo()
    assert convert(source, target, shard_bytes=300_000, overwrite=True).problem == ""


def files_of(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path, source):
    """A set in many parts beside files of others, whose names are alike."""
    folder = tmp_path / "out"
    folder.mkdir()
    convert(source, folder / "w.safetensors", shard_bytes=100_000)
    for name in ("w-00001-of-00002.safetensors.txt", "w2-00001-of-00002.safetensors", "notes.txt"):
        (folder / name).write_bytes(b"mine")
    return folder


OTHERS = {"w-00001-of-00002.safetensors.txt", "w2-00001-of-00002.safetensors", "notes.txt"}


def test_a_set_replaces_the_parts_of_its_earlier_form(folder, source):
    before = files_of(folder)
    convert(source, folder / "w.safetensors", shard_bytes=300_000, overwrite=True)
    after = files_of(folder)
    num_parts = len(after - OTHERS) - 1
    names = {f"w-{n + 1:05d}-of-{num_parts:05d}.safetensors" for n in range(num_parts)}
    assert after == OTHERS | names | {"w.safetensors.index.json"} and len(after) < len(before)
    assert inspect(folder / "w.safetensors.index.json").problem == ""


def test_one_name_is_one_file_or_parts(folder, source, tmp_path):
    """Neither form is left beside the other, and without --overwrite neither replaces the other."""
    target, before = folder / "w.safetensors", files_of(folder)
    with pytest.raises(ValueError, match=r"w\.safetensors\.index\.json exists already; give another name"):
        convert(source, target)
    assert files_of(folder) == before
    convert(source, target, overwrite=True)
    assert files_of(folder) == OTHERS | {"w.safetensors"} and inspect(target).problem == ""
    with pytest.raises(ValueError, match=r"w\.safetensors exists already"):
        convert(source, target, shard_bytes=300_000)
    assert files_of(folder) == OTHERS | {"w.safetensors"}
    info = convert(source, target, shard_bytes=300_000, overwrite=True)
    assert files_of(folder) == OTHERS | {path.name for path in info.files} | {"w.safetensors.index.json"}
    save_weights(target, CONFIG, weights_of(CONFIG))
    assert files_of(folder) == OTHERS | {"w.safetensors"}


def test_an_earlier_form_that_is_read_or_unknown_stays(folder, source):
    before, target = files_of(folder), folder / "w.safetensors"
    for arguments in ({"shard_bytes": 300_000}, {}, {"shard_bytes": 100_000}):
        with pytest.raises(ValueError, match="is one of the files to read; give another name"):
            convert(folder / "w.safetensors.index.json", target, overwrite=True, **arguments)
    merged = convert(source, folder / "single.safetensors").path
    with pytest.raises(ValueError, match="is one of the files to read; give another name"):
        convert(merged, merged, shard_bytes=300_000, overwrite=True)
    merged.unlink()
    assert files_of(folder) == before
    (folder / "w-00001-of-00077.safetensors").write_bytes(b"mine")
    for arguments in ({"shard_bytes": 300_000}, {}):
        with pytest.raises(
            ValueError, match=r"w-00001-of-00077\.safetensors is a part of an earlier"
        ) as error:
            convert(source, target, overwrite=True, **arguments)
        check_refusal(str(error.value))
    assert files_of(folder) == before | {"w-00001-of-00077.safetensors"}
    (folder / "w-00001-of-00077.safetensors").unlink()
    (folder / "w.safetensors.index.json").write_text("{")
    with pytest.raises(
        ValueError, match=r"w\.safetensors\.index\.json in its folder .* remove it, or"
    ) as error:
        convert(source, target, overwrite=True)
    check_refusal(str(error.value))
    assert files_of(folder) == before


def test_a_folder_with_both_forms_is_refused(folder, source, tmp_path):
    """Where another program wrote them."""
    single = convert(source, tmp_path / "w.safetensors").path
    single.rename(folder / "w.safetensors")
    with pytest.raises(ValueError, match=r"has both w\.safetensors and the index") as error:
        inspect(folder)
    check_refusal(str(error.value))
    assert (
        inspect(folder / "w.safetensors").problem
        == ""
        == inspect(folder / "w.safetensors.index.json").problem
    )


def test_the_command_writes_forms_and_shards(tmp_path, source, capsys):
    assert main(["convert", str(source), str(tmp_path / "a.safetensors"), "--dtype", "int8"]) == 0
    assert "int8" in capsys.readouterr().out
    arguments = ["convert", str(source), str(tmp_path / "b.safetensors"), "--dtype", "fp8_scaled"]
    assert main([*arguments, "--shard_size", "200KB"]) == 0
    assert "scaled fp8" in capsys.readouterr().out and (tmp_path / "b.safetensors.index.json").exists()
    for size in ("5", "5TB", "1.5GB", "0GB", "1e3GB", "GB", "9999999GB"):
        assert main([*arguments, "--shard_size", size]) == 1
        check_refusal(capsys.readouterr().err.strip())
    assert main(["convert", str(source), str(tmp_path / "c.safetensors"), "--shard_size", "90KB"]) == 0
    with pytest.raises(ValueError, match="give a form"):
        convert(source, tmp_path / "d.safetensors", form="int8", dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="give a form"):
        convert(source, tmp_path / "d.safetensors", form="int4")


def test_more_parts_than_an_index_may_have_are_refused(tmp_path, source, monkeypatch):
    monkeypatch.setattr(shards_module, "MAX_SHARDS", 3)
    with pytest.raises(ValueError, match="give a larger shard size"):
        convert(source, tmp_path / "w.safetensors", shard_bytes=1000)


def test_a_source_that_changes_gives_no_index(tmp_path, source, monkeypatch):
    write = shards_module.fill_safetensors

    def touching(path, *arguments, **options):
        write(path, *arguments, **options)
        source.touch()

    monkeypatch.setattr(shards_module, "fill_safetensors", touching)
    with pytest.raises(ValueError, match="changed while it was being read"):
        convert(source, tmp_path / "w.safetensors", shard_bytes=300_000)
    assert not list(tmp_path.glob("*.index.json"))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks")
def test_one_process_at_a_time_writes_a_result(tmp_path, source):
    """Another is told so, whatever form it writes: its parts would replace or remove the first one's."""
    target, said = tmp_path / "out.safetensors", []

    def second(*_):
        program = ["-m", "vdot_core.checkpoints", "convert", str(source), str(target), "--overwrite"]
        result = subprocess.run([sys.executable, *program], capture_output=True, text=True)
        said.append((result.returncode, result.stderr))
        return original(*_)

    convert_module = sys.modules["vdot_core.checkpoints.convert"]  # its function has the same name
    original = convert_module.result_header
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert_module, "result_header", lambda *args, **_: second(*args))
        convert(source, target, shard_bytes=100_000)
    ((status, words),) = said
    assert status == 1 and f"another process is writing {target}; wait" in words
    assert read_weights(f"{target}.index.json").state_dict.keys() == read_weights(source).state_dict.keys()
    convert(source, target, overwrite=True)  # the right is given back
