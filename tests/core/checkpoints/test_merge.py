"""Splitting a network and joining it again, adding LoRAs of every usual form, and what is refused."""

import errno
import json
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
from tests.core.checkpoints.lora_files import BIAS, CONV, FORMS, NORM, TABLE, WEIGHT, factors, save_lora
from tests.core.networks.helpers import diffusers_name
from vdot_core.checkpoints import (
    acc_wan_init,
    inspect,
    merge,
    read_weights,
    safetensors_files,
    save_weights,
    split,
)
from vdot_core.checkpoints.__main__ import main
from vdot_core.networks import wan_vace_1_3b

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


def test_acc_wan_init_is_a_merge_with_a_complete_network(tmp_path, base):
    text = tmp_path / "stage1.safetensors"
    save_weights(text, TINY_TEXT, weights_of(TINY_TEXT, torch.float32, seed=5))
    info = merge(text, [base], tmp_path / "out.safetensors")
    assert info.config == TINY
    expected = acc_wan_init(load_file(base), load_file(text))
    assert_same(load_file(tmp_path / "out.safetensors"), expected)


@pytest.mark.parametrize("form", FORMS)
def test_every_usual_form_of_a_lora(tmp_path, base, form):
    """Two LoRAs at two strengths: the sum, rounded once."""
    weights, expected = load_file(base), {}
    loras, strengths, alpha = [], (0.7, -0.3), 6.0
    for number, strength in enumerate(strengths):
        tensors = {}
        for name in (WEIGHT, "vace_blocks.1.ffn.0.weight", "text_embedding.2.weight", "head.head.weight"):
            up, down = factors(weights[name].shape, seed=number)
            tensors |= FORMS[form](name, up, down, alpha)
            change = strength * (alpha / 3) * (up.double() @ down.double())
            expected[name] = expected.get(name, weights[name].double()) + change
        loras.append(save_lora(tmp_path / f"{number}.safetensors", tensors))
    info = merge(base, loras, tmp_path / "out.safetensors", strengths=strengths)
    assert [one["strength"] for one in json.loads(info.metadata["vdot_merged"])] == list(strengths)
    merged = load_file(tmp_path / "out.safetensors")
    for name, value in weights.items():
        if name in expected:
            assert torch.allclose(merged[name].double(), expected[name], rtol=1e-6, atol=1e-6), name
        else:
            assert torch.equal(merged[name], value), name


def test_differences_biases_tables_and_convolutions(tmp_path, base):
    weights = load_file(base)
    up, down = factors(weights[CONV].shape)
    changes = {name: torch.randn(weights[name].shape) for name in (NORM, TABLE, BIAS)}
    tensors = {
        f"diffusion_model.{NORM.removesuffix('.weight')}.diff": changes[NORM],
        f"diffusion_model.{TABLE}.diff": changes[TABLE],
        f"diffusion_model.{BIAS.removesuffix('.bias')}.diff_b": changes[BIAS],
        "diffusion_model.patch_embedding.lora_up.weight": up.view(*up.shape, 1, 1, 1),
        "diffusion_model.patch_embedding.lora_down.weight": down.view(len(down), *weights[CONV].shape[1:]),
    }
    lora = save_lora(tmp_path / "l.safetensors", tensors)
    merge(base, [lora], tmp_path / "out.safetensors", strengths=[0.5], dtype=torch.bfloat16)
    changes[CONV] = (up @ down).view(weights[CONV].shape)
    for name, value in load_file(tmp_path / "out.safetensors").items():
        expected = weights[name] + 0.5 * changes[name] if name in changes else weights[name]
        assert (value == expected.bfloat16()).float().mean() > 0.999, name
        assert torch.allclose(value.float(), expected, rtol=2**-8, atol=1e-6), name


def test_alpha_in_the_header_of_files_that_diffusers_saves(tmp_path, base):
    weights = load_file(base)
    up, down = factors(weights[WEIGHT].shape)
    module = f"transformer.{diffusers_name(WEIGHT).removesuffix('.weight')}"
    tensors = {
        f"{module}.lora_B.weight": up,
        f"{module}.lora_A.weight": down,
        f"{module}.lora_B.bias": up[:, 0],
    }
    settings = {"transformer.r": 3, "transformer.lora_alpha": 12}
    header = {"lora_adapter_metadata": json.dumps(settings)}
    merge(base, [save_lora(tmp_path / "l.safetensors", tensors, header)], tmp_path / "out.safetensors")
    merged, bias = load_file(tmp_path / "out.safetensors"), WEIGHT.replace("weight", "bias")
    assert torch.allclose(merged[WEIGHT], weights[WEIGHT] + 4 * (up @ down), atol=1e-5)
    assert torch.allclose(merged[bias], weights[bias] + 4 * up[:, 0], atol=1e-5)
    for wrong in ('{"transformer.use_rslora": true}', '{"transformer.lora_alpha": "x"}', "{", "[]"):
        lora = save_lora(tmp_path / "l.safetensors", tensors, {"lora_adapter_metadata": wrong})
        with pytest.raises(ValueError, match=r"l\.safetensors"):
            merge(base, [lora], tmp_path / "out.safetensors", overwrite=True)


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
    with caplog.at_level("INFO"):
        merge(text, [lora, tmp_path / "module.safetensors"], tmp_path / "out.safetensors")
    assert (
        "changes 1 of" in caplog.text
        and "1 of its keys belong to no layer of the network: lora_te_x" in caplog.text
    )
    assert_same(load_file(tmp_path / "out.safetensors"), {**source, BIAS: source[BIAS] + change})


def test_malformed_loras_are_named(tmp_path, base):
    weights = load_file(base)
    up, down = factors(weights[WEIGHT].shape)
    key = f"diffusion_model.{WEIGHT.removesuffix('.weight')}"
    good = {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down}
    for tensors, sentence in (
        ({f"{key}.lora_up.weight": up}, r"q\.lora_up\.weight' lacks its lora_down"),
        ({f"{key}.lora_A.weight": down}, r"q\.lora_A\.weight' lacks its lora_up"),
        ({f"{key}.alpha": torch.ones(1)}, "lacks its lora_up and lora_down"),
        ({**good, f"{key}.lora_up.weight": up[:5]}, r"\[5, 3\] times its partner \[3, 24\] does not fit"),
        ({**good, f"{key}.lora_down.weight": down[:2]}, r"\[24, 3\] times its partner \[2, 24\]"),
        ({**good, f"{key}.lora_down.weight": down[0]}, "does not fit"),
        ({**good, f"{key}.alpha": torch.ones(2)}, r"alpha' is \[2\]; expected one number"),
        ({**good, f"{key}.alpha": torch.tensor(torch.nan)}, "alpha' is nan"),
        ({**good, f"{key}.lora_up.weight": up.int()}, "int32; give a LoRA of floating point"),
        ({**good, f"{key}.diff": weights[WEIGHT]}, "has both factors and"),
        ({**good, f"{key}.lora_B.weight": up}, "are the same change; remove one"),
        (
            {**good, f"{key}.dora_scale": torch.ones(24, 1)},
            r"dora_scale', an update of a kind that is not read",
        ),
        ({f"{key}.lokr_w1": up, f"{key}.lokr_w2": up}, "DoRA, LoHa, LoKr"),
        ({f"{key}.diff_b": torch.ones(23)}, r"diff_b' is \[23\], blocks.1.self_attn.q.bias \[24\]"),
        (
            {"diffusion_model.double_blocks.0.q.lora_up.weight": up},
            "no key of this network's layers, but diff",
        ),
        ({f"{key}.lora_up.weight": up * torch.inf, f"{key}.lora_down.weight": down}, "holds NaN, or values"),
    ):
        lora = save_lora(tmp_path / "l.safetensors", tensors)
        with pytest.raises(ValueError, match=sentence):
            merge(base, [lora], tmp_path / "out.safetensors")
        assert not (tmp_path / "out.safetensors").exists(), sentence


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
