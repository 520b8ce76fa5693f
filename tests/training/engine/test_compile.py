"""Compiled blocks: the same losses as plain ones, from the entry that users start."""

import pytest
import torch

from tests.support.distill import NoiseSource, losses_by_step, new_trainer, tiny_config, write_teacher


@pytest.mark.full
@pytest.mark.parametrize("rank", [0, 2])
def test_compiled_blocks_give_the_same_losses(tmp_path, rank):
    """A generator's and a critic's update of one-block networks, few graphs for few seconds of compiling."""
    teacher = write_teacher(tmp_path / "teacher.safetensors", num_layers=1, vace_layers=())
    settings = {"model__text_only": True, "model__taps": [0], "losses__guidance": 1.0, "losses__gan": False}
    settings |= {"max_steps": 1, "parallel__checkpoint_every": 0, "model__adapters__rank": rank}
    for compiled in (False, True):
        config = tiny_config(tmp_path / str(compiled), teacher, parallel__compile=compiled, **settings)
        before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        source = NoiseSource(global_batch=2, text_only=True)
        new_trainer(config, source).run()
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"] - before
        assert (graphs > 0) == compiled
    plain, compiled_losses = losses_by_step(tmp_path / "False"), losses_by_step(tmp_path / "True")
    assert {"generator/otd", "generator/dmd", "critic/loss"} <= set(plain[1])
    for name, value in plain[1].items():
        assert compiled_losses[1][name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
