"""VDOT-14B's release, 34.7 GB: inspected, loaded and converted within little memory."""

import json
import subprocess
import sys
import time

import pytest
import torch

from tests.core.checkpoints.helpers import SUBPROCESS_ENV
from tests.scale.sparse import ANONYMOUS, write_release
from tests.support.comfy import comfyui_path
from vdot_core import checkpoints
from vdot_core.networks import WanVaceConfig, wan_vace_14b

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures by Linux's /proc")
LIMIT_MB = 100
SLICE = WanVaceConfig(dim=5120, ffn_dim=13824, num_heads=40, num_layers=1)
"""One block of 14B and its embeddings: 1 GB."""

LOAD = """
import json, sys
from vdot_core import checkpoints
small, large = sys.argv[1:]
checkpoints.load_network(small)
network, end, peak = grown_mb(lambda: checkpoints.load_network(large))
count = sum(parameter.numel() for parameter in network.parameters())
print(json.dumps([count, end, peak]))
"""

LOAD_IN_COMFYUI = """
import json, sys
from tests.support.pack import submodule
loading = submodule("nodes.comfy_loading")
import comfy.model_patcher

class Assigning(comfy.model_patcher.ModelPatcher):
    "As ComfyUI's patcher with dynamic memory, which takes weights over instead of copying them."
    def is_dynamic(self):
        return True

comfy.model_patcher.CoreModelPatcher = Assigning
small, large = sys.argv[1:]
loading.load_model(small)
model, end, peak = grown_mb(lambda: loading.load_model(large))
count = sum(parameter.numel() for parameter in model.model.diffusion_model.parameters())
print(json.dumps([count, end, peak]))
"""

CONVERT = """
import json, sys
import torch
from vdot_core import checkpoints
small, large, out = sys.argv[1:]
checkpoints.convert(small, out, dtype=torch.float16)
info, end, peak = grown_mb(lambda: checkpoints.convert(large, out, dtype=torch.float16, overwrite=True))
print(json.dumps([info.num_parameters, end, peak]))
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """The sparse release of 14B."""
    return write_release(tmp_path_factory.mktemp("release") / "vdot_14b.pt", wan_vace_14b())


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A release of one narrow block, read first in every process, so that imports are not counted."""
    config = WanVaceConfig(dim=1536, ffn_dim=64, num_heads=12, num_layers=1, vace_layers=(0,))
    return write_release(tmp_path_factory.mktemp("small") / "small.pt", config)


def measured(script, *paths):
    """(parameters, MB at the end, MB at the peak), from a process of its own."""
    command = [sys.executable, "-c", ANONYMOUS + script, *map(str, paths)]
    run = subprocess.run(command, env=SUBPROCESS_ENV, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


def test_the_file_is_the_release_without_its_bytes(release):
    status = release.stat()
    assert 34.6e9 < status.st_size < 34.8e9 and status.st_blocks * 512 < 10e6
    start = time.process_time()
    info = checkpoints.inspect(release)
    assert time.process_time() - start < 5
    assert (info.layout, info.problem, info.config) == ("vdot-pt", "", wan_vace_14b())
    assert info.dtypes == {"bfloat16": info.num_parameters} and 17.3e9 < info.num_parameters < 17.4e9


def test_loading_maps_the_file(release, small):
    count, end, peak = measured(LOAD, small, release)
    assert count > 17.3e9 and max(end, peak) < LIMIT_MB


def test_the_node_takes_the_mapped_weights_over(release, small):
    comfyui_path()
    count, end, peak = measured(LOAD_IN_COMFYUI, small, release)
    assert count > 17.3e9 and max(end, peak) < LIMIT_MB


def test_converting_holds_little_more_than_a_tensor(small, tmp_path):
    """The largest tensor of 14B has 142 MB, twice that where it is converted."""
    source = write_release(tmp_path / "slice.pt", SLICE)
    count, _, peak = measured(CONVERT, small, source, tmp_path / "out.safetensors")
    print(f"{count / 1e9:.2f} billion parameters, {peak:.0f} MB")
    assert count > 0.4e9 and peak < 450


@pytest.mark.full
def test_converting_everything_holds_no_more(release, small, tmp_path):
    count, _, peak = measured(CONVERT, small, release, tmp_path / "out.safetensors")
    assert count > 17.3e9 and peak < 450


def test_a_network_larger_than_memory_is_mapped_privately(tmp_path):
    """Writing to a loaded weight changes neither the file nor another map of it."""
    config = WanVaceConfig(dim=1536, ffn_dim=64, num_heads=12, num_layers=1, vace_layers=(0,))
    path = write_release(tmp_path / "small.pt", config)
    first, second = (checkpoints.read_weights(path).state_dict for _ in range(2))
    first["patch_embedding.weight"].fill_(1)
    assert not second["patch_embedding.weight"].any()
    assert not checkpoints.read_weights(path).state_dict["patch_embedding.weight"].any()
    assert first["patch_embedding.weight"].dtype == torch.bfloat16
