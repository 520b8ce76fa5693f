"""A VACE module alone: described, and written in every form, to be used with a base of another file."""

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.core.checkpoints.helpers import is_vace, shapes_of, weights_of, write_header_only
from tests.support.watch import check_refusal
from vdot_core.checkpoints import (
    convert,
    convert_to_gguf,
    extract_lora,
    inspect,
    load_network,
    read_weights,
    save_weights,
    split,
)
from vdot_core.checkpoints.__main__ import main
from vdot_core.networks import WanVaceConfig, wan_vace_14b

CONFIG = WanVaceConfig(
    dim=64, ffn_dim=256, num_heads=2, num_layers=4, vace_layers=(0, 2), text_dim=12, freq_dim=8, text_len=16
)
# Largest relative error of a matrix of normal numbers.
FORMS = {"fp8_scaled": 0.04, "int8": 0.012, "Q8_0": 0.01, "Q4_0": 0.12, "bf16": 0.004}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A base, and its module as this project writes it and as others do, without a config."""
    folder = tmp_path_factory.mktemp("parts")
    weights = weights_of(CONFIG, torch.float32)
    save_weights(folder / "w.safetensors", CONFIG, weights)
    split(folder / "w.safetensors", folder / "base.safetensors", folder / "ours.safetensors")
    module = {name: value for name, value in weights.items() if is_vace(name)}
    save_file(module, folder / "theirs.safetensors", {"author": "someone"})
    return folder, weights


def converted(source, folder, form):
    if form.startswith("Q"):
        return convert_to_gguf(source, folder / "module.gguf", form)
    options = {"dtype": torch.bfloat16} if form == "bf16" else {"form": form}
    return convert(source, folder / "module.safetensors", **options)


def folder_in(parent, name):
    (parent / name).mkdir()
    return parent / name


@pytest.mark.parametrize("name", ["ours", "theirs"])
@pytest.mark.parametrize("form", FORMS)
def test_a_module_alone_takes_every_form(tmp_path, parts, form, name):
    folder, weights = parts
    info = converted(folder / f"{name}.safetensors", tmp_path, form)
    assert (
        info.layout == "vace-module"
        and info.usage
        and info.metadata.get("author") == ("someone" if name == "theirs" else None)
    )
    network = load_network(folder / "base.safetensors", vace=info.path, dtype=torch.float32)
    for key, value in network.state_dict().items():
        error = (value - weights[key]).norm() / weights[key].norm()
        exact = not is_vace(key) or (form != "bf16" and weights[key].ndim != 2)
        assert error == 0 if exact else error <= FORMS[form], key


def test_a_module_in_parts(tmp_path, parts):
    folder, weights = parts
    info = convert(folder / "theirs.safetensors", tmp_path / "m.safetensors", shard_bytes=100_000)
    assert len(info.files) > 1 and info.usage
    read = read_weights(folder / "base.safetensors", vace=tmp_path).state_dict
    assert all(torch.equal(read[name], value) for name, value in weights.items())


@pytest.mark.parametrize(
    "other",
    [
        {"num_heads": 4},
        {"num_layers": 8, "vace_layers": (0, 4)},
        {"num_layers": 2, "vace_layers": (0, 1)},
        {"text_dim": 24},
    ],
)
def test_a_module_of_another_size_is_refused(tmp_path, parts, other):
    """Also where every shape fits: heads, depth and places of the VACE blocks show in no shape."""
    folder, _ = parts
    config = replace(CONFIG, **other)
    save_weights(tmp_path / "w.safetensors", config, weights_of(config))
    split(tmp_path / "w.safetensors", tmp_path / "base.safetensors", tmp_path / "module.safetensors")
    for form in ("bf16", "Q8_0"):
        module = converted(tmp_path / "module.safetensors", folder_in(tmp_path, form), form).path
        with pytest.raises(ValueError, match=rf"of different size \({next(iter(other))} ") as error:
            load_network(folder / "base.safetensors", vace=module, dtype=torch.float32)
        check_refusal(str(error.value))


def test_a_module_says_the_places_of_its_blocks(tmp_path, parts):
    """Over a base without a config too, as others write them."""
    config = replace(CONFIG, vace_layers=(0, 3))
    weights = weights_of(config, torch.float32)
    save_weights(tmp_path / "w.safetensors", config, weights)
    split(tmp_path / "w.safetensors", tmp_path / "base.safetensors", tmp_path / "module.safetensors")
    text = {name: value for name, value in weights.items() if not is_vace(name)}
    save_file(text, tmp_path / "theirs.safetensors")
    for base in ("base", "theirs"):
        info = inspect(tmp_path / f"{base}.safetensors", vace=tmp_path / "module.safetensors")
        assert info.problem == "" and info.config == config


def test_a_module_of_released_size_carries_no_config(tmp_path):
    """So that programs which know nothing of this project open its other forms too."""
    shapes = {name: shape for name, shape in shapes_of(wan_vace_14b()).items() if is_vace(name)}
    path = write_header_only(tmp_path / "module.safetensors", shapes)
    assert inspect(path).usage and inspect(path).config is None
    write_header_only(path, {**shapes, "vace_blocks.3.ffn.0.weight": (5120, 5120)})
    info = inspect(path)
    assert (
        not info.usage
        and "vace_blocks.3.ffn.0.weight is [5120, 5120], expected [13824, 5120]" in info.problem
    )
    del shapes["vace_blocks.5.after_proj.bias"]
    write_header_only(path, shapes)
    with pytest.raises(ValueError, match=r"misses 1 key: vace_blocks\.5\.after_proj\.bias") as error:
        convert(path, tmp_path / "out.safetensors", form="fp8_scaled")
    check_refusal(str(error.value))


def test_the_command(tmp_path, parts, capsys):
    folder, _ = parts
    source = str(folder / "theirs.safetensors")
    for arguments in (
        [str(tmp_path / "a.safetensors"), "--dtype", "fp8_scaled", "--plain"],
        [str(tmp_path / "b.gguf"), "--type", "Q8_0"],
    ):
        assert main(["convert", source, *arguments]) == 0
        assert "a VACE module: use it with the T2V network of its size" in capsys.readouterr().out
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "author": "someone"}
    assert (
        main(["convert", str(folder / "ours.safetensors"), str(tmp_path / "c.safetensors"), "--plain"]) == 1
    )
    check_refusal(capsys.readouterr().err.strip())


def test_inspect_says_how_a_lora_is_used(tmp_path, parts, capsys):
    folder, weights = parts
    save_weights(tmp_path / "student.safetensors", CONFIG, {n: v + 0.1 for n, v in weights.items()})
    extract_lora(tmp_path / "student.safetensors", folder / "w.safetensors", tmp_path / "lora.safetensors")
    assert main(["inspect", str(tmp_path / "lora.safetensors")]) == 0
    printed = capsys.readouterr().out
    assert "a LoRA: put it on a network of its size" in printed and "cannot" not in printed


def test_inspect_says_what_opens_a_form(tmp_path, parts, capsys):
    """int8 is read everywhere, nvfp4 by ComfyUI's layers alone."""
    folder, _ = parts
    assert (
        main(["convert", str(folder / "w.safetensors"), str(tmp_path / "i.safetensors"), "--dtype", "int8"])
        == 0
    )
    assert capsys.readouterr().out.splitlines()[-1] == "  can be loaded"
    stored = load_file(folder / "w.safetensors")
    name = "blocks.0.ffn.0"
    stored[f"{name}.weight"] = torch.ones(256, 32, dtype=torch.uint8)
    stored[f"{name}.weight_scale"] = torch.ones(256, 4).to(torch.float8_e4m3fn)
    stored[f"{name}.weight_scale_2"] = torch.ones(())
    with safe_open(folder / "w.safetensors", "pt") as file:
        save_file(stored, tmp_path / "n.safetensors", file.metadata())
    assert main(["inspect", str(tmp_path / "n.safetensors")]) == 0
    assert "can be loaded by VDOT Load Model alone: nvfp4" in capsys.readouterr().out
