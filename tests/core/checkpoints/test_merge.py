"""Splitting a network and joining it again, adding LoRAs of every usual form, and what is refused."""

import errno
import os
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.core.checkpoints.helpers import (
    TINY,
    TINY_TEXT,
    assert_same,
    is_vace,
    shapes_of,
    weights_of,
    write_header_only,
)
from tests.core.checkpoints.lora_files import BIAS, save_lora
from tests.core.networks.helpers import diffusers_name
from vdot_core.checkpoints import (
    LoraOptions,
    acc_wan_init,
    convert,
    convert_to_gguf,
    extract_lora,
    inspect,
    merge,
    read_weights,
    safetensors_files,
    save_weights,
    split,
)
from vdot_core.checkpoints.__main__ import main
from vdot_core.networks import WanVaceConfig, wan_vace_1_3b

ONES = {"diffusion_model.head.modulation.diff": torch.ones(1, 2, 24)}


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.safetensors"
    save_weights(path, TINY, weights_of(dtype=torch.float32))
    return path


@pytest.mark.parametrize("naming", ["wan", "comfyui", "diffusers"])
def test_split_then_merge_is_the_input_bit_by_bit(tmp_path, naming):
    weights = weights_of()
    weights["patch_embedding.weight"] = weights["patch_embedding.weight"].float()
    config = replace(TINY, vace_layers=(0, 3))  # unevenly spaced: only the config says it
    source, text, module, back = (tmp_path / f"{n}.safetensors" for n in ("in", "text", "module", "back"))
    save_weights(source, config, weights, metadata={"step": "1200"})
    infos = split(source, text, module, naming=naming)
    assert infos[0].config == replace(config, vace_layers=()) and not infos[0].problem
    assert infos[1].layout == "vace-module"
    rename = {"wan": str, "comfyui": "model.diffusion_model.{}".format, "diffusers": diffusers_name}[naming]
    assert load_file(module).keys() == {rename(name) for name in weights if is_vace(name)}
    assert load_file(text).keys() == {rename(name) for name in weights if not is_vace(name)}
    info = merge(text, [module], back)
    assert info.config == config and info.metadata["step"] == "1200"
    assert_same(load_file(back), weights)


def test_parts_of_released_sizes_carry_no_config(tmp_path):
    """ComfyUI without this pack gives unknown config fields to its network, which fails."""
    source = write_header_only(tmp_path / "vace.safetensors", shapes_of(wan_vace_1_3b()))
    keys = []

    def first_tensor_only(file, header, specs, tensors):
        file.write(header)
        keys.append(set(specs))
        file.truncate(len(header) + sum(spec.num_bytes for spec in specs.values()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(safetensors_files, "_write", first_tensor_only)
        split(source, tmp_path / "t2v.safetensors", tmp_path / "module.safetensors")
    for name in ("t2v", "module"):
        with safe_open(tmp_path / f"{name}.safetensors", "pt") as file:
            assert file.metadata() == {"format": "pt"}
    assert keys[0] | keys[1] == set(shapes_of(wan_vace_1_3b())) and not keys[0] & keys[1]
    assert inspect(tmp_path / "t2v.safetensors", vace=tmp_path / "module.safetensors").problem == ""


def test_a_plain_file_of_a_size_that_is_not_released_is_refused(tmp_path, base):
    lora = save_lora(tmp_path / "l.safetensors", ONES)
    for call in (
        lambda out: merge(base, [lora], out, plain=True),
        lambda out: convert(base, out, plain=True),
    ):
        with pytest.raises(ValueError, match="width 24 and 4 blocks is of no released size"):
            call(tmp_path / "out.safetensors")


def test_acc_wan_init_is_a_merge_with_a_complete_network(tmp_path, base):
    text = tmp_path / "stage1.safetensors"
    save_weights(text, TINY_TEXT, weights_of(TINY_TEXT, torch.float32, seed=5))
    info = merge(text, [base], tmp_path / "out.safetensors")
    assert info.config == TINY
    expected = acc_wan_init(load_file(base), load_file(text))
    assert_same(load_file(tmp_path / "out.safetensors"), expected)


def test_a_module_and_loras_at_once(tmp_path, base, caplog):
    source = load_file(base)
    text = tmp_path / "text.safetensors"
    save_weights(text, TINY_TEXT, {n: v for n, v in source.items() if not is_vace(n)})
    save_file({n: v for n, v in source.items() if is_vace(n)}, tmp_path / "module.safetensors")
    change = torch.ones_like(source[BIAS])
    tensors = {
        f"diffusion_model.{BIAS.removesuffix('.bias')}.diff_b": change,
        "lora_te_x.alpha": torch.ones(1),
    }
    lora = save_lora(tmp_path / "l.safetensors", tensors)
    with caplog.at_level("INFO", "vdot"):
        merge(text, [lora, tmp_path / "module.safetensors"], tmp_path / "out.safetensors")
    assert (
        "changes 1 of" in caplog.text
        and "1 of its keys belong to no layer of the network: lora_te_x" in caplog.text
    )
    assert_same(load_file(tmp_path / "out.safetensors"), {**source, BIAS: source[BIAS] + change})


@pytest.mark.parametrize("form", ["fp8_scaled", "Q8_0"])
def test_a_quantized_base(tmp_path, form):
    """Its LoRA holds the rounding too, so that both give the student; merged in place it would be lost."""
    config = WanVaceConfig(64, 96, 2, 2, vace_layers=(0,), text_dim=32, freq_dim=32)
    weights = weights_of(config, torch.float32)
    save_weights(tmp_path / "exact.safetensors", config, weights)
    student = {name: value + 0.02 * torch.randn_like(value) for name, value in weights.items()}
    save_weights(tmp_path / "student.safetensors", config, student)
    if form == "fp8_scaled":
        base = convert(tmp_path / "exact.safetensors", tmp_path / "base.safetensors", form=form).path
    else:
        base = convert_to_gguf(tmp_path / "exact.safetensors", tmp_path / "base.gguf", form).path
    lora, out = tmp_path / "lora.safetensors", tmp_path / "out.safetensors"
    extract_lora(tmp_path / "student.safetensors", base, lora, LoraOptions(64, dtype=torch.float32))
    with pytest.raises(ValueError, match="dtype"):
        merge(base, [lora], out)
    merge(base, [lora], out, dtype=torch.float32)
    for name, value in load_file(out).items():
        assert torch.allclose(value, student[name], atol=1e-5), name


def test_refusals(tmp_path, base):
    text, out = tmp_path / "text.safetensors", tmp_path / "out.safetensors"
    save_weights(text, TINY_TEXT, weights_of(TINY_TEXT))
    lora = save_lora(
        tmp_path / "l.safetensors", {"diffusion_model.head.modulation.diff": torch.ones(1, 2, 24)}
    )
    vae = save_lora(tmp_path / "vae.safetensors", {"decoder.conv_in.weight": torch.ones(2)})
    fp8 = tmp_path / "fp8.safetensors"
    save_weights(fp8, TINY, {n: v.to(torch.float8_e4m3fn) for n, v in weights_of().items()})
    for arguments, keywords, sentence in (
        ((base, []), {}, "nothing to merge"),
        ((base, [text]), {}, r"text\.safetensors is a T2V network.*a VACE module, a VACE network or a LoRA"),
        ((base, [vae]), {}, "this is a VAE"),
        ((base, [base]), {}, "has a VACE branch already"),
        ((text, [base, base]), {}, "are 2 VACE modules; give one"),
        ((base, [lora]), {"strengths": (1.0, 2.0)}, "2 strengths for 1 LoRA;"),
        ((base, [lora]), {"strengths": (float("nan"),)}, "give finite numbers"),
        ((base, [lora]), {"strengths": (1e308,)}, r"would be added 1e\+308 times.*give a lower strength"),
        ((fp8, [lora]), {}, "changes 1 tensors that the base holds in fp8"),
        ((base, [tmp_path / "none"]), {}, "does not exist"),
    ):
        with pytest.raises(ValueError, match=sentence):
            merge(*arguments, out, **keywords)
    merge(fp8, [lora], out, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="exists already"):
        merge(base, [lora], out)
    for arguments, sentence in (
        ((text, out, tmp_path / "m.safetensors"), "no VACE branch to split off"),
        ((base, tmp_path / "a.safetensors", tmp_path / "a.safetensors"), "is given twice"),
        ((base, tmp_path / "a.safetensors", out), "exists already"),
    ):
        with pytest.raises(ValueError, match=sentence):
            split(*arguments, overwrite=sentence.startswith("no"))
    assert not (tmp_path / "a.safetensors").exists()
    assert inspect(out).layout == "vdot", "a refused split has not replaced it"
    with pytest.raises(ValueError, match="naming is 'kijai'; give wan, comfyui, diffusers"):
        split(base, tmp_path / "a.safetensors", tmp_path / "b.safetensors", naming="kijai")


def test_no_input_is_lost_to_a_result(tmp_path, base):
    """Also with --overwrite, which is for results of earlier runs."""
    text, module, lora = (tmp_path / f"{name}.safetensors" for name in ("text", "module", "lora"))
    split(base, text, module)
    save_lora(lora, {"diffusion_model.head.modulation.diff": torch.ones(1, 2, 24)})
    shards = convert(base, tmp_path / "s.safetensors", shard_bytes=20_000).path
    parts = convert(module, tmp_path / "p.safetensors", shard_bytes=20_000).path
    calls = [
        lambda: split(base, base, tmp_path / "m.safetensors", overwrite=True),
        lambda: split(base, tmp_path / "b.safetensors", base, overwrite=True),
        lambda: merge(base, [lora], lora, overwrite=True),
        lambda: merge(text, [module], module, overwrite=True),
        lambda: convert(text, module, vace=module, overwrite=True),
        lambda: convert(shards, tmp_path / "s.safetensors", shard_bytes=20_000, overwrite=True),
        lambda: convert(shards, sorted(tmp_path.glob("s-00002-*"))[0], overwrite=True),
        lambda: merge(shards, [lora], sorted(tmp_path.glob("s-00002-*"))[0], overwrite=True),
        lambda: merge(text, [parts], sorted(tmp_path.glob("p-00002-*"))[0], overwrite=True),
    ]
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for call in calls:
        with pytest.raises(ValueError, match="is one of the files to read; give another name"):
            call()
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    merge(base, [lora], base, overwrite=True)  # the only network: it is read before it is replaced
    convert(base, base, dtype=torch.float32, overwrite=True)


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_links_are_not_replaced(tmp_path, base):
    (tmp_path / "link.safetensors").symlink_to(base)
    lora = save_lora(
        tmp_path / "l.safetensors", {"diffusion_model.head.modulation.diff": torch.ones(1, 2, 24)}
    )
    for call in (
        lambda: merge(base, [lora], tmp_path / "link.safetensors", overwrite=True),
        lambda: split(base, tmp_path / "a.safetensors", tmp_path / "link.safetensors", overwrite=True),
    ):
        with pytest.raises(ValueError, match="is a link"):
            call()
    assert sorted(os.listdir(tmp_path)) == ["base.safetensors", "l.safetensors", "link.safetensors"]


def test_a_full_disk_at_the_second_part_leaves_neither(tmp_path, base, monkeypatch):
    write, calls = safetensors_files._write, []

    def full_at_second(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(*arguments)

    monkeypatch.setattr(safetensors_files, "_write", full_at_second)
    with pytest.raises(ValueError, match=r"cannot write .*m\.safetensors: No space left"):
        split(base, tmp_path / "t.safetensors", tmp_path / "m.safetensors")
    assert os.listdir(tmp_path) == ["base.safetensors"]
    for name in "tm":
        (tmp_path / f"{name}.safetensors").write_text("earlier")
    calls.clear()
    with pytest.raises(ValueError, match=r"cannot write .*m\.safetensors: No space left"):
        split(base, tmp_path / "t.safetensors", tmp_path / "m.safetensors", overwrite=True)
    assert [(tmp_path / f"{name}.safetensors").read_text() for name in "tm"] == ["earlier"] * 2


def test_parts_that_others_write_meanwhile_stay(tmp_path, base, monkeypatch):
    """Two commands at once: the one that is late names the file and leaves it."""
    write = safetensors_files._write

    def late(*arguments):
        for name in "tm":
            (tmp_path / f"{name}.safetensors").write_text("another's")
        write(*arguments)

    monkeypatch.setattr(safetensors_files, "_write", late)
    with pytest.raises(ValueError, match=r"t\.safetensors exists already; give another name"):
        split(base, tmp_path / "t.safetensors", tmp_path / "m.safetensors")
    assert [(tmp_path / f"{name}.safetensors").read_text() for name in "tm"] == ["another's"] * 2
    assert sorted(os.listdir(tmp_path)) == ["base.safetensors", "m.safetensors", "t.safetensors"]


def test_two_names_of_one_file_are_no_base_and_module(tmp_path, base):
    (tmp_path / "folder").mkdir()
    target = tmp_path / "x.safetensors"
    for write in (False, True):
        with pytest.raises(ValueError, match="is given twice; give a file for the base"):
            split(base, target, tmp_path / "folder" / ".." / "x.safetensors", overwrite=True)
        assert target.exists() is write
        target.write_text("earlier")


def test_a_source_that_changes_meanwhile_is_refused(tmp_path, base, monkeypatch):
    lora = save_lora(
        tmp_path / "l.safetensors", {"diffusion_model.head.modulation.diff": torch.ones(1, 2, 24)}
    )
    write = safetensors_files._write

    def changed(*arguments):
        with base.open("r+b") as file:
            file.seek(base.stat().st_size - 10)
            file.write(bytes(10))
        write(*arguments)

    monkeypatch.setattr(safetensors_files, "_write", changed)
    with pytest.raises(ValueError, match=r"base\.safetensors changed while it was being read"):
        merge(base, [lora], tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_command_line(tmp_path, base, capsys):
    text, module, back = (str(tmp_path / f"{n}.safetensors") for n in ("t", "m", "back"))
    assert main(["split", str(base), "--base", text, "--module", module]) == 0
    printed = capsys.readouterr().out
    assert "T2V base, " in printed and "VACE module, " in printed
    lora = save_lora(
        tmp_path / "l.safetensors", {"diffusion_model.head.modulation.diff": torch.ones(1, 2, 24)}
    )
    assert main(["merge", text, module, str(lora), str(lora), back, "--strength", "1", "-0.5"]) == 0
    assert "can be loaded" in capsys.readouterr().out
    weights = load_file(base)
    weights["head.modulation"] = weights["head.modulation"] + 0.5
    assert torch.allclose(read_weights(back).state_dict["head.modulation"], weights["head.modulation"])
    assert main(["merge", text, module, back]) == 1
    assert "exists already" in capsys.readouterr().err
