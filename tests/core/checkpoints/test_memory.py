"""Loading never holds two copies of the weights: peak memory of real processes on a real file."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from tests.core.checkpoints.helpers import SUBPROCESS_ENV
from vdot_core.networks import WanVaceConfig, expected_shapes

# VDOT_MEMORY_TEST_MB=1000 repeats the measurement at another size.
MEGABYTES = int(os.environ.get("VDOT_MEMORY_TEST_MB", "300"))
LIMIT = 1.2

# One process with torch imported forks one child per case, for a peak cannot be reset.
SCRIPT = """
import json, os, resource, sys
import torch
from vdot_core import checkpoints
from vdot_core.networks import WanVace

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def read_all(network):
    for parameter in network.parameters():
        parameter.detach().view(torch.uint8).max()

folder, half = sys.argv[1], torch.float16
ours, release = f"{folder}/w.safetensors", f"{folder}/w.pt"
CASES = {
    "safetensors": lambda: read_all(checkpoints.load_network(ours)),
    "pt": lambda: read_all(checkpoints.load_network(release)),
    "old pt": lambda: read_all(checkpoints.load_network(f"{folder}/old.pt")),
    "safetensors to fp16": lambda: read_all(checkpoints.load_network(ours, dtype=half)),
    "pt to fp16": lambda: read_all(checkpoints.load_network(release, dtype=half)),
    "inspect pt": lambda: checkpoints.inspect(release),
    "convert pt": lambda: checkpoints.convert(release, f"{folder}/out.safetensors", dtype=half),
}
for name, case in CASES.items():
    sys.stdout.flush()
    if os.fork() == 0:
        before = peak()
        case()
        print(json.dumps([name, peak() - before]), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, name
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures with Linux's resource counters")
def test_peak_memory_is_one_copy(tmp_path):
    num_layers = max(2, round((MEGABYTES - 60) / 93 - 0.5))  # a block of this width has 93 MB
    config = WanVaceConfig(dim=1536, ffn_dim=8960, num_heads=12, num_layers=num_layers, vace_layers=(0,))
    weights = {
        name: torch.ones(shape, dtype=torch.bfloat16) for name, shape in expected_shapes(config).items()
    }
    save_file(weights, tmp_path / "w.safetensors")
    torch.save({"generator": {f"model.{n}": v for n, v in weights.items()}}, tmp_path / "w.pt")
    torch.save(weights, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    del weights
    size = (tmp_path / "w.safetensors").stat().st_size
    assert size > MEGABYTES * 0.9e6
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env=SUBPROCESS_ENV,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    ratios = {name: peak / size for name, peak in map(json.loads, run.stdout.splitlines())}
    print(f"file of {size / 1e6:.0f} MB, peak memory over it: {ratios}")
    assert len(ratios) == 7
    for name, ratio in ratios.items():
        assert ratio <= (0.35 if name in ("inspect pt", "convert pt") else LIMIT), (name, ratio)
    for name in ("safetensors", "pt", "pt to fp16"):
        assert ratios[name] > 0.9, "the measurement does not see the weights"
