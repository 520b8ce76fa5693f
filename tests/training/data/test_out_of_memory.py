"""Every program ends in a sentence and an exit status where the memory is exhausted, in any of its forms."""

import errno
import logging
import os
import re
from argparse import Namespace

import pytest
import torch

from tests.support.comfy import ROOT
from tiny import evaluate, pretrain
from tiny import train as tiny_train
from training import cache, distill, finetune, plan, prepare, sweep
from training import evaluate as benchmark
from training.data.rows import RowsProducer
from training.engine.cli import RunParser
from vdot_core.checkpoints import __main__ as checkpoints
from vdot_core.checkpoints import commands
from vdot_core.out_of_memory import is_out_of_memory, sentence

from .conftest import write_manifest

ERRORS = {
    "python": MemoryError(),
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB\nmore\nlines " * 20),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "system": OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    "worker": MemoryError("Caught MemoryError in DataLoader worker 0.\nTraceback\nMemoryError: \x1b["),
    "killed worker": RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. "),
    "shared memory": RuntimeError("Bus error. Perhaps dataloader's workers are out of shared memory."),
}  # fmt: skip
PROGRAMS = {
    module.__name__: module
    for module in (benchmark, cache, distill, finetune, plan, prepare, sweep, evaluate, pretrain, tiny_train)
}

LIGHT = {
    "tiny/clips/render_examples.py",
    "tiny/plot_curves.py",
    "vdot_core/annotators/fetch.py",
}


@pytest.fixture(autouse=True)
def _messages(caplog):
    logging.getLogger("vdot").setLevel(logging.NOTSET)


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_ends_in_a_sentence(monkeypatch, caplog, name, kind):
    def read(*_):
        raise ERRORS[kind]

    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr(RunParser, "read", read)
    monkeypatch.setattr(evaluate, "parse_config", read)
    assert PROGRAMS[name].main([]) == 1
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    message = record.getMessage()
    assert message.startswith("out of memory") and len(message) <= 400 and message.isprintable()
    assert ";" in message and record.exc_info is None


def test_every_program_has_it():
    """Programs end in the status of their `main`; three drawings and a download need little memory."""
    plain = set()
    for folder in ("training", "tiny", "vdot_core"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text("utf-8")
            if re.search(r"(SystemExit|sys\.exit)\(main\(\)\)", text) and "\n@memory_in_words(" not in text:
                plain.add(path.relative_to(ROOT).as_posix())
    assert plain == LIGHT


def test_the_line_that_tells_of_a_worker_is_shown_wherever_it_stands():
    """Its signal may arrive while anything runs, such as an import, whose error comes first then."""
    killed = str(ERRORS["killed worker"])
    assert "pid 5" in sentence(RuntimeError(f"Failed to import diffusers (look up):\n{killed}"), "")


def test_the_checkpoint_program_too(monkeypatch, caplog):
    def run(_):
        raise MemoryError

    monkeypatch.setattr(commands.COMMANDS["inspect"], "run", run)
    assert checkpoints.main(["inspect", "a.safetensors"]) == 1
    assert "out of memory" in caplog.text and "more memory" in caplog.text


def test_a_row_that_fills_the_memory_ends_the_cache_program_in_its_sentence(
    config, clips, records, monkeypatch, caplog
):
    settings = config(path=str(write_manifest(clips / "memory.csv", records[:1])))

    def fails(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(RowsProducer, "_sample", fails)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    options = Namespace(rank=0, world_size=1, retry_skipped=False)
    monkeypatch.setattr(cache, "read_arguments", lambda _: (settings, options))
    assert cache.main([]) == 1
    assert "out of memory at memory.csv row 1" in caplog.text and "data.max_pixels" in caplog.text


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), OSError(errno.ENOSPC, "full"), KeyError("a")]
)
def test_other_errors_are_not_taken_for_it(error, monkeypatch):
    assert not is_out_of_memory(error)
