"""The size of a run is known beforehand: a disk that is too small refuses it before weights are read."""

import logging
import shutil
from collections import namedtuple

import pytest

import training.engine.space as space
from tests.support.distill import new_trainer, tiny_config, tiny_values, write_teacher
from training import distill
from training.engine.run import train
from training.engine.throughput import peak_tflops
from training.methods.vdot import Vdot

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


@pytest.mark.parametrize("changes", [{}, {"model__adapters__rank": 2}])
def test_sizes_are_those_of_the_files(changes, tmp_path, teacher):
    config = tiny_config(tmp_path, teacher, steps=2, optim__generator_every=1, **changes)
    sizes = Vdot.output_bytes(config)
    trainer = new_trainer(config)
    train(trainer)
    tensors = sum(t.numel() * t.element_size() for t in trainer.tensors().values())
    assert sizes.checkpoint == tensors
    file = (tmp_path / "export" / "generator.safetensors").stat().st_size
    assert sizes.export <= file < 1.1 * sizes.export + 20_000, "the header is the rest"


def test_a_disk_that_is_too_small_refuses_the_run_in_a_sentence(tmp_path, teacher, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 10**5))
    monkeypatch.setattr(distill.logger, "propagate", True)
    values = tiny_values(tmp_path / "out", teacher, log__keep=2)
    assert distill.main([f"--{key}={value}" for key, value in values.items() if value is not None]
                        + ["--model.preset=null"]) == 2  # fmt: skip
    message = capsys.readouterr().err
    assert "0.1 MiB free" in message and "log.keep" in message and "another out_dir" in message


def test_what_lies_there_counts_as_written(tmp_path, teacher, monkeypatch):
    config, sizes = tiny_config(tmp_path, teacher), space.OutputBytes(1000, 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 3000))
    with pytest.raises(ValueError, match="free, and this run writes"):
        space.check_space(config, sizes)
    (tmp_path / "checkpoints" / "step-1").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-1" / "part").write_bytes(bytes(1100))
    space.check_space(config, sizes)


def test_too_little_cpu_memory_is_a_warning(tmp_path, teacher, monkeypatch, caplog):
    config = tiny_config(tmp_path, teacher)
    world = new_trainer(config).world
    for available, warned in ((999, True), (1001, False), (None, False)):
        monkeypatch.setattr(space, "available_memory", lambda available=available: available)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "vdot"):
            space.check_host_memory(config, space.OutputBytes(1000, 0), world)
        assert ("log.asynchronous false" in caplog.text) == warned


@pytest.mark.parametrize(
    "name, peak",
    [
        ("NVIDIA H200", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("cpu", None),
    ],
)
def test_peaks_of_known_gpus(name, peak):
    assert peak_tflops(name, "bf16") == peak
    assert peak_tflops(name, "fp32") is None
