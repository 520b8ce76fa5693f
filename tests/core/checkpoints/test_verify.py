"""`verify`: a file as published passes, each kind of fault fails its own check; weights read by the block."""

import hashlib
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.core.checkpoints.helpers import (
    TINY,
    is_vace,
    prefixed,
    shapes_of,
    weights_of,
    write_header_only,
)
from tests.core.networks.helpers import inputs
from vdot_core.checkpoints import convert, convert_to_gguf, load_network, save_weights
from vdot_core.checkpoints.__main__ import main
from vdot_core.checkpoints.read import loadable
from vdot_core.checkpoints.streamed import reader, stream_weights
from vdot_core.checkpoints.verify import verify
from vdot_core.networks import WanVace, WanVaceConfig, wan_vace_1_3b, wan_vace_14b


def failed(path, **keywords) -> dict[str, str]:
    """Title -> detail of the checks that fail."""
    return {check.title: check.detail for check in verify(path, **keywords) if not check.passed}


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_weights(path, TINY, weights_of())
    return path


@pytest.mark.parametrize("config, name", [(wan_vace_14b(), "14B"), (wan_vace_1_3b(), "1.3B")])
def test_the_published_layouts(tmp_path, config, name):
    """Parameter counts are the ones that the publishers state."""
    path = write_header_only(tmp_path / "w.safetensors", prefixed(shapes_of(config), "model."))
    checks = {check.title: check for check in verify(path, values=False)}
    assert all(check.passed for check in checks.values())
    assert f"Wan2.1-VACE-{name}" in checks["layout"].detail
    assert checks["parameters"].detail == {"14B": "17,337,592,896", "1.3B": "2,153,972,032"}[name]
    assert "none published" in checks["checksum"].detail


def test_a_t2v_network_of_released_size_needs_no_vace_branch(tmp_path):
    shapes = {name: shape for name, shape in shapes_of(wan_vace_1_3b()).items() if not is_vace(name)}
    path = write_header_only(tmp_path / "w.safetensors", shapes)
    assert not failed(path, values=False)
    module = {name: shape for name, shape in shapes_of(wan_vace_1_3b()).items() if is_vace(name)}
    module = write_header_only(tmp_path / "m.safetensors", module)
    assert not failed(path, vace=module, values=False)


def test_each_fault_fails_its_check(tmp_path):
    shapes = shapes_of(wan_vace_1_3b())
    for changed, title, detail in (
        (
            {n: s for n, s in shapes.items() if not n.startswith("blocks.29.")},
            "names",
            "27 missing: blocks.29.",
        ),
        ({**shapes, "extra.weight": (2,)}, "names", "1 unexpected: extra.weight"),
        ({**shapes, "head.head.bias": (63,)}, "shapes", "head.head.bias is [63], expected [64]"),
        ({**shapes, "head.head.bias": (63,)}, "parameters", "expected 2,153,972,032"),
    ):
        path = write_header_only(tmp_path / "w.safetensors", changed)
        assert detail in failed(path)[title]
    lora = {"diffusion_model.blocks.0.ffn.0.lora_A.weight": (2, 2)}
    assert "LoRA" in failed(write_header_only(tmp_path / "w.safetensors", lora))["layout"]


def test_values(tmp_path, tiny):
    assert not failed(tiny)
    for name, value, detail in (
        ("blocks.2.ffn.0.weight", torch.nan, "NaN or infinity in 1 tensors: blocks.2.ffn.0.weight"),
        ("blocks.2.ffn.0.bias", torch.inf, "NaN or infinity in 1 tensors"),
        ("vace_blocks.1.self_attn.q.weight", 0.0, "1 matrices of zeros: vace_blocks.1.self_attn.q.weight"),
    ):
        weights = weights_of()
        weights[name].fill_(value)
        save_weights(tmp_path / "w.safetensors", TINY, weights)
        assert list(failed(tmp_path / "w.safetensors")) == ["values"]
        assert detail in failed(tmp_path / "w.safetensors")["values"]
        assert not failed(tmp_path / "w.safetensors", values=False)


@pytest.mark.parametrize("form", ["fp8_scaled", "int8", "Q8_0"])
def test_quantized_forms_pass(tmp_path, form):
    config = WanVaceConfig(64, 96, 2, 2, vace_layers=(0,), text_dim=32, freq_dim=32)
    save_weights(tmp_path / "w.safetensors", config, weights_of(config))
    if form == "Q8_0":
        path = convert_to_gguf(tmp_path / "w.safetensors", tmp_path / "w.gguf", form).path
    else:
        path = convert(tmp_path / "w.safetensors", tmp_path / "out.safetensors", form=form).path
    assert not failed(path)


def test_a_file_that_holds_more_than_the_network(tmp_path):
    """An all-in-one checkpoint is larger than the network that is checked."""
    weights = prefixed(weights_of(), "model.diffusion_model.") | {
        "vae.decoder.conv_in.weight": torch.ones(2**20)
    }
    save_weights(tmp_path / "w.safetensors", TINY, weights_of())
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        metadata = file.metadata()
    save_file(weights, tmp_path / "w.safetensors", metadata=metadata)
    assert list(failed(tmp_path / "w.safetensors")) == ["size"]


def test_command_line(tmp_path, tiny, capsys):
    assert main(["verify", str(tiny), "--sha256"]) == 0
    printed = capsys.readouterr().out
    assert hashlib.sha256(tiny.read_bytes()).hexdigest() in printed and "FAIL" not in printed
    weights = weights_of()
    weights["head.head.weight"].zero_()
    save_weights(tiny, TINY, weights)
    assert main(["verify", str(tiny)]) == 1
    assert "FAIL  values" in capsys.readouterr().out
    assert main(["verify", str(tiny), "--headers"]) == 0
    os.truncate(tiny, 1000)
    assert main(["verify", str(tiny)]) == 1
    assert "truncated" in capsys.readouterr().err


def test_streamed_weights_give_the_output_of_a_loaded_network(tiny):
    network = WanVace(TINY, device="meta").eval()
    entries, reads = loadable(tiny, None, None, torch.float32).entries, []
    read = reader(entries)
    stream_weights(network, lambda name: reads.append(name) or read(name), "cpu")
    assert not any("blocks." in name for name in reads), "blocks are read when they run"
    arguments = inputs(TINY)
    with torch.no_grad():
        expected = load_network(tiny, dtype=torch.float32)(*arguments)
        for _ in range(2):
            assert torch.equal(network(*arguments), expected)
            assert all(p.is_meta for n, p in network.named_parameters() if "blocks." in n)
