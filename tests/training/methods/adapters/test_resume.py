"""A run with adapters resumes to the same bits, in one process or two; other adapters are refused."""

import os
import signal
import time

import pytest
import torch

from tests.support.distill import last_logged_step, losses_by_step, new_trainer, tiny_config, tiny_values
from tests.support.processes import launch, wait
from tests.training.methods.adapters.runs import ADAPTERS, CHANGES, train
from training.distributed import world as processes
from training.engine.checkpoint import complete


def test_stopped_and_resumed_to_the_same_bits(run, tmp_path, teacher):
    train(tmp_path, teacher, max_steps=5)
    trainer = train(tmp_path, teacher)
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
            train(run[0], teacher, **changes)
        assert "set allow_changes" not in str(error.value) and len(str(error.value)) <= 400


def test_another_alpha_resumes_only_where_it_is_allowed(run, teacher):
    other = {**ADAPTERS, "alpha": 3.0}
    with pytest.raises(ValueError, match=r"another model\.adapters\.alpha .* set allow_changes true"):
        train(run[0], teacher, model__adapters=other)
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
    trainer = train(out, teacher, log__save_every=2, max_steps=killed_at + 1)
    processes.stop()
    assert trainer.step == killed_at + 1
    assert wait(launch(tmp_path, values), tmp_path) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    resumed = losses_by_step(out)
    assert resumed.keys() == losses_by_step(run[0]).keys()
    for step, row in losses_by_step(run[0]).items():
        for name, value in row.items():
            assert resumed[step][name] == pytest.approx(value, rel=1e-5, abs=1e-6), (step, name)
