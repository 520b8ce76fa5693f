"""The plan of a run with adapters against what its updates hold at one time on a CPU."""

import dataclasses

import pytest
import torch

from tests.support.memory import peak_bytes
from training.distributed.world import World
from training.engine.draws import Draws
from training.engine.method import prepare, set_trained
from training.methods.programs import distill_config
from training.methods.vdot import Vdot
from training.planning.dry_run import RandomSource, write_random
from training.planning.memory import gather_bytes, peaks
from training.planning.sizes import Sizes
from training.planning.workload import Clip
from vdot_core.networks import WanVaceConfig, wan_vace_1_3b

SMALL = WanVaceConfig(
    dim=128, ffn_dim=344, num_heads=4, num_layers=8, vace_layers=(0, 4), text_dim=64, freq_dim=64, text_len=32
)
WIDE = dataclasses.replace(wan_vace_1_3b(), num_layers=2, vace_layers=(0,), text_len=64)
UPDATES = {
    "generator, matching": ("generator_matching", ("generator",)),
    "generator, GAN": ("generator_gan", ("generator",)),
    "critic, flow matching": ("critic_matching", ("fake_score", "discriminator")),
    "critic, GAN": ("critic_gan", ("fake_score", "discriminator")),
}


@pytest.mark.parametrize(
    ("sizes", "clip", "base"),
    [
        pytest.param(SMALL, Clip(256, 128, 17), "bf16", id="tiny width", marks=pytest.mark.full),
        pytest.param(SMALL, Clip(256, 128, 17), "fp8", id="tiny width, fp8", marks=pytest.mark.full),
        pytest.param(WIDE, Clip(256, 256, 9), "bf16", id="1.3B's width", marks=pytest.mark.full),
        pytest.param(WIDE, Clip(256, 256, 9), "fp8", id="1.3B's width, fp8", marks=pytest.mark.full),
    ],
)
def test_the_peak_of_every_update_is_the_plans(sizes, clip, base, tmp_path):
    write_random(tmp_path / "teacher.safetensors", sizes)
    config = distill_config(
        {
            "model.preset": None,
            "model.real_score": str(tmp_path / "teacher.safetensors"),
            "model.taps": [sizes.num_layers - 2, sizes.num_layers - 1],
            "model.discriminator_width": 64,
            "model.discriminator_heads": 4,
            "model.adapters.rank": 16,
            "model.adapters.base": base,
            "losses.iterations": 3,
            "parallel.precision": "fp32",
            "parallel.checkpoint_every": 1,
        }
    )
    source = RandomSource(sizes, clip, 1)
    method = Vdot(config, World(0, 1, torch.device("cpu"), None, "fp32"), source.empty_text)
    batch = source.batches(0)[0]
    expanded = gather_bytes(Sizes.of(sizes, config), config, shards=1)
    for peak in peaks(sizes, clip, 1, config):
        name, trained = UPDATES[peak.name]
        set_trained(method, trained)

        def update(name=name):
            draws = Draws(0, 0, (0,))
            losses = getattr(method, name)(prepare(batch, draws, method, torch.device("cpu")), draws)
            losses.total.backward()

        update()  # gradients are there
        planned = peak.total + expanded
        assert planned == pytest.approx(peak_bytes(update), rel=0.15), peak.name
