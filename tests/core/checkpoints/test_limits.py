"""Small files whose headers and indices claim large sizes are refused at the cost of their own size."""

import json
import os
import socket
import struct
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from tests.core.checkpoints.helpers import TINY, is_vace, weights_of, write_shards
from tests.support.watch import check_refusal, watchdog
from vdot_core.checkpoints import inspect, read_tensors
from vdot_core.networks import wan_vace_1_3b

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits memory by Linux's resource limits")


def header_file(path, header: str, data: bytes = b""):
    raw = header.encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def empty(name: str, shape: str = "[0]") -> str:
    return f'"{name}":{{"dtype":"BF16","shape":{shape},"data_offsets":[0,0]}}'


def many_blocks() -> str:
    """A 1.3B network's first tensors and 20,000 empty blocks."""
    names = [empty(f"{root}patch_embedding.weight", "[1536,0,1,2,2]") for root in ("", "vace_")]
    for n in range(20_000):
        names += [empty(f"{root}blocks.{n}.ffn.0.weight", "[8960,0]") for root in ("", "vace_")]
    return "{" + ",".join(names) + "}"


def as_many_blocks_as_a_config_may_have() -> str:
    layers = {"num_layers": 256, "vace_layers": list(range(256))}
    config = json.dumps({"transformer": {**wan_vace_1_3b().to_dict(), **layers, "vdot": 1}})
    blocks = [empty(f"{kind}.{n}.modulation") for n in range(256) for kind in ("blocks", "vace_blocks")]
    return '{"__metadata__":' + json.dumps({"config": config}) + "," + ",".join(blocks) + "}"


HEADERS = {
    "20,000 blocks": many_blocks,
    "512 blocks": as_many_blocks_as_a_config_may_have,
    "30,000 tensors": lambda: "{" + ",".join(empty(str(n)) for n in range(30_000)) + "}",
    "metadata": lambda: '{"__metadata__":{' + ",".join(f'"{n}":"x"' for n in range(100_000)) + "}}",
    "brackets": lambda: '{"a":' + "[" * 5_000_000,
    "config of brackets": lambda: '{"__metadata__":{"vdot_format":"1","config":"' + "[" * 5_000_000 + '"}}',
    "one name": lambda: "{" + empty("x" * 2_000_000) + "}",
    "entry as a list": lambda: '{"a":["U8",[0],[0,0]]}',
    "huge shape of nothing": lambda: "{" + empty("blocks.0.x", "[0,18446744073709551615]") + "}",
}


@pytest.mark.parametrize("kind", HEADERS)
def test_headers_that_claim_much(tmp_path, kind):
    path = header_file(tmp_path / "w.safetensors", HEADERS[kind]())
    start = time.process_time()
    with watchdog(seconds=60):
        try:
            problem = inspect(path).problem
        except ValueError as error:
            problem = str(error)
    check_refusal(problem)
    assert "w.safetensors" in problem and time.process_time() - start < 20


@pytest.mark.parametrize(
    ("names", "size"), [(map(str, range(50_001)), "50001 tensors"), (["x" * 15_000_000], "up to 15000000 ch")]
)
def test_more_or_longer_names_than_networks_have(tmp_path, names, size):
    """Every one is translated, and matched against the names of other networks."""
    path = header_file(tmp_path / "w.safetensors", "{" + ",".join(map(empty, names)) + "}")
    with pytest.raises(ValueError, match=f"{size}.*expected at most 50000 and 1000; give") as error:
        inspect(path)
    check_refusal(str(error.value))


def test_a_header_over_the_limit(tmp_path):
    """Parsed, it would take some ten times its size."""
    path = header_file(tmp_path / "w.safetensors", "{" + " " * 17_000_000 + "}")
    with pytest.raises(ValueError, match="has a header of 17000002 bytes, expected at most 16000000"):
        inspect(path)


def test_a_header_larger_than_the_file(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", 90_000_000) + b"{}")
    with pytest.raises(ValueError, match=r"10 bytes, and its header alone would take 90000000; download"):
        inspect(tmp_path / "w.safetensors")


INDEX = "diffusion_pytorch_model.safetensors.index.json"
INDICES = {
    "itself": {"a": INDEX},
    "outside": {"a": "../../etc/passwd"},
    "absolute": {"a": "/etc/passwd"},
    "folder": {"a": "folder"},
    "pipe": {"a": "pipe"},
    "socket": {"a": "socket"},
    "device": {"a": "device"},
    "long name": {"a": "x" * 5000},
    "100,000 shards": {str(n): f"{n}.safetensors" for n in range(100_000)},
    "400,000 shards": {str(n): f"{n}.safetensors" for n in range(400_000)},
    "no text": {"a": ["x"]},
    "empty": {},
    "table of tables": {"a": {"a": "x"}},
}


@pytest.mark.parametrize("kind", INDICES)
def test_indices_that_claim_what_is_not_there(tmp_path, kind):
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": INDICES[kind]}))
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for path in (tmp_path, tmp_path / INDEX):
            with watchdog(), pytest.raises(ValueError) as error:
                inspect(path)
            check_refusal(str(error.value))


def test_a_name_that_no_folder_can_hold():
    for path in ("x" * 5000, "a\0b", "", "/dev/zero", "/dev/null"):
        with watchdog(), pytest.raises(ValueError) as error:
            inspect(path)
        check_refusal(str(error.value))


def test_many_tensors_of_few_values_are_refused(tmp_path):
    """Each would become a separate tensor when it is converted."""
    storage = torch.zeros(1000)
    torch.save({f"blocks.{n}.x": storage.view(10, 100) for n in range(100)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="400000 bytes over values of 4000: several share the same") as error:
        read_tensors(tmp_path / "w.pt")
    check_refusal(str(error.value))
    torch.save({"a": storage, "b": storage}, tmp_path / "tied.pt")
    assert read_tensors(tmp_path / "tied.pt")[0].keys() == {"a", "b"}


def test_refusals_of_long_names_are_short(tmp_path):
    """Folders and keys of the longest kind, in every sentence that names several."""
    folder = tmp_path / ("f" * 200) / ("g" * 200)
    long = "blocks.0." + "x" * 300
    weights = {**weights_of(), long: torch.ones(2), "head.head.bias": torch.ones(3)}
    weights.pop("blocks.0.modulation")
    repo = write_shards(folder, weights, 2)
    save_file(weights, folder / "w.safetensors")
    save_file({f"{long}.{n}": torch.ones(1) for n in range(20)}, folder / "other.safetensors")
    torch.save({"step": 3, long: torch.ones(1)}, folder / "w.pt")
    (folder / "bad-00001-of-00002.safetensors").write_bytes(b"x")
    for path in (
        repo,
        folder / "w.safetensors",
        folder / "other.safetensors",
        folder / "w.pt",
        folder / "nothing",
    ):
        try:
            problem = inspect(path, config=TINY).problem
        except ValueError as error:
            problem = str(error)
        check_refusal(problem)
    with pytest.raises(ValueError) as error:
        inspect(folder / "bad-00001-of-00002.safetensors")
    check_refusal(str(error.value))
    wide = replace(TINY, dim=36)
    base = {name: value for name, value in weights_of().items() if not is_vace(name)}
    module = {name: value for name, value in weights_of(wide).items() if is_vace(name)}
    save_file(base, folder / f"{'b' * 180}.safetensors")
    save_file(module, folder / f"{'m' * 180}.safetensors")
    with pytest.raises(ValueError, match="widths 24 and 36") as error:
        inspect(folder / f"{'b' * 180}.safetensors", vace=folder / f"{'m' * 180}.safetensors")
    check_refusal(str(error.value))
