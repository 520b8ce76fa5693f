"""The config is inferred from shapes of released sizes, from metadata or config.json, or asked for."""

import json
import logging
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from tests.core.checkpoints.helpers import (
    TINY,
    is_vace,
    prefixed,
    shapes_of,
    wan_json,
    weights_of,
    write_header_only,
    write_shards,
)
from vdot_core.checkpoints import inspect, load_network, read_weights
from vdot_core.networks import wan_vace_1_3b, wan_vace_14b


@pytest.mark.parametrize(
    ("preset", "count"), [(wan_vace_14b, 17_337_592_896), (wan_vace_1_3b, 2_153_972_032)], ids=["14B", "1.3B"]
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn], ids=["fp16", "fp8"])
def test_released_sizes(tmp_path, preset, count, dtype):
    """Full-size files, whose data is a hole on the disk: the header says it all, and loading maps it."""
    shapes = prefixed(shapes_of(preset()), "model.diffusion_model.")
    path = write_header_only(tmp_path / "wan2.1_vace_14B_fp16.safetensors", shapes, dtype)
    start = time.process_time()
    info = inspect(path)
    assert (info.config, info.num_parameters, info.problem) == (preset(), count, "")
    assert info.dtypes == {str(dtype).removeprefix("torch."): count}
    network = load_network(path)
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    assert network.blocks[-1].ffn[2].weight[0, 0] == 0
    assert time.process_time() - start < 20


def test_text_only_and_split_14b(tmp_path):
    shapes = shapes_of(wan_vace_14b())
    base = write_header_only(
        tmp_path / "t2v.safetensors", {n: s for n, s in shapes.items() if not is_vace(n)}
    )
    module = write_header_only(tmp_path / "vace.safetensors", {n: s for n, s in shapes.items() if is_vace(n)})
    assert inspect(base).config == replace(wan_vace_14b(), vace_layers=())
    assert inspect(base, vace=module).config == wan_vace_14b()
    assert inspect(module).num_parameters + inspect(base).num_parameters == 17_337_592_896


def test_unknown_width_needs_a_config(tmp_path):
    save_file(weights_of(), tmp_path / "tiny.safetensors")
    info = inspect(tmp_path / "tiny.safetensors")
    assert info.config is None and info.layout == "wan"
    with pytest.raises(ValueError, match=r"24 wide.*\(1536, 5120\).*number of heads cannot be known"):
        read_weights(tmp_path / "tiny.safetensors")


def test_uneven_and_incomplete_blocks(tmp_path, caplog):
    shapes = shapes_of(wan_vace_1_3b())
    short = {n: s for n, s in shapes.items() if not n.startswith("blocks.29.")}
    assert (
        "29 blocks and 15 VACE blocks"
        in inspect(write_header_only(tmp_path / "a.safetensors", short)).problem
    )
    gap = {n: s for n, s in shapes.items() if not n.startswith("blocks.7.")}
    problem = inspect(write_header_only(tmp_path / "b.safetensors", gap)).problem
    assert "blocks.7 is missing, but later blocks exist" in problem
    text = {n: s for n, s in short.items() if not is_vace(n)}
    with caplog.at_level(logging.WARNING, "vdot"):
        inspect(write_header_only(tmp_path / "c.safetensors", text))
    assert "29 blocks; released networks of width 1536 have 30" in caplog.text


def test_config_json_wins_over_even_spacing(tmp_path):
    """Only the config knows that the VACE layers are not evenly spaced."""
    config = replace(TINY, vace_layers=(0, 3))
    folder = write_shards(tmp_path / "repo", weights_of(config))
    (folder / "config.json").write_text(json.dumps(wan_json(config)))
    assert load_network(folder).config == config
    (folder / "config.json").write_text(json.dumps({**wan_json(config), "num_layers": 5}))
    with pytest.raises(ValueError, match="4 blocks and 2 VACE blocks, its config says 5"):
        load_network(folder)
    (folder / "config.json").write_text(json.dumps({**wan_json(config), "model_type": "i2v"}))
    with pytest.raises(ValueError, match=r"config\.json is of an I2V network"):
        load_network(folder)


def test_contradicting_config_is_refused(tmp_path):
    folder = write_shards(tmp_path / "repo", weights_of())
    (folder / "config.json").write_text(json.dumps(wan_json(TINY)))
    with pytest.raises(ValueError, match="leave config= out"):
        load_network(folder, config=replace(TINY, num_heads=4))
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"has misshapen 4\d keys|has misshapen"):
        load_network(folder, config=replace(TINY, ffn_dim=48))


@pytest.mark.parametrize(
    "value", ['{"transformer": {"vdot": 1, "dim": 24}}', '{"transformer": []}', "[" * 100_000, "{"]
)
def test_damaged_metadata_is_refused(tmp_path, value):
    save_file(weights_of(), tmp_path / "w.safetensors", metadata={"vdot_format": "1", "config": value})
    with pytest.raises(ValueError, match=r"w\.safetensors: "):
        read_weights(tmp_path / "w.safetensors")


JSON_VALUES = [
    "1e9",
    "4611686018427387904",
    "1" * 400,
    "1" * 5000,
    "1e999",
    "NaN",
    "-1",
    "true",
    "null",
    '"x"',
]
JSON_VALUES += ["[" * 200 + "]" * 200, "[" * 100_000, '{"a": 1}', '"' + "x" * 200_000 + '"']


@pytest.mark.parametrize("field", ["dim", "ffn_dim", "eps", "text_len", "vace_layers", "patch_size"])
def test_absurd_metadata_is_refused_in_a_short_sentence(tmp_path, field):
    """In our own header, in the config.json of diffusers' and of Wan's own repositories."""
    weights = {"head.head.bias": weights_of()["head.head.bias"]}
    for value in JSON_VALUES:
        config = json.dumps({"transformer": {**TINY.to_dict(), "vdot": 1, field: "@"}}).replace('"@"', value)
        save_file(weights, tmp_path / "w.safetensors", metadata={"vdot_format": "1", "config": config})
        folder = write_shards(tmp_path / "repo", weights, 1)
        refused = [tmp_path / "w.safetensors"]
        if value != "null":  # stands for the default there
            refused.append(folder)
        (folder / "config.json").write_text(json.dumps({**wan_json(TINY), field: "@"}).replace('"@"', value))
        for path in refused:
            problem = problem_of(path)
            assert path.name in problem and len(problem) <= 400 and problem.isprintable(), (
                value[:20],
                problem,
            )
            assert "config" in problem, problem


def test_a_number_in_quotes_is_shown_in_quotes(tmp_path):
    config = json.dumps({"transformer": {**TINY.to_dict(), "vdot": 1, "dim": "24"}})
    weights = {"head.head.bias": weights_of()["head.head.bias"]}
    save_file(weights, tmp_path / "w.safetensors", {"vdot_format": "1", "config": config})
    assert "dim is '24'; give a positive integer" in problem_of(tmp_path / "w.safetensors")


def problem_of(path) -> str:
    """Why a checkpoint is refused."""
    try:
        return inspect(path).problem
    except ValueError as error:
        return str(error)


def test_newer_format_and_huge_config_are_refused(tmp_path):
    fields = {**TINY.to_dict(), "vdot": 1, "image_model": "wan2.1"}
    config = json.dumps({"transformer": {**fields, "num_layers": 10**12}})
    save_file(weights_of(), tmp_path / "huge.safetensors", metadata={"vdot_format": "1", "config": config})
    with pytest.raises(ValueError, match="num_layers is 1000000000000; give a positive integer up to 256"):
        read_weights(tmp_path / "huge.safetensors")
    config = json.dumps({"transformer": fields})
    save_file(weights_of(), tmp_path / "new.safetensors", metadata={"vdot_format": "2", "config": config})
    with pytest.raises(ValueError, match="update VDOT"):
        read_weights(tmp_path / "new.safetensors")
