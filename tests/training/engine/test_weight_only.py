"""The base of adapters in fp8 or int8: what it computes, what it weighs, and where it is refused."""

import dataclasses
import sys

import pytest
import torch

from tests.support.distill import losses_by_step, new_trainer, tiny_config, write_teacher
from training.engine.draws import Draws
from training.engine.method import prepare, set_trained
from training.engine.weight_only import build_packed, check_form
from training.methods.programs import distill_config
from training.methods.vdot import Vdot
from training.planning.arguments import PlanArguments
from training.planning.budget import Machine, make_budget
from training.planning.memory import states
from training.planning.plan import plan_text
from training.planning.sizes import Sizes
from training.planning.workload import Clip
from vdot_core.checkpoints import read_weights
from vdot_core.networks import wan_vace_1_3b

ADAPTERS = {"rank": 3, "alpha": 6.0}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


def _config(folder, teacher, form, **changes):
    return tiny_config(folder, teacher, model__adapters={**ADAPTERS, "base": form}, **changes)


def _expanded(network):
    """Name -> the values that a packed weight stands for."""
    return {name: p.dequantize() for name, p in network.named_parameters() if _is_packed(p)}


def _is_packed(parameter):
    return hasattr(parameter, "qdata")


@pytest.mark.parametrize("form", ["fp8", "int8"])
def test_losses_and_gradients_are_those_of_the_expanded_base(form, tmp_path, teacher):
    trainer = new_trainer(_config(tmp_path / form, teacher, form, max_steps=6))
    trainer.run()  # B of the adapters is no longer zero
    packed = trainer.method
    network, start = packed.real_score.network, read_weights(teacher).state_dict
    values = _expanded(network)
    dtype = {"fp8": torch.float8_e4m3fn, "int8": torch.int8}[form]
    assert {p.qdata.dtype for p in network.parameters() if _is_packed(p)} == {dtype}
    assert {name.split(".", 2)[2] for name in values} >= {"self_attn.q.weight", "ffn.2.weight"}
    for name, value in values.items():
        largest = start[name].abs().amax(1, keepdim=True)
        # e4m3 rounds three bits of mantissa by half a step, a 16th at most; int8 by half a step of a row.
        bound = (
            largest / 254 if form == "int8" else torch.maximum(start[name].abs() / 16, largest / 448 / 2**10)
        )
        assert ((value - start[name]).abs() <= 1.01 * bound).all(), name
    exact = new_trainer(_config(tmp_path / "exact", teacher, "bf16")).method
    for role in ("generator", "fake_score", "discriminator"):
        theirs = dict(packed.networks[role].named_parameters())
        for name, parameter in exact.networks[role].named_parameters():
            parameter.data.copy_(theirs[name])
    for name, parameter in exact.real_score.network.named_parameters():
        parameter.data.copy_(values.get(name, parameter))
    source = trainer.source
    for step in (0, 5, 1):
        batch = source.batches(step)[0]
        draws = Draws(5, step, batch.positions)
        for ours, theirs in zip(packed.updates(step), exact.updates(step), strict=True):
            gradients = []
            for method, update in ((packed, ours), (exact, theirs)):
                set_trained(method, update.trained)
                update.loss(prepare(batch, draws, method, method.world.device), draws).total.backward()
                trained = [p for role in update.trained for p in method.networks[role].parameters()]
                gradients.append(torch.cat([p.grad.flatten() for p in trained if p.grad is not None]))
                for parameter in trained:
                    parameter.grad = None
            assert (gradients[0] - gradients[1]).norm() <= 1e-4 * gradients[1].norm(), (step, ours)


@pytest.mark.parametrize("form", ["fp8", "int8"])
def test_stopped_and_resumed_to_the_same_bits_and_not_in_another_form(form, tmp_path, teacher):
    changes = {"parallel__checkpoint_every": 1, "max_steps": 4}
    new_trainer(_config(tmp_path / "whole", teacher, form, **changes)).run()
    new_trainer(_config(tmp_path / "parts", teacher, form, **{**changes, "max_steps": 2})).run()
    trainer = new_trainer(_config(tmp_path / "parts", teacher, form, **changes))
    trainer.run()
    assert losses_by_step(tmp_path / "parts") == losses_by_step(tmp_path / "whole")
    assert not any("blocks.0.ffn.0.weight" in name for name in trainer.tensors())
    with pytest.raises(ValueError, match=r"adapters\.base"):
        new_trainer(_config(tmp_path / "parts", teacher, "bf16", **changes)).run()


@pytest.mark.parametrize("stage_one", [False, True])
def test_the_base_weighs_what_the_plan_says(stage_one, tmp_path, teacher):
    changes = {}
    if stage_one:
        dense = write_teacher(tmp_path / "stage_one.safetensors", seed=4, vace_layers=())
        changes = {"model__acc_wan_init": str(dense)}
    config = _config(tmp_path, teacher, "fp8", **changes)
    method = new_trainer(config).method
    tensors = {}
    for network in {id(n): n for n in (method.real_score.network, method.generator.network)}.values():
        for name, parameter in network.named_parameters():
            if ".adapters." not in name:
                parts = (parameter.qdata, parameter.scale) if _is_packed(parameter) else (parameter,)
                tensors |= {part.data_ptr(): part.nbytes for part in parts}
    parts = states(Sizes.of(method.sizes, config), config).parts
    planned = [
        size for name, size in parts.items() if name.startswith(("real score, fp8 and", "stage 1, fp8 and"))
    ]
    assert len(planned) == 1 + stage_one and sum(tensors.values()) == sum(planned)


def test_the_plan_of_a_smaller_card():
    values = {
        "model.preset": "wan_vace_1_3b",
        "model.real_score": "models/Wan2.1-VACE-1.3B",
        "model.adapters.rank": 32,
        "data.batch_size": 3,
        "data.accumulation": 3,
    }
    configs = [distill_config({**values, "model.adapters.base": base}) for base in ("bf16", "fp8")]
    clip, machine = Clip(832, 480, 81), Machine(gpus=1, memory_gib=24)
    bf16, fp8 = (make_budget(config, wan_vace_1_3b(), clip, machine) for config in configs)
    matrices = fp8.sizes.matrices[0]
    assert matrices > 0.9 * fp8.sizes.network
    assert 0.99 * matrices < bf16.states.total - fp8.states.total < matrices  # a byte of each, less factors
    assert fp8.gathered - bf16.gathered == 2 * fp8.sizes.block * configs[1].parallel.checkpoint_every
    text = plan_text(configs[0], PlanArguments(machine=Machine(gpus=1, memory_gib=bf16.total / 2**30 - 0.5)))
    assert "--model.adapters.base fp8" in text


def test_where_it_cannot_be(tmp_path, teacher, monkeypatch):
    with pytest.raises(ValueError, match=r"base is fp8 and rank 0"):
        distill_config({"model.adapters.base": "fp8"})
    with pytest.raises(ValueError, match=r"base is int8, and FSDP shards networks in bf16 only; set it bf16"):
        distill_config({"model.adapters": {"rank": 4, "base": "int8"}, "parallel.fsdp": True})
    config = distill_config({"model.preset": "wan_vace_1_3b", "model.adapters": {"rank": 4, "base": "fp8"}})
    with pytest.raises(ValueError, match="FSDP shards networks"):
        make_budget(config, wan_vace_1_3b(), Clip(832, 480, 81), Machine(gpus=2))
    world = dataclasses.replace(new_trainer(_config(tmp_path, teacher, "bf16")).world, mesh=object())
    with pytest.raises(ValueError, match="FSDP shards networks"):
        build_packed(None, {}, world, config.parallel, "fp8")
    for name in [name for name in sys.modules if name.split(".")[0] == "torchao"]:
        monkeypatch.setitem(sys.modules, name, None)
    check_form("bf16")
    with pytest.raises(ValueError, match=r"torchao cannot be imported .*pip install torchao, or set .*bf16"):
        Vdot.check(_config(tmp_path, teacher, "fp8"))
