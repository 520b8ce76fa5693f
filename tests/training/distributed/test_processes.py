"""Two processes under torchrun (gloo, FSDP2): the same losses as one, a lost process, resuming either way."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

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
from training.distributed import world as parallel
from training.engine.checkpoint import complete
from training.engine.trainer import Trainer

ENDED_S = 90


def _workers(process: subprocess.Popen) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def _assert_close(ones: dict, others: dict) -> None:
    assert ones.keys() == others.keys()
    for step, row in ones.items():
        assert row.keys() == others[step].keys()
        for name, value in row.items():
            assert others[step][name] == pytest.approx(value, rel=1e-4, abs=1e-6), (step, name)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


@pytest.fixture(scope="module")
def two(tmp_path_factory, teacher):
    """Ten uninterrupted steps of two processes."""
    folder = tmp_path_factory.mktemp("two")
    process = launch(folder, tiny_values(folder / "out", teacher))
    assert wait(process, folder) == 0, (folder / "log.txt").read_text()[-3000:]
    return folder / "out"


def _one_process(folder: Path, teacher: Path, source: dict | None = None, **changes) -> Trainer:
    config = tiny_config(folder, teacher, **changes)
    try:
        trainer = new_trainer(config, NoiseSource(**source or {}))
        trainer.run()
    finally:
        parallel.stop()
    return trainer


def test_two_sharded_processes_give_the_losses_of_one(two, tmp_path, teacher):
    _one_process(tmp_path, teacher)
    ones = losses_by_step(tmp_path)
    _assert_close(ones, losses_by_step(two))
    assert "generator/otd" in ones[1] and "generator/gan" in ones[6] and len(ones) == 10


@pytest.mark.full
def test_processes_whose_tasks_are_guided_differently_pass_equally_often(tmp_path, teacher):
    """Each has one task alone, and one of the two is not guided: sharded, every pass is of both."""
    losses = {"losses__guidance": 3.0, "losses__task_guidance": {"depth": 1.0}}
    losses["losses__batch_guidance"] = False
    values = tiny_values(tmp_path / "out", teacher, max_steps=2, parallel__timeout_s=240, **losses)
    source = {"global_batch": 2, "tasks": ["depth", "text"]}
    assert wait(launch(tmp_path, values, source), tmp_path) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    _one_process(tmp_path / "one", teacher, source=source, max_steps=2, **losses)
    _assert_close(losses_by_step(tmp_path / "one"), losses_by_step(tmp_path / "out"))


@pytest.mark.full
def test_in_bf16_two_processes_give_the_losses_of_one_that_shards_their_micro_batches(tmp_path, teacher):
    """Products then round equally; updates, at first by a gradient's sign, would show other roundings."""
    settings = {"parallel__precision": "bf16", "max_steps": 6}
    values = tiny_values(tmp_path / "out", teacher, **settings)
    assert wait(launch(tmp_path, values), tmp_path) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    _one_process(tmp_path / "one", teacher, {"accumulation": 2}, parallel__fsdp=True, **settings)
    ones = losses_by_step(tmp_path / "one")
    _assert_close(ones, losses_by_step(tmp_path / "out"))
    assert "generator/otd" in ones[1] and "generator/gan" in ones[6]


@pytest.mark.full
def test_8_bit_states_are_sharded_saved_and_read_by_another_number_of_processes(tmp_path):
    pytest.importorskip("torchao", reason="needs the package torchao: pip install torchao")
    wide = write_teacher(tmp_path / "wide.safetensors", dim=64, ffn_dim=128)
    _one_process(tmp_path / "one", wide, optim__state_bits=8)
    ones = losses_by_step(tmp_path / "one")
    values = tiny_values(tmp_path / "two", wide, optim__state_bits=8, max_steps=7)
    assert wait(launch(tmp_path, values), tmp_path) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    _assert_close({step: row for step, row in ones.items() if step <= 7}, losses_by_step(tmp_path / "two"))
    _one_process(tmp_path / "two", wide, optim__state_bits=8)
    _assert_close(ones, losses_by_step(tmp_path / "two"))


@pytest.mark.full
@pytest.mark.parametrize("changes", [{"parallel__checkpoint_every": 2}, {"parallel__hsdp_replicas": 2}])
def test_memory_options_change_no_losses(changes, tmp_path, teacher):
    """Recomputed groups (a block with its VACE block, the last block; both layers tapped); full replicas."""
    _one_process(tmp_path / "plain", teacher, parallel__checkpoint_every=0, max_steps=6)
    values = tiny_values(tmp_path / "out", teacher, max_steps=6, **changes)
    assert wait(launch(tmp_path, values), tmp_path) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    plain = losses_by_step(tmp_path / "plain")
    _assert_close(plain, losses_by_step(tmp_path / "out"))
    assert "generator/otd" in plain[1] and "generator/gan" in plain[6]


def test_one_process_resumes_a_checkpoint_of_two(two, tmp_path, teacher):
    saved = complete(two / "checkpoints")
    assert [checkpoint.step for checkpoint in saved] == [4, 8, 10]
    shutil.copytree(saved[0].path, tmp_path / "checkpoints" / saved[0].path.name)
    trainer = _one_process(tmp_path, teacher)
    assert trainer.step == 10
    late = {step: row for step, row in losses_by_step(two).items() if step > 4}
    _assert_close(late, losses_by_step(tmp_path))


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the workers in /proc")
def test_a_lost_process_ends_the_job_which_resumes_with_the_same_bits(two, tmp_path, teacher):
    """One of two workers is killed; torchrun ends the other, and the same command resumes."""
    values = tiny_values(tmp_path / "out", teacher, log__save_every=2)
    process = launch(tmp_path, values)
    end = time.monotonic() + 240
    while last_logged_step(tmp_path / "out") < 5:
        assert process.poll() is None and time.monotonic() < end, (tmp_path / "log.txt").read_text()[-3000:]
        time.sleep(0.05)
    os.kill(_workers(process)[1], signal.SIGKILL)
    begun = time.monotonic()
    assert wait(process, tmp_path, ENDED_S) != 0
    assert time.monotonic() - begun < ENDED_S
    assert complete(tmp_path / "out/checkpoints")[-1].step < 10
    assert wait(launch(tmp_path, values), tmp_path) == 0
    assert losses_by_step(tmp_path / "out") == losses_by_step(two)


@pytest.mark.full
def test_two_replicas_resume_a_checkpoint_of_one_process(two, tmp_path, teacher):
    """Unsharded data parallelism, from a checkpoint of a single process."""
    _one_process(tmp_path / "out", teacher, max_steps=5)
    values = tiny_values(tmp_path / "out", teacher, parallel__fsdp=False, max_steps=7)
    assert wait(launch(tmp_path, values), tmp_path) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    early = {step: row for step, row in losses_by_step(two).items() if step <= 7}
    _assert_close(early, losses_by_step(tmp_path / "out"))


def test_a_folder_that_the_processes_do_not_share_is_refused(tmp_path, teacher):
    """As on two nodes with separate disks: a checkpoint would seem complete without the other's part."""
    values = tiny_values(tmp_path / "none", teacher, max_steps=2, parallel__timeout_s=240)
    process = launch(tmp_path, values, out_dirs=[tmp_path / "a", tmp_path / "b"])
    assert wait(process, tmp_path) != 0
    log = (tmp_path / "log.txt").read_text()
    assert "another folder for process 1" in log and "storage that all nodes share" in log
    assert not list((tmp_path / "a/checkpoints").iterdir())
