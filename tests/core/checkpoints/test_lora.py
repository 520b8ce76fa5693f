"""Extracting a LoRA: how much it keeps, its keys, and what is refused."""

import errno
import json
import os
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.core.checkpoints.helpers import TINY, TINY_TEXT, assert_same, is_vace, weights_of, write_shards
from tests.core.networks.helpers import diffusers_name, diffusers_network, inputs, relative
from vdot_core.checkpoints import LoraOptions, extract_lora, load_network, merge, output_errors, save_weights
from vdot_core.checkpoints.__main__ import main

ASSETS = Path(__file__).resolve().parents[3] / "assets"
STUDENT, TEACHER = ASSETS / "vdot_tiny_student.safetensors", ASSETS / "vdot_tiny.safetensors"


@pytest.fixture(scope="module")
def change() -> dict[str, torch.Tensor]:
    """The bundled student minus its teacher, in float64."""
    student, teacher = load_file(STUDENT), load_file(TEACHER)
    return {name: student[name].double() - teacher[name].double() for name in student}


def saved(path: Path, weights: dict, config=TINY) -> Path:
    save_weights(path, config, weights)
    return path


def pair(tmp_path: Path, dtype=torch.float32) -> tuple[Path, Path]:
    """A small student and its base."""
    base = weights_of(dtype=dtype)
    student = {name: value + 0.01 * torch.randn_like(value) for name, value in base.items()}
    return saved(tmp_path / "student.safetensors", student), saved(tmp_path / "base.safetensors", base)


@pytest.mark.parametrize("rank, percent", [(16, 70), (32, 85), (64, 96)])
def test_energy_of_the_tiny_student(tmp_path, change, rank, percent):
    """The part kept is the best of the rank, and what the file itself says."""
    report = extract_lora(STUDENT, TEACHER, tmp_path / "lora.safetensors", LoraOptions(rank))
    total = sum(value.square().sum().item() for value in change.values())
    best = 0.0
    for value in change.values():
        if value.ndim == 2:
            best += torch.linalg.svdvals(value)[:rank].square().sum().item()
        else:
            best += value.square().sum().item()
    assert report.kept() == pytest.approx(best / total, abs=1e-4)
    assert 100 * report.kept() == pytest.approx(percent, abs=0.6)
    tensors, remainder = load_file(tmp_path / "lora.safetensors"), 0.0
    for name, value in change.items():
        key = f"diffusion_model.{name.removesuffix('.weight')}"
        if value.ndim == 2:
            value = (
                value
                - tensors.pop(f"{key}.lora_B.weight").double() @ tensors.pop(f"{key}.lora_A.weight").double()
            )
        elif name.endswith(".bias"):
            value = value - tensors.pop(f"diffusion_model.{name.removesuffix('.bias')}.diff_b").double()
        else:
            value = value - tensors.pop(f"{key}.diff").double()
        remainder += value.square().sum().item()
    assert not tensors
    assert report.kept() == pytest.approx(1 - remainder / total, abs=1e-6)
    table = report.table()
    assert "VACE blocks" in table and "self-attention q" in table and f"{100 * report.kept():.2f} %" in table


def test_auto_rank_keeps_the_energy_of_every_layer_up_to_the_cap(tmp_path, change):
    report = extract_lora(STUDENT, TEACHER, tmp_path / "lora.safetensors", LoraOptions(60, energy=0.95))
    capped = 0
    for one in report.changes:
        values = torch.linalg.svdvals(change[one.name]).square().cumsum(0) if one.rank else None
        if values is None:
            continue
        best = int((values < 0.95 * values[-1]).sum()) + 1
        assert one.rank == min(best, 60), one.name
        capped += best > 60
    assert capped


def test_full_rank_merged_is_the_student_to_rounding(tmp_path):
    lora = tmp_path / "lora.safetensors"
    extract_lora(STUDENT, TEACHER, lora, LoraOptions(512, dtype=torch.float32))
    merge(TEACHER, [lora], tmp_path / "merged.safetensors")
    student, merged = load_file(STUDENT), load_file(tmp_path / "merged.safetensors")
    for name, value in student.items():
        difference = (merged[name].float() - value.float()).abs()
        assert (difference <= 2**-10 * value.float().abs() + 1e-7).all(), name
        assert (difference == 0).float().mean() > 0.99, name
    errors = output_errors(STUDENT, TEACHER, lora)
    assert errors.lora < 1e-4 < 0.1 < errors.base


def test_effect_on_the_output_is_that_of_the_merged_file(tmp_path):
    lora, merged = tmp_path / "lora.safetensors", tmp_path / "merged.safetensors"
    extract_lora(STUDENT, TEACHER, lora, LoraOptions(16))
    merge(TEACHER, [lora], merged, dtype=torch.float32)
    errors = output_errors(STUDENT, TEACHER, lora)
    again = output_errors(STUDENT, merged, lora_of_nothing(tmp_path))
    assert errors.lora == pytest.approx(again.base, rel=1e-4)
    assert 0.02 < errors.lora < 0.5 * errors.base
    # The same three outputs from complete networks.
    network = [load_network(path, dtype=torch.float32) for path in (STUDENT, merged)]
    arguments = inputs(network[0].config, height=8, width=8)
    with torch.no_grad():
        outputs = [one(*arguments) for one in network]
    assert relative(outputs[1], outputs[0]) == pytest.approx(errors.lora, rel=0.5)


def lora_of_nothing(tmp_path: Path) -> Path:
    path = tmp_path / "nothing.safetensors"
    save_file({"diffusion_model.blocks.0.norm3.diff": torch.zeros(128)}, path)
    return path


def test_base_of_two_files_shards_and_scaled_fp8(tmp_path):
    """Every readable form of the base gives the same LoRA; fp8's own rounding is part of the change."""
    student, base = pair(tmp_path)
    expected = extract_lora(student, base, tmp_path / "expected.safetensors", LoraOptions(8))
    weights = load_file(base)
    text = saved(
        tmp_path / "text.safetensors", {n: v for n, v in weights.items() if not is_vace(n)}, TINY_TEXT
    )
    save_file({n: v for n, v in weights.items() if is_vace(n)}, tmp_path / "module.safetensors")
    write_shards(tmp_path / "shards", weights)
    forms = [(text, {"vace": tmp_path / "module.safetensors"}), (tmp_path / "shards", {"config": TINY})]
    for number, (path, arguments) in enumerate(forms):
        out = tmp_path / f"{number}.safetensors"
        report = extract_lora(student, path, out, LoraOptions(8), **arguments)
        assert report.kept() == expected.kept()
        assert_same(load_file(out), load_file(tmp_path / "expected.safetensors"))
    name = "blocks.1.ffn.0.weight"
    scale = weights[name].abs().max() / 448
    scaled = {**weights, name: (weights[name] / scale).to(torch.float8_e4m3fn)}
    scaled["blocks.1.ffn.0.scale_weight"] = scale.reshape(())
    save_file(scaled, tmp_path / "fp8.safetensors", metadata=dict(safe_open(base, "pt").metadata()))
    report = extract_lora(student, tmp_path / "fp8.safetensors", tmp_path / "8.safetensors", LoraOptions(8))
    change = load_file(student)[name].double() - scaled[name].double() * scale.double()
    (energy,) = (one.energy for one in report.changes if one.name == name)
    assert energy == pytest.approx(change.square().sum().item(), rel=1e-5)


def test_unchanged_parameters_take_no_room(tmp_path):
    base = weights_of(dtype=torch.float32)
    student = {**base, "blocks.0.ffn.0.weight": base["blocks.0.ffn.0.weight"] + 0.1}
    student["head.modulation"] = base["head.modulation"] * 2
    paths = saved(tmp_path / "s.safetensors", student), saved(tmp_path / "b.safetensors", base)
    report = extract_lora(*paths, tmp_path / "l.safetensors", LoraOptions(4, energy=0.999))
    assert {one.name: one.rank for one in report.changes} == {
        "blocks.0.ffn.0.weight": 1,
        "head.modulation": 0,
    }
    with safe_open(tmp_path / "l.safetensors", "pt") as file:
        assert sorted(file.keys()) == [
            "diffusion_model.blocks.0.ffn.0.lora_A.weight",
            "diffusion_model.blocks.0.ffn.0.lora_B.weight",
            "diffusion_model.head.modulation.diff",
        ]
        about = json.loads(file.metadata()["vdot_lora"])
    assert (
        about["student"] == "s.safetensors" and about["base"] == "b.safetensors" and about["energy"] == 0.999
    )
    assert report.num_bytes == (tmp_path / "l.safetensors").stat().st_size


def test_naming_of_diffusers(tmp_path):
    """Keys are diffusers' modules; applied there, as PEFT does, they give the student's linear layers."""
    student, base = pair(tmp_path)
    options = LoraOptions(64, dtype=torch.float32, naming="diffusers")
    report = extract_lora(student, base, tmp_path / "lora.safetensors", options)
    tensors = load_file(tmp_path / "lora.safetensors")
    peer, goal = (diffusers_network(load_network(path)) for path in (base, student))
    state, goal_state = peer.state_dict(), goal.state_dict()
    for name, module in peer.named_modules():
        if isinstance(module, torch.nn.Linear):
            up, down, bias = (
                tensors.pop(f"transformer.{name}.lora_{end}") for end in ("B.weight", "A.weight", "B.bias")
            )
            for parameter, value in ((f"{name}.weight", up @ down), (f"{name}.bias", bias)):
                assert torch.allclose(state[parameter] + value, goal_state[parameter], atol=1e-5), parameter
    assert not tensors
    left = {diffusers_name(name) for name in report.left_out}
    assert all("norm" in n or "scale_shift" in n or "patch_embedding" in n for n in left) and len(left) > 10
    assert "have no place" in report.summary() and report.kept() < 1
    again = extract_lora(student, base, tmp_path / "ours.safetensors", LoraOptions(64, dtype=torch.float32))
    assert not again.left_out and again.kept() > 0.999999


def test_diffusers_reads_the_lora_of_a_t2v_network(tmp_path):
    """ComfyUI's naming goes through diffusers' own converter, which knows no VACE blocks."""
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_wan_lora_to_diffusers

    base = weights_of(TINY_TEXT, torch.float32)
    student = {name: value + 0.01 * torch.randn_like(value) for name, value in base.items()}
    paths = [saved(tmp_path / f"{n}.safetensors", w, TINY_TEXT) for n, w in (("s", student), ("b", base))]
    extract_lora(*paths, tmp_path / "lora.safetensors", LoraOptions(64, dtype=torch.float32))
    converted = _convert_non_diffusers_wan_lora_to_diffusers(load_file(tmp_path / "lora.safetensors"))
    for name, value in student.items():
        if value.ndim == 2:
            module = f"transformer.{diffusers_name(name).removesuffix('.weight')}"
            change = converted[f"{module}.lora_B.weight"] @ converted[f"{module}.lora_A.weight"]
            assert torch.allclose(base[name] + change, value, atol=1e-5), name


def test_refusals(tmp_path):
    student, base = pair(tmp_path)
    text = saved(tmp_path / "text.safetensors", weights_of(TINY_TEXT), TINY_TEXT)
    out = tmp_path / "out.safetensors"
    same = saved(tmp_path / "same.safetensors", load_file(base))
    nan = load_file(base)
    nan["blocks.0.norm3.weight"] = nan["blocks.0.norm3.weight"] * torch.nan
    nan = saved(tmp_path / "nan.safetensors", nan)
    linked = tmp_path / "linked.safetensors"
    linked.symlink_to(base)
    norms = load_file(base)
    norms["head.modulation"] = norms["head.modulation"] + 1
    norms = saved(tmp_path / "norms.safetensors", norms)
    for arguments, options, sentence in (
        (
            (student, text),
            {},
            r"width 24, 4 blocks and 2 VACE blocks, the base .* 4 blocks and no VACE blocks",
        ),
        ((STUDENT, base), {}, r"width 128, 8 blocks and 4 VACE blocks, the base .* width 24, 4 blocks and 2"),
        ((base, base), {}, r"base\.safetensors is given twice"),
        ((base, linked), {}, "is given twice"),
        ((same, base), {}, "hold the same weights"),
        ((nan, base), {}, r"blocks\.0\.norm3\.weight has values that are not finite"),
        ((norms, base), {"naming": "diffusers"}, r"such as head\.modulation, for which diffusers"),
        ((student, tmp_path / "none"), {}, "does not exist"),
    ):
        with pytest.raises(ValueError, match=sentence):
            extract_lora(*arguments, out, LoraOptions(**options))
    before = sorted(tmp_path.iterdir())
    for fields, sentence in (
        ({"rank": 0}, "rank is 0; give an integer"),
        ({"rank": 2.0}, "rank is 2.0"),
        ({"device": "meta"}, r"device 'meta' cannot be used \(.*; give cpu"),
        ({"device": "nonsense"}, r"device 'nonsense' cannot be used \(.*; give cpu"),
        ({"energy": 0}, "energy is 0"),
        ({"energy": float("nan")}, "energy is nan"),
        ({"naming": "kohya"}, "give comfyui or diffusers"),
        ({"dtype": torch.float8_e4m3fn}, "give bfloat16, float16 or float32"),
    ):
        with pytest.raises(ValueError, match=sentence):
            LoraOptions(**fields)
    with pytest.raises(ValueError, match="exists already"):
        extract_lora(student, base, base)
    with pytest.raises(ValueError, match=r"linked\.safetensors is a link"):
        extract_lora(student, base, linked, overwrite=True)
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        extract_lora(student, base, tmp_path / "lora.pt")
    for source in (student, base):
        content = source.read_bytes()
        with pytest.raises(ValueError, match="is one of the files to read; give another name"):
            extract_lora(student, base, source, overwrite=True)
        assert source.read_bytes() == content
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    student, base = pair(tmp_path)
    before = sorted(os.listdir(tmp_path))

    class Full:
        def write(self, _):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def close(self):
            pass

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
        with pytest.raises(ValueError, match=r"cannot write .*l\.safetensors: No space left on device; make"):
            extract_lora(student, base, tmp_path / "l.safetensors")
    with pytest.raises(ValueError, match="cannot write"):
        extract_lora(student, base, tmp_path / "nowhere" / "l.safetensors")
    assert sorted(os.listdir(tmp_path)) == before


def test_a_change_beyond_float16_is_refused(tmp_path):
    base = weights_of(dtype=torch.float32)
    student = {**base, "head.modulation": base["head.modulation"] + 1e6}
    paths = saved(tmp_path / "s.safetensors", student), saved(tmp_path / "b.safetensors", base)
    with pytest.raises(ValueError, match=r"head\.modulation exceeds torch\.float16; use bfloat16"):
        extract_lora(*paths, tmp_path / "l.safetensors", LoraOptions(4, dtype=torch.float16))


def test_command_line(tmp_path, capsys):
    student, base = pair(tmp_path)
    out = tmp_path / "lora.safetensors"
    assert main(["lora", str(student), str(base), str(out), "--rank", "4", "--eval"]) == 0
    printed = capsys.readouterr().out
    assert "energy kept" in printed and "feed-forward" in printed and "base + LoRA" in printed
    arguments = ["lora", str(student), str(base), str(out), "--overwrite"]
    assert main([*arguments, "--rank", "auto", "--energy", "0.5", "--max_rank", "12"]) == 0
    with safe_open(out, "pt") as file:
        assert json.loads(file.metadata()["vdot_lora"])["energy"] == 0.5
    for wrong, sentence in (
        (["--energy", "0.5"], "belong to --rank auto"),
        (["--rank", "x"], "give a number"),
        (["--rank", "9" * 5000], "give a number"),
        (["--rank", "auto", "--max_rank", "0"], "rank is 0; give an integer"),
    ):
        assert main([*arguments, *wrong]) == 1
        assert sentence in capsys.readouterr().err
