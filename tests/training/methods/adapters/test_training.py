"""A distillation whose generator and fake score are adapters on one frozen copy of the teacher."""

import dataclasses

import torch

from tests.support.distill import NoiseSource, losses_by_step, tiny_config, write_teacher
from tests.training.methods.adapters.runs import base_of, stage_one_lora, train
from training.distributed import world as processes
from training.engine.draws import Draws
from training.engine.method import prepare, set_trained
from training.methods.vdot import Vdot
from vdot_core.checkpoints import read_weights
from vdot_core.networks import NetworkRole, WanVace
from vdot_core.networks.adapters import adapter_parameters


def test_one_frozen_base_serves_all_three_and_both_adapters_learn(run, teacher):
    method = run[1].method
    assert method.generator.network is method.real_score.network is method.fake_score.network
    start = read_weights(teacher).state_dict
    assert all(torch.equal(p, start[n]) for n, p in base_of(method.real_score.network).items())
    for role in (method.generator, method.fake_score):
        assert all(p.any() for n, p in role.named_parameters() if n.endswith(".B"))
    logged = losses_by_step(run[0])
    assert {"generator/otd", "generator/dmd"} <= set(logged[1]) and {"generator/gan"} <= set(logged[6])


def test_a_checkpoint_holds_adapters_and_not_the_base(run):
    trainer = run[1]
    names = {name for name in trainer.tensors() if not name.startswith("discriminator")}
    assert names and all(name.endswith((".A", ".B")) or "optimizer" in name for name in names)
    rank_sizes = {min(p.shape) for n, p in trainer.method.generator.named_parameters()}
    assert rank_sizes == {3}


def test_losses_and_gradients_are_those_of_full_networks_with_the_same_change(run, tmp_path, teacher):
    """Each adapter merged into a file: every loss of a step, with the same draws."""
    trained = run[1].method
    files = {}
    for role in ("generator", "fake_score"):
        weights = dict(read_weights(teacher).state_dict)
        parameters = dict(getattr(trained, role).named_parameters())
        for layer in {name.rpartition(".")[0] for name in parameters}:
            change = 2.0 * parameters[f"{layer}.B"].detach() @ parameters[f"{layer}.A"].detach()
            weights[f"{layer}.weight"] = weights[f"{layer}.weight"] + change
        network = WanVace(trained.sizes)
        network.load_state_dict(weights)
        files[role] = network
    source = NoiseSource(global_batch=2)
    config = tiny_config(tmp_path, teacher)
    full = Vdot(config, processes.start(config.parallel), source.empty_text)
    full.generator.load_state_dict(files["generator"].state_dict())
    full.fake_score.load_state_dict(files["fake_score"].state_dict())
    for name, parameter in trained.discriminator.named_parameters():
        full.discriminator.get_parameter(name).data.copy_(parameter)
    full.config = dataclasses.replace(full.config, seed=trained.config.seed)
    for step in (0, 5, 1):
        batch = source.batches(step)[0]
        draws = Draws(config.seed, step, batch.positions)
        for ours, theirs in zip(trained.updates(step), full.updates(step), strict=True):
            slopes = []
            for method, update in ((trained, ours), (full, theirs)):
                ready = prepare(batch, draws, method, method.world.device)
                set_trained(method, update.trained)
                losses = update.loss(ready, draws)
                losses.total.backward()
                slopes.append((losses, method.networks[update.trained[0]]))
            (got, network), (expected, reference) = slopes
            assert got.metrics.keys() == expected.metrics.keys()
            for name, value in expected.metrics.items():
                torch.testing.assert_close(got.metrics[name], value, rtol=2e-3, atol=1e-5, msg=name)
            if not isinstance(network, NetworkRole):
                continue
            parameters = dict(network.named_parameters())
            for layer in {name.rpartition(".")[0] for name in parameters}:
                slope = 2.0 * reference.get_submodule(layer).weight.grad
                got_slope = parameters[f"{layer}.B"].grad
                wanted = slope @ parameters[f"{layer}.A"].T
                assert (got_slope - wanted).norm() <= 1e-3 * wanted.norm() + 1e-7, (step, layer)
            for method in (trained, full):
                for each in method.networks.values():
                    for parameter in each.parameters():
                        parameter.grad = None


def test_only_the_fake_score_is_an_adapter(tmp_path, teacher):
    trainer = train(tmp_path, teacher, model__adapters={"rank": 2, "roles": ["fake_score"]}, max_steps=2)
    method = trainer.method
    assert isinstance(method.generator, WanVace) and isinstance(method.fake_score, NetworkRole)
    start = read_weights(teacher).state_dict
    assert all(torch.equal(p, start[n]) for n, p in base_of(method.fake_score.network).items())
    assert any(not torch.equal(p, start[n]) for n, p in method.generator.named_parameters())


def test_a_dense_stage_one_gets_a_base_that_shares_the_vace_branch(tmp_path, teacher):
    stage_one = write_teacher(tmp_path / "stage_one.safetensors", seed=4, vace_layers=())
    method = train(tmp_path, teacher, model__acc_wan_init=str(stage_one), max_steps=2).method
    wan, start = read_weights(stage_one).state_dict, read_weights(teacher).state_dict
    base, theirs = base_of(method.generator.network), base_of(method.real_score.network)
    for name, parameter in base.items():
        vace = name.startswith("vace_")
        assert torch.equal(parameter, start[name] if vace else wan[name]), name
        assert (parameter.data_ptr() == theirs[name].data_ptr()) == vace, name


def test_a_stage_one_lora_is_stacked_and_stays(tmp_path, teacher):
    path, factors = stage_one_lora(tmp_path, teacher)
    method = train(tmp_path, teacher, model__acc_wan_init=str(path), max_steps=2).method
    assert method.generator.network is method.real_score.network
    kept = adapter_parameters(method.real_score.network, "stage_one")
    for name, (up, down) in factors.items():
        layer = name.removesuffix(".weight")
        assert torch.equal(kept[f"{layer}.B"], up) and torch.equal(kept[f"{layer}.A"], down)
    assert not any(parameter.requires_grad for parameter in kept.values())
