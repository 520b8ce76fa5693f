"""A distillation whose generator and fake score are adapters on one frozen copy of the teacher."""

import dataclasses
import json
import os
import signal
import time

import pytest
import torch

from tests.support.distill import (
    NoiseSource,
    last_logged_step,
    losses_by_step,
    new_trainer,
    tiny_config,
    tiny_values,
    write_teacher,
)
from tests.support.processes import launch, wait
from training import distill
from training.distributed import world as processes
from training.engine.checkpoint import complete
from training.engine.draws import Draws
from training.engine.export import export
from training.engine.method import prepare, set_trained
from training.methods.vdot import Vdot
from training.methods.vdot_networks import adapted_from
from training.planning.dry_run import CPU_CLIP, dry_run, rehearsal_clip
from training.planning.workload import Clip
from vdot_core.checkpoints import inspect, load_network, read_weights
from vdot_core.checkpoints.lora import save_factors
from vdot_core.checkpoints.merge import merge
from vdot_core.networks import NetworkRole, WanVace
from vdot_core.networks.adapters import adapter_parameters, target_layers

ADAPTERS = {"rank": 3, "alpha": 6.0}
CHANGES = {"model__adapters": ADAPTERS, "parallel__checkpoint_every": 1}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


def _train(folder, teacher, **changes):
    trainer = new_trainer(tiny_config(folder, teacher, **{**CHANGES, **changes}))
    trainer.run()
    return trainer


@pytest.fixture(scope="module")
def run(tmp_path_factory, teacher):
    """Ten uninterrupted steps: (folder, trainer)."""
    folder = tmp_path_factory.mktemp("run")
    return folder, _train(folder, teacher)


def _base(network: WanVace) -> dict[str, torch.Tensor]:
    return {name: p for name, p in network.named_parameters() if ".adapters." not in name}


def test_one_frozen_base_serves_all_three_and_both_adapters_learn(run, teacher):
    method = run[1].method
    assert method.generator.network is method.real_score.network is method.fake_score.network
    start = read_weights(teacher).state_dict
    assert all(torch.equal(p, start[n]) for n, p in _base(method.real_score.network).items())
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


def test_stopped_and_resumed_to_the_same_bits(run, tmp_path, teacher):
    _train(tmp_path, teacher, max_steps=5)
    trainer = _train(tmp_path, teacher)
    assert losses_by_step(tmp_path) == losses_by_step(run[0])
    for name, tensor in run[1].tensors().items():
        assert torch.equal(tensor, trainer.tensors()[name]), name


@pytest.mark.parametrize(
    ("adapters", "words"),
    [
        (
            {"rank": 2},
            r"adapters\.rank \(values above\), and generator\..* is \[3, 12\] there and \[2, 12\] here",
        ),
        ({"targets": ["self_attn", "ffn", "after_proj"]}, r"adapters\.targets .*, and it has "),
        (
            {"targets": ["ffn"]},
            r"adapters\.targets .*, and it has trained weights that this run lacks",
        ),
        ({"roles": ["generator"]}, r"adapters\.roles .*, and it has no "),
        ({"rank": 0}, r"adapters\.rank .*, and it has no "),
    ],
)
def test_other_adapters_never_resume_and_the_error_offers_nothing_that_does_not_help(
    run, teacher, adapters, words
):
    """Trained adapters would be dropped, or others begin from nothing."""
    for allowed in (False, True):
        changes = {"model__adapters": {**ADAPTERS, **adapters}, "allow_changes": allowed}
        with pytest.raises(ValueError, match=words) as error:
            _train(run[0], teacher, **changes)
        assert "set allow_changes" not in str(error.value) and len(str(error.value)) <= 400


def test_another_alpha_resumes_only_where_it_is_allowed(run, teacher):
    other = {**ADAPTERS, "alpha": 3.0}
    with pytest.raises(ValueError, match=r"another model\.adapters\.alpha .* set allow_changes true"):
        _train(run[0], teacher, model__adapters=other)
    config = tiny_config(run[0], teacher, **{**CHANGES, "model__adapters": other, "allow_changes": True})
    assert new_trainer(config).step == 10


@pytest.mark.full
def test_two_sharded_processes_give_the_losses_of_one(run, tmp_path, teacher):
    values = tiny_values(tmp_path / "out", teacher, **CHANGES)
    process = launch(tmp_path, values)
    assert wait(process, tmp_path) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    ones, twos = losses_by_step(run[0]), losses_by_step(tmp_path / "out")
    assert ones.keys() == twos.keys()
    for step, row in ones.items():
        for name, value in row.items():
            assert twos[step][name] == pytest.approx(value, rel=1e-4, abs=1e-6), (step, name)


@pytest.mark.full
def test_killed_and_resumed_by_another_number_of_processes(run, tmp_path, teacher):
    """Two processes are killed in the middle; one resumes their checkpoint, and two resume that one's."""
    out = tmp_path / "out"
    values = tiny_values(out, teacher, log__save_every=2, **CHANGES)
    process = launch(tmp_path, values)
    while last_logged_step(out) < 4:
        assert process.poll() is None, (tmp_path / "log.txt").read_text()[-3000:]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    killed_at = complete(out / "checkpoints")[-1].step
    assert 2 <= killed_at < 10
    trainer = _train(out, teacher, log__save_every=2, max_steps=killed_at + 1)
    processes.stop()
    assert trainer.step == killed_at + 1
    assert wait(launch(tmp_path, values), tmp_path) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    resumed = losses_by_step(out)
    assert resumed.keys() == losses_by_step(run[0]).keys()
    for step, row in losses_by_step(run[0]).items():
        for name, value in row.items():
            assert resumed[step][name] == pytest.approx(value, rel=1e-5, abs=1e-6), (step, name)


def test_only_the_fake_score_is_an_adapter(tmp_path, teacher):
    trainer = _train(tmp_path, teacher, model__adapters={"rank": 2, "roles": ["fake_score"]}, max_steps=2)
    method = trainer.method
    assert isinstance(method.generator, WanVace) and isinstance(method.fake_score, NetworkRole)
    start = read_weights(teacher).state_dict
    assert all(torch.equal(p, start[n]) for n, p in _base(method.fake_score.network).items())
    assert any(not torch.equal(p, start[n]) for n, p in method.generator.named_parameters())


def test_a_dense_stage_one_gets_a_base_that_shares_the_vace_branch(tmp_path, teacher):
    stage_one = write_teacher(tmp_path / "stage_one.safetensors", seed=4, vace_layers=())
    method = _train(tmp_path, teacher, model__acc_wan_init=str(stage_one), max_steps=2).method
    wan, start = read_weights(stage_one).state_dict, read_weights(teacher).state_dict
    base, theirs = _base(method.generator.network), _base(method.real_score.network)
    for name, parameter in base.items():
        vace = name.startswith("vace_")
        assert torch.equal(parameter, start[name] if vace else wan[name]), name
        assert (parameter.data_ptr() == theirs[name].data_ptr()) == vace, name


def _stage_one_lora(folder, teacher, rank=2):
    """A LoRA of the text-only network, and its factors."""
    config = inspect(teacher).config
    generator = torch.Generator().manual_seed(3)
    factors = {
        f"blocks.{n}.ffn.{k}.weight": (
            0.3 * torch.randn((config.ffn_dim if k == 0 else config.dim), rank, generator=generator),
            0.3 * torch.randn(rank, (config.dim if k == 0 else config.ffn_dim), generator=generator),
        )
        for n in range(2)
        for k in (0, 2)
    }
    save_factors(folder / "stage_one.safetensors", factors)
    return folder / "stage_one.safetensors", factors


def _outputs(network, sizes):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 16, 2, 4, 6, generator=generator)
    text = torch.randn(1, 5, sizes.text_dim, generator=generator)
    contexts = torch.randn(1, 1, 96, 2, 4, 6, generator=generator)
    with torch.no_grad():
        return network(x, torch.tensor([500.0]), text, contexts)


@pytest.mark.parametrize("stage_one", ["none", "lora", "dense"])
@pytest.mark.parametrize("form", ["lora", "merged"])
def test_the_export_gives_what_the_averaged_generator_gives(form, stage_one, tmp_path, teacher):
    """A LoRA, merged into the teacher by the checkpoints' own command, or a merged file."""
    adapters = {**ADAPTERS, "export": form}
    changes = {
        "model__adapters": adapters,
        "export_dtype": "fp32",
        "max_steps": 3,
        "optim__generator_every": 1,
    }
    if stage_one == "lora":
        changes["model__acc_wan_init"] = str(_stage_one_lora(tmp_path, teacher)[0])
    elif stage_one == "dense":
        changes["model__acc_wan_init"] = str(
            write_teacher(tmp_path / "stage_one.safetensors", seed=4, vace_layers=())
        )
    config = tiny_config(tmp_path, teacher, **{**CHANGES, **changes})
    if (form, stage_one) == ("lora", "dense"):
        with pytest.raises(ValueError, match=r"set model\.adapters\.export merged"):
            Vdot.check(config)
        return
    Vdot.check(config)
    trainer = _train(tmp_path, teacher, **changes)
    path = export(config, tmp_path / "export.safetensors", {}, trainer.method.adapted_from())
    if form == "lora":
        merge(teacher, [path], tmp_path / "merged.safetensors")
        path = tmp_path / "merged.safetensors"
    metadata = inspect(path).metadata
    assert form == "lora" or (metadata["step"] == "3" and metadata["base"] == teacher.name)
    got = _outputs(load_network(path), trainer.method.sizes)
    trainer.average.swap(trainer.method.generator)
    expected = _outputs(trainer.method.generator, trainer.method.sizes)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    start = _outputs(load_network(teacher), trainer.method.sizes)
    assert (expected - start).norm() > 1e-3 * start.norm()


def test_a_stage_one_lora_is_stacked_and_stays(tmp_path, teacher):
    path, factors = _stage_one_lora(tmp_path, teacher)
    method = _train(tmp_path, teacher, model__acc_wan_init=str(path), max_steps=2).method
    assert method.generator.network is method.real_score.network
    kept = adapter_parameters(method.real_score.network, "stage_one")
    for name, (up, down) in factors.items():
        layer = name.removesuffix(".weight")
        assert torch.equal(kept[f"{layer}.B"], up) and torch.equal(kept[f"{layer}.A"], down)
    assert not any(parameter.requires_grad for parameter in kept.values())


def test_a_lora_as_stage_one_of_full_weights_is_refused(tmp_path, teacher):
    path, _ = _stage_one_lora(tmp_path, teacher)
    config = tiny_config(tmp_path, teacher, model__acc_wan_init=str(path))
    with pytest.raises(ValueError, match="merge it into the base first"):
        Vdot.check(config)


def test_the_rehearsal_runs_every_update_and_leaves_nothing(tmp_path, caplog):
    config = tiny_config(
        tmp_path,
        tmp_path / "no_such_teacher",
        **CHANGES,
        model__preset="vdot_tiny",
        model__acc_wan_init="no_such_file",
        model__frozen=["blocks.1.", "blocks.5."],
    )
    with caplog.at_level("INFO", logger="vdot"):
        assert dry_run(config) == 0
    assert "all updates, checkpoint and export" in caplog.text and "2 of" in caplog.text
    assert "model.frozen's blocks.5. is left out" in caplog.text
    assert "dry run: model.acc_wan_init not rehearsed" in caplog.text
    assert not list(tmp_path.glob("dry_run*"))


def test_a_rehearsal_on_a_gpu_takes_the_runs_largest_clip(tmp_path, teacher):
    config = tiny_config(tmp_path, teacher, data__width=96, data__height=64, data__num_frames=9)
    assert rehearsal_clip(config, torch.device("cuda")) == Clip(96, 64, 9)
    assert rehearsal_clip(config, torch.device("cpu")) == CPU_CLIP


def test_a_rehearsal_touches_nothing_of_others_and_says_where_it_cannot_write(tmp_path):
    (tmp_path / "dry_run").mkdir()
    (tmp_path / "dry_run" / "thesis.txt").write_text("years of work")
    config = tiny_config(tmp_path, tmp_path / "none", **CHANGES, model__preset="vdot_tiny")
    with pytest.raises(ValueError, match=r"cannot be written to \(.*\); give another out_dir"):
        dry_run(dataclasses.replace(config, out_dir=str(tmp_path / "dry_run" / "thesis.txt")))
    with pytest.raises(ValueError, match="with which no parameter's name begins"):
        dry_run(dataclasses.replace(config, model=dataclasses.replace(config.model, frozen=["blocks.30"])))
    assert [path.name for path in tmp_path.rglob("*")] == ["dry_run", "thesis.txt"]


@pytest.fixture
def small_run(tmp_path, teacher):
    """Two steps with a copy of the teacher: folder, and its settings."""
    own = tmp_path / "own.safetensors"
    own.write_bytes(teacher.read_bytes())
    changes = {**CHANGES, "model__real_score": str(own), "max_steps": 2, "optim__generator_every": 1}
    _train(tmp_path / "run", teacher, **changes)
    return tmp_path, changes


def _export(folder, changes, path):
    config = tiny_config(folder / "run", folder / "own.safetensors", **changes)
    return export(config, path, {}, adapted_from(config))


def test_a_merged_export_is_rounded_once(small_run):
    folder, changes = small_run
    changes["model__adapters"] = {**ADAPTERS, "export": "merged"}
    exact, rounded = (
        read_weights(_export(folder, {**changes, "export_dtype": dtype}, folder / f"{dtype}.safetensors"))
        for dtype in ("fp32", "bf16")
    )
    for name, value in exact.state_dict.items():
        assert torch.equal(rounded.state_dict[name], value.bfloat16()), name


def test_an_export_with_other_settings_than_the_runs_is_refused(small_run, teacher):
    """The adapter's scale, and the weights that it changes, are not in the checkpoint."""
    folder, changes = small_run
    for change in (
        {"model__real_score": str(write_teacher(folder / "other.safetensors", seed=1))},
        {"model__acc_wan_init": str(_stage_one_lora(folder, teacher)[0])},
        {"rollout__shift": 3.0},
    ):
        with pytest.raises(ValueError, match=r"was trained with other settings: .* -> .*allow_changes"):
            _export(folder, changes | change, folder / "export.safetensors")
    for adapters in (
        {**ADAPTERS, "alpha": 60.0},
        {"rank": 2, "alpha": 6.0},
        {**ADAPTERS, "targets": ["ffn"]},
        {**ADAPTERS, "roles": ["generator"]},
        {"rank": 0},
    ):
        for allowed in (False, True):
            change = {"model__adapters": adapters, "allow_changes": allowed}
            with pytest.raises(ValueError, match=r"other settings: model\.adapters.*run\.yaml\)$"):
                _export(folder, changes | change, folder / "export.safetensors")
    assert not (folder / "export.safetensors").exists()


@pytest.mark.parametrize("form", ["lora", "merged"])
def test_an_export_never_replaces_a_file_that_the_run_reads(small_run, teacher, form):
    folder, changes = small_run
    changes["model__adapters"] = {**ADAPTERS, "export": form}
    with pytest.raises(ValueError, match=r"is model\.real_score, which the export would replace"):
        _export(folder, changes, folder / "own.safetensors")
    assert (folder / "own.safetensors").read_bytes() == teacher.read_bytes()
    (folder / "run" / "export").mkdir()
    (folder / "own.safetensors").rename(folder / "run" / "export" / "generator.safetensors")
    changes["model__real_score"] = str(folder / "run" / "export" / "generator.safetensors")
    with pytest.raises(ValueError, match="which the export would replace"):
        _train(folder / "run", teacher, **changes)
    assert _export(folder, changes, folder / "new.safetensors").exists()


@pytest.mark.parametrize("key", ["real_score", "fake_score"])
def test_a_lora_in_place_of_a_network_is_a_sentence(tmp_path, teacher, key):
    lora = str(_stage_one_lora(tmp_path, teacher)[0])
    adapters = {**ADAPTERS, "roles": ["generator"]}
    config = tiny_config(tmp_path, teacher, **{"model__adapters": adapters, f"model__{key}": lora})
    with pytest.raises(ValueError, match=rf"model\.{key}: .* is no network \(it holds a LoRA\)"):
        Vdot.check(config)


def test_a_stage_one_lora_that_cannot_be_stacked_is_refused_at_the_start(tmp_path, teacher):
    path = tmp_path / "lora.safetensors"
    config = tiny_config(tmp_path, teacher, **CHANGES, model__acc_wan_init=str(path))
    save_factors(path, {"patch_embedding.weight": (torch.ones(12, 2), torch.ones(2, 64))})
    with pytest.raises(ValueError, match=r"patch_embedding\.weight, which is no linear layer; merge it"):
        Vdot.check(config)
    save_factors(path, {"blocks.0.ffn.0.weight": (torch.full((16, 2), torch.nan), torch.ones(2, 12))})
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        Vdot.check(config)


def test_a_number_is_no_target(teacher):
    with pytest.raises(ValueError, match="no layer is named '0'"):
        target_layers(load_network(teacher), ["0"])


def test_an_export_that_cannot_be_written_is_a_sentence(small_run, capsys):
    folder, changes = small_run
    (folder / "file").touch()
    (folder / "folder.safetensors").mkdir()
    values = tiny_values(folder / "run", folder / "own.safetensors", **changes)
    (folder / "config.json").write_text(json.dumps(values))
    for place in ("file/x.safetensors", "folder.safetensors"):
        argv = ["--config", str(folder / "config.json"), "--export", str(folder / place)]
        assert distill.main(argv) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and "give" in lines[0]
