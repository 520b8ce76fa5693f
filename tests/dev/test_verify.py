"""`dev.py verify`: the step against ComfyUI's network, and the program as a whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from devtools.verify.__main__ import main
from tests.core.checkpoints.helpers import weights_of
from tests.support.comfy import ROOT
from vdot_core.checkpoints import save_weights
from vdot_core.networks import WanVaceConfig, hooks

STUDENT = ROOT / "assets/vdot_tiny_student.safetensors"


@pytest.fixture
def compare(comfy):
    from devtools.verify.step import compare_step

    return lambda path: compare_step(str(path), None, "cpu")


def test_the_step_equals_comfyui(compare, tmp_path):
    check = compare(STUDENT)
    assert check.passed and "e-07 from ComfyUI" in check.detail
    config = WanVaceConfig(64, 96, 2, 4, text_dim=24, freq_dim=32)
    save_weights(tmp_path / "text.safetensors", config, weights_of(config))
    assert compare(tmp_path / "text.safetensors").passed


def test_a_wrong_network_fails_the_step(compare, monkeypatch):
    """A fault of the smallest kind: GELU without its tanh approximation."""
    monkeypatch.setattr(hooks, "gelu", torch.nn.functional.gelu)
    assert not compare(STUDENT).passed


def test_uneven_vace_layers_cannot_be_compared(compare, tmp_path):
    config = WanVaceConfig(64, 96, 2, 4, vace_layers=(0, 3), text_dim=24, freq_dim=32)
    save_weights(tmp_path / "w.safetensors", config, weights_of(config))
    with pytest.raises(ValueError, match=r"at the layers \(0, 3\); ComfyUI's network spaces them evenly"):
        compare(tmp_path / "w.safetensors")


@pytest.mark.full
def test_the_program(comfyui, tmp_path):
    def verify(path: Path) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "devtools.verify", str(path), "--device", "cpu"],
            env={**os.environ, "VDOT_COMFYUI": str(comfyui), "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    run = verify(STUDENT)
    assert run.returncode == 0 and run.stdout.splitlines()[-1].startswith("ok    step"), run.stderr
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(STUDENT.read_bytes()[:-100])
    run = verify(broken)
    assert run.returncode == 1 and "error: " in run.stderr and "Traceback" not in run.stderr


def test_paths_are_made_absolute_before_the_folder_changes(tmp_path, monkeypatch):
    from devtools.verify.options import absolute, read_options

    monkeypatch.chdir(tmp_path)
    arguments = absolute(read_options(["a.pt", "--vace", "m.safetensors", "--sha256", "--device", "cpu"]))
    assert arguments == [
        str(tmp_path / "a.pt"), "--device", "cpu", "--vace", str(tmp_path / "m.safetensors"), "--sha256",
    ]  # fmt: skip
    assert read_options(arguments).headers is False


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_named_before_the_file_is_read(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["verify", str(STUDENT), "--device", "cuda"])
    assert main() == 1
    captured = capsys.readouterr()
    assert "error: device 'cuda' cannot be used" in captured.err and not captured.out
