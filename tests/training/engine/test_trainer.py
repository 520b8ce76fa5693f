"""A run in one process: killed and resumed, guarded against NaN, averaged, exported, previewed."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.distill import (
    SIZES,
    NoiseSource,
    losses_by_step,
    new_trainer,
    tiny_config,
    tiny_values,
    write_teacher,
)
from training.distributed import world as parallel
from training.engine import checkpoint as checkpoint_module
from training.engine.checkpoint import complete, read_progress, read_tensors
from training.engine.export import export
from training.engine.method import set_trained
from training.engine.run import train
from training.engine.trainer import TrainingStoppedError
from training.methods.vdot import Vdot, export_metadata
from training.methods.vdot_networks import build_networks
from vdot_core.checkpoints import acc_wan_init, inspect, load_network, read_weights
from vdot_core.signals.conventions import CONTROL_CONVENTIONS, control_conventions

SCRIPT = Path(__file__).with_name("run_tiny.py")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


def _train(folder, teacher, source=None, **changes):
    trainer = new_trainer(tiny_config(folder, teacher, **changes), source)
    trainer.run()
    return trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory, teacher):
    folder = tmp_path_factory.mktemp("whole")
    return folder, _train(folder, teacher)


def wait_for_step(folder: Path, step: int, process: subprocess.Popen, seconds: float = 240) -> None:
    """Until a run has logged a step."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, process.stderr.read().decode()
        try:
            if max(losses_by_step(folder)) >= step:
                return
        except (FileNotFoundError, ValueError):
            pass
        time.sleep(0.02)
    raise AssertionError(f"step {step} not reached in {seconds} s")


def test_killed_and_resumed_to_the_same_bits(tmp_path, teacher, whole):
    values = tiny_values(
        tmp_path / "out", teacher, log__save_every=2, parallel__threads=torch.get_num_threads()
    )
    run_file = tmp_path / "run.json"
    run_file.write_text(json.dumps({"config": values, "source": {}}))
    process = subprocess.Popen([sys.executable, str(SCRIPT), str(run_file)], stderr=subprocess.PIPE)
    wait_for_step(tmp_path / "out", 5, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = complete(tmp_path / "out" / "checkpoints")
    assert before and before[-1].step < 10
    # A file half written when the process died is never taken for a checkpoint.
    (tmp_path / "out" / "checkpoints" / ".partial-00000099").mkdir()
    trainer = _train(tmp_path / "out", teacher, log__save_every=2)
    assert losses_by_step(tmp_path / "out") == losses_by_step(whole[0])
    for name, tensor in whole[1].tensors().items():
        assert torch.equal(tensor, trainer.tensors()[name]), name
    assert [checkpoint.step for checkpoint in complete(tmp_path / "out" / "checkpoints")] == [6, 8, 10]
    assert not list((tmp_path / "out" / "checkpoints").glob(".partial-*"))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_ends_the_step_saves_and_resumes_to_the_same_bits(tmp_path, teacher, whole, caplog, name):
    number = getattr(signal, name)

    class Asked(NoiseSource):
        def batches(self, step, rank=0, world_size=1):
            if step == 4:
                os.kill(os.getpid(), number)
            return super().batches(step, rank, world_size)

    outer = signal.signal(number, signal.default_int_handler)  # a runner may ignore it
    try:
        trainer = new_trainer(tiny_config(tmp_path, teacher), Asked())
        assert trainer.run() == 5 and trainer.stopped
        assert {"SIGINT": "Ctrl-C"}.get(name, name) in caplog.text
        assert signal.getsignal(number) == signal.default_int_handler
    finally:
        signal.signal(number, outer)
    assert [checkpoint.step for checkpoint in complete(tmp_path / "checkpoints")] == [4, 5]
    resumed = _train(tmp_path, teacher)
    assert losses_by_step(tmp_path) == losses_by_step(whole[0]) and not resumed.stopped
    for name, tensor in whole[1].tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name]), name


def test_every_network_learns_and_the_average_follows(whole, teacher):
    start = read_weights(teacher).state_dict
    trainer, method = whole[1], whole[1].method
    for network in (method.generator, method.fake_score):
        assert any(not torch.equal(p, start[n]) for n, p in network.named_parameters())
    assert all(torch.equal(p, start[n]) for n, p in method.real_score.named_parameters())
    moved = [
        (a - start[n]).norm() / (p - start[n]).norm()
        for (n, p), a in zip(method.generator.named_parameters(), trainer.average.parameters, strict=True)
        if not torch.equal(p, start[n])
    ]
    assert trainer.average.num_updates == 2 and all(0 < m <= 1 for m in moved)
    logged = losses_by_step(whole[0])
    assert {"generator/otd", "generator/transport_error", "critic/denoising"} <= set(logged[1])
    assert {"generator/gan", "critic/discriminator", "critic/real_logit"} <= set(logged[6])
    assert "generator/loss" not in logged[2] and logged[2]["critic/gradient_norm"] > 0


def test_export_is_the_averaged_generator_as_the_loader_reads_it(whole, tmp_path):
    trainer = whole[1]
    path = export(trainer.config, tmp_path / "new" / "student.safetensors", trainer.method.metadata())
    metadata = inspect(path).metadata
    assert inspect(path).config == SIZES and metadata["step"] == "10"
    assert control_conventions(metadata) == CONTROL_CONVENTIONS
    network = load_network(path)
    for (name, parameter), average in zip(
        network.named_parameters(), trainer.average.parameters, strict=True
    ):
        torch.testing.assert_close(parameter.float(), average, rtol=1e-2, atol=1e-3, msg=name)
    with pytest.raises(ValueError, match="no complete checkpoint"):
        export(tiny_config(tmp_path / "none", path), tmp_path / "x.safetensors", {})


@pytest.mark.parametrize("moment", ["listed", "checked", "read"])
def test_an_export_while_checkpoints_rotate_is_of_one_step(whole, tmp_path, moment, monkeypatch, caplog):
    """A run of `log.keep 1` that removes the checkpoint at each moment of its reading."""
    config, out_dir = whole[1].config, tmp_path / "run"
    newest = complete(Path(config.out_dir) / "checkpoints")[-1]
    folder = out_dir / "checkpoints"
    shutil.copytree(newest.path, folder / newest.path.name)

    def rotate():
        if len(rotated) < 2:
            (old,) = folder.iterdir()
            new = folder / f"step-{int(old.name[5:]) + 1:08d}"
            shutil.copytree(old, tmp_path / new.name)
            progress = json.loads((tmp_path / new.name / "progress.json").read_text())
            (tmp_path / new.name / "progress.json").write_text(
                json.dumps(progress | {"step": progress["step"] + 1})
            )
            (tmp_path / new.name).rename(new)
            shutil.rmtree(old)
            rotated.append(new)

    def before(function):
        def rotating(*args):
            rotate()
            return function(*args)

        return rotating

    rotated, module = [], sys.modules["training.engine.export"]
    if moment == "read":
        monkeypatch.setattr(module, "read_tensors", before(read_tensors))
    else:
        place = "damage" if moment == "listed" else "altered"
        monkeypatch.setattr(checkpoint_module, place, before(getattr(checkpoint_module, place)))
    path = export(
        replace(config, out_dir=str(out_dir)), tmp_path / "x.safetensors", whole[1].method.metadata()
    )
    assert len(rotated) == 2 and inspect(path).metadata["step"] == str(newest.step + 2)
    assert load_network(path).config == SIZES
    assert "is damaged" not in caplog.text


def test_a_bad_step_is_skipped_and_named(tmp_path, teacher, caplog):
    trainer = _train(tmp_path, teacher, NoiseSource(poison=(0, 1)), max_steps=2)
    start = read_weights(teacher).state_dict
    assert all(torch.equal(p, start[n]) for n, p in trainer.method.generator.named_parameters())
    assert all(torch.equal(p, start[n]) for n, p in trainer.method.fake_score.named_parameters())
    assert "clip0-0" in caplog.text and "not finite" in caplog.text
    trainer = _train(tmp_path, teacher, max_steps=3)
    assert trainer.bad_steps == 0
    assert any(not torch.equal(p, start[n]) for n, p in trainer.method.fake_score.named_parameters())


def test_a_gradient_that_is_not_finite_is_skipped_though_its_loss_is(tmp_path, teacher, caplog):
    """As when a backward pass overflows: no weight or moment of that optimizer is touched."""
    config = tiny_config(tmp_path, teacher, max_steps=1)
    trainer = new_trainer(config)
    set_trained(trainer.method, ["fake_score"])
    trainer.method.fake_score.head.head.weight.register_hook(lambda gradient: gradient * torch.inf)
    before = {name: tensor.clone() for name, tensor in trainer.tensors().items()}
    trainer.run()
    row = losses_by_step(tmp_path)[1]
    assert all(math.isfinite(row[name]) for name in ("critic/loss", "generator/gradient_norm"))
    assert not math.isfinite(row["critic/gradient_norm"]) and trainer.bad_steps == 1
    after = trainer.tensors()
    for name, tensor in before.items():
        if name.startswith(("fake_score.", "discriminator.", "optimizer.fake_score", "optimizer.discrim")):
            assert torch.equal(tensor, after[name]), name
    assert any(not torch.equal(t, after[n]) for n, t in before.items() if n.startswith("generator."))
    assert "the critic's gradient is not finite" in caplog.text and "clip0-0" in caplog.text


def test_a_run_that_ends_with_a_bad_step_keeps_the_steps_before_and_says_so(tmp_path, teacher, caplog):
    settings = {"optim__generator_every": 1, "steps": 4, "export_dtype": "fp32"}
    good = _train(tmp_path, teacher, max_steps=3, **settings)
    before = {name: tensor.clone() for name, tensor in good.tensors().items()}
    assert "bad steps" not in caplog.text

    config = tiny_config(tmp_path, teacher, **settings)
    trainer = new_trainer(config, NoiseSource(poison=(3,)))
    counts = {name: state["step"] for name, state in trainer.optimizer_states()}
    assert train(trainer) == 4 and trainer.bad_steps == 1
    assert "the generator's loss is not finite" in caplog.text and "the critic's loss is" in caplog.text
    assert "bad steps at the end: 1, to step 4" in caplog.text
    # Neither optimizer, average nor moment is other than before the step.
    assert {name: state["step"] for name, state in trainer.optimizer_states()} == counts
    assert trainer.average.num_updates == good.average.num_updates == 3
    saved = complete(tmp_path / "checkpoints")[-1]
    assert saved.step == 4 and read_progress(saved)["bad_steps"] == 1
    tensors = dict(read_tensors(saved, ""))
    assert before.keys() == tensors.keys() == trainer.tensors().keys()
    for name, tensor in trainer.tensors().items():
        assert torch.equal(tensor, before[name]) and torch.equal(tensors[name], before[name]), name
    weights = read_weights(tmp_path / "export" / "generator.safetensors").state_dict
    assert all(torch.equal(weight, before[f"average.{name}"]) for name, weight in weights.items())

    caplog.clear()
    again = _train(tmp_path, teacher, **settings)
    assert again.step == 4 and "bad steps at the end: 1" in caplog.text, "said on each start"
    caplog.clear()
    assert _train(tmp_path, teacher, **{**settings, "steps": 6, "max_steps": 5}).bad_steps == 0
    assert "bad steps" not in caplog.text


def test_three_bad_steps_in_a_row_end_the_run(tmp_path, teacher):
    with pytest.raises(TrainingStoppedError, match="step-00000002"):
        _train(tmp_path, teacher, NoiseSource(poison=(2, 3, 4)), log__save_every=2)


def test_replayed_with_another_seed_or_other_networks_is_refused(whole, tmp_path, teacher):
    shutil.copytree(whole[0], tmp_path / "copy")
    with pytest.raises(ValueError, match="seed is 6"):
        _train(tmp_path / "copy", teacher, seed=6)
    other = write_teacher(tmp_path / "wide.safetensors", ffn_dim=20)
    with pytest.raises(ValueError, match="does not fit"):
        _train(tmp_path / "copy", other)
    with pytest.raises(ValueError, match="does not fit"):
        _train(tmp_path / "copy", teacher, model__discriminator_width=8)


@pytest.mark.parametrize("sharded", [False, True])
def test_bf16_stays_close_and_its_checkpoints_are_fp32(tmp_path, teacher, whole, sharded):
    """Autocast of replicated weights, and FSDP's mixed precision in a process group of one."""
    settings = {"parallel__precision": "bf16", "parallel__checkpoint_every": 1, "parallel__fsdp": sharded}
    try:
        trainer = _train(tmp_path, teacher, max_steps=6, **settings)
        assert trainer.world.sharded == sharded
        dtypes = {p.dtype for p in trainer.method.fake_score.parameters()}
        assert dtypes == {torch.float32}
    finally:
        parallel.stop()
    full, half = losses_by_step(whole[0]), losses_by_step(tmp_path)
    for step in range(1, 7):
        assert half[step]["critic/loss"] == pytest.approx(full[step]["critic/loss"], rel=0.1)
    assert half[6]["generator/loss"] == pytest.approx(full[6]["generator/loss"], rel=0.1)
    checkpoint = complete(tmp_path / "checkpoints")[-1]
    assert {tensor.dtype for _, tensor in read_tensors(checkpoint, "generator.")} == {torch.float32}


def test_stage_one_then_stage_two(tmp_path, teacher):
    """Text only, DMD alone; its export becomes the Wan part of a VACE generator."""
    switches = {"losses__otd": False, "losses__gan": False, "model__text_only": True, "stage": 1}
    source = NoiseSource(text_only=True, latents=False)
    trainer = _train(tmp_path / "one", teacher, source, max_steps=2, **switches)
    assert trainer.method.sizes.vace_layers == ()
    first = export(trainer.config, tmp_path / "one.safetensors", export_metadata(trainer.config))
    config = tiny_config(tmp_path / "two", teacher, model__acc_wan_init=str(first), model__frozen=["vace_"])
    networks = build_networks(config, parallel.start(config.parallel))
    expected = acc_wan_init(load_network(teacher, dtype=torch.float32), load_network(first))
    for (name, got), want in zip(networks.generator.named_parameters(), expected.parameters(), strict=True):
        assert torch.equal(got, want), name
    method = Vdot(config, parallel.start(config.parallel), source.empty_text)
    set_trained(method, ["generator"])
    trained = {p.requires_grad for n, p in method.generator.named_parameters() if n.startswith("vace_")}
    assert trained == {False}
    with pytest.raises(ValueError, match="acc_wan_init"):
        Vdot.check(tiny_config(tmp_path, teacher, model__acc_wan_init=str(first), model__text_only=True))


def test_captions_of_another_width_are_refused(tmp_path, teacher):
    """As of a cache that was made with another text encoder."""
    config = tiny_config(tmp_path, teacher)
    with pytest.raises(ValueError, match="width 99, the network takes 8; encode them with"):
        Vdot(config, parallel.start(config.parallel), torch.zeros(1, 3, 99))


def test_files_of_other_sizes_are_refused_by_key(tmp_path, teacher):
    other = write_teacher(tmp_path / "wide.safetensors", ffn_dim=20)
    for key in ("generator", "fake_score", "acc_wan_init"):
        config = tiny_config(tmp_path, teacher, **{f"model__{key}": str(other)})
        with pytest.raises(ValueError, match=f"model.{key}.*ffn_dim 20"):
            build_networks(config, parallel.start(config.parallel))
    text_only = write_teacher(tmp_path / "text.safetensors", vace_layers=())
    config = tiny_config(tmp_path, teacher, model__generator=str(text_only))
    with pytest.raises(ValueError, match=r"model.generator.*VACE layers \[\]"):
        build_networks(config, parallel.start(config.parallel))
