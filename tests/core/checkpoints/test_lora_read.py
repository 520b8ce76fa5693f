"""Reading LoRA files: every usual form, added to a network, and malformed ones, which are named."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.core.checkpoints.helpers import TINY, weights_of
from tests.core.checkpoints.lora_files import BIAS, CONV, FORMS, NORM, TABLE, WEIGHT, factors, save_lora
from tests.core.networks.helpers import diffusers_name
from tests.support.watch import check_refusal
from vdot_core.checkpoints import merge, save_weights
from vdot_core.checkpoints.lora.base import note_of_another_base
from vdot_core.checkpoints.lora.read import default_alpha


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.safetensors"
    save_weights(path, TINY, weights_of(dtype=torch.float32))
    return path


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"is not readable \("),
        ("[]", "expected a table of settings"),
        ('"x"', "expected a table of settings"),
        ('{"lora_alpha": "x"}', "lora_alpha is 'x', expected a number; save it again"),
        ('{"lora_alpha": 0}', "lora_alpha is 0, expected a number other than 0, by which"),
    ],
)
def test_a_damaged_header_of_diffusers_is_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        default_alpha(tmp_path / "l.safetensors", {"lora_adapter_metadata": text})
    check_refusal(str(error.value))


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
            {"diffusion_model.blocks.0.ffn.0.diff": torch.ones(24, 40)},
            r"diff' is \[24, 40\], blocks.0.ffn.0.weight \[40, 24\]",
        ),
        ({f"{key}.diff": torch.ones(24 * 24)}, r"diff' is \[576\]"),
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


def test_the_network_that_a_lora_was_made_from_is_named():
    ours = {"vdot_lora": json.dumps({"base": "base.safetensors", "rank": 4})}
    for metadata in (ours, {"base": "base.safetensors"}, {"ss_sd_model_name": "C:\\m\\Base.safetensors"}):
        assert not note_of_another_base(metadata, "base.gguf")
        note = note_of_another_base(metadata, "other.safetensors")
        assert "ase.safetensors, and the model is other.safetensors" in note
    for metadata in ({}, {"vdot_lora": "["}, {"vdot_lora": "3"}, {"vdot_lora": '{"base": 3}'}, {"base": " "}):
        assert not note_of_another_base(metadata, "other.safetensors")
    long = note_of_another_base({"base": "\u202ea" * 10**5}, "x" * 10**5)
    assert len(long) <= 400 and long.isprintable()


def test_an_alpha_of_0_is_refused_by_its_name(tmp_path, base):
    up, down = factors(load_file(base)[WEIGHT].shape)
    lora = save_lora(tmp_path / "l.safetensors", FORMS["dotted"](WEIGHT, up, down, 0.0))
    with pytest.raises(ValueError, match=r"alpha' is 0, by which the LoRA changes nothing"):
        merge(base, [lora], tmp_path / "out.safetensors")
