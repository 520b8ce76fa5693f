"""Peak memory of VDOT Load Model on a scaled fp8 file, of a real process on a real file."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from tests.core.checkpoints.helpers import SUBPROCESS_ENV
from tests.support.comfy import ROOT
from vdot_core.networks import WanVaceConfig, expected_shapes

CONFIG = WanVaceConfig(dim=1536, ffn_dim=8960, num_heads=12, num_layers=2, vace_layers=(0,))
# Matrices of 14B lie outside malloc's heap, which these smaller ones would leave in fragments.
ENVIRONMENT = {**SUBPROCESS_ENV, "MALLOC_MMAP_THRESHOLD_": "1000000"}
# Peak over the file's size, the pages of the file that were read included.
LIMITS = {"default": 1.4, "fp8_e4m3fn": 1.4, "fp8_e5m2": 2.6, "bf16": 3.6}

# One process with ComfyUI imported forks one child per case, for a peak cannot be reset.
SCRIPT = """
import json, os, resource, sys
arguments, sys.argv[1:] = sys.argv[1:], []
sys.path.append(arguments[0])
from tests.support import pack
pack.load_pack()
loading = pack.submodule("nodes.comfy_loading")
import torch

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

for weight_dtype in json.loads(arguments[2]):
    sys.stdout.flush()
    if os.fork() == 0:
        before = peak()
        model = loading.load_model(arguments[1], weight_dtype=weight_dtype)
        for parameter in model.model.diffusion_model.parameters():
            getattr(parameter, "_qdata", parameter).detach().view(torch.uint8).max()
        print(json.dumps([weight_dtype, peak() - before]), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, weight_dtype
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures with Linux's resource counters")
def test_scaled_fp8_takes_the_memory_of_its_file(comfy, tmp_path):
    stored = {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn)}
    for name, shape in expected_shapes(CONFIG).items():
        is_scaled = len(shape) == 2
        stored[name] = torch.ones(shape, dtype=torch.float8_e4m3fn if is_scaled else torch.bfloat16)
        if is_scaled:
            stored[name.replace(".weight", ".scale_weight")] = torch.ones(())
    path = tmp_path / "w.safetensors"
    save_file(stored, path)
    del stored
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ROOT), str(path), json.dumps(list(LIMITS))],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    lines = [line for line in run.stdout.splitlines() if line.startswith("[")]
    ratios = {name: peak / path.stat().st_size for name, peak in map(json.loads, lines)}
    print(f"file of {path.stat().st_size / 1e6:.0f} MB, peak memory over it: {ratios}")
    assert ratios.keys() == LIMITS.keys()
    assert ratios["default"] > 0.9, "the measurement does not see the weights"
    assert all(ratios[name] <= limit for name, limit in LIMITS.items()), ratios
