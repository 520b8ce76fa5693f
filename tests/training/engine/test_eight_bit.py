"""Optimizer states in 8 bits: near 32-bit training, a quarter of the bytes, the same however rows are cut."""

import sys

import pytest
import torch

from tests.support.distill import losses_by_step, new_trainer, tiny_config, write_teacher
from training.engine import eight_bit
from training.engine.adamw import AdamW
from training.engine.checkpoint import complete

WIDE = {"dim": 64, "ffn_dim": 128}  # rows long enough for blocks


@pytest.fixture
def torchao():
    """Skips where the package is missing."""
    return pytest.importorskip("torchao", reason="needs the package torchao: pip install torchao")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors", **WIDE)


def _train(folder, teacher, **changes):
    config = tiny_config(folder, teacher, **{"optim__state_bits": 8, **changes})
    trainer = new_trainer(config)
    trainer.run()
    return trainer


def _state_bytes(optimizer):
    states = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.nbytes for value in states if isinstance(value, torch.Tensor))


def _noise_steps(*weights, num_steps=40, **options):
    """Weights, together [8, 256], after updates by noise that is 10,000 times larger in some columns."""
    weights = [torch.nn.Parameter(weight.clone()) for weight in weights]
    optimizer = AdamW(weights, lr=0.01, weight_decay=0.1, state_bits=options.pop("bits"), **options)
    generator = torch.Generator().manual_seed(0)
    for _ in range(num_steps):
        rows = torch.randn(8, 256, generator=generator) * torch.logspace(-4, 0, 256)
        for weight, gradient in zip(weights, rows.split([len(w) for w in weights]), strict=True):
            weight.grad = gradient
        optimizer.step()
    return torch.cat([weight.detach() for weight in weights])


@pytest.mark.parametrize("betas, tolerance", [((0.0, 0.999), 0.15), ((0.9, 0.95), 0.3)])
def test_updates_are_near_those_of_32_bits_for_small_gradients_too(torchao, betas, tolerance):
    start = torch.zeros(8, 256)
    full, short = (_noise_steps(start, betas=betas, bits=bits) for bits in (32, 8))
    for columns in (slice(0, 64), slice(64, 192), slice(192, 256)):
        error = (short - full)[:, columns].norm() / full[:, columns].norm()
        assert 0 < error < tolerance, columns


def test_the_same_bits_however_rows_are_cut(torchao):
    start = torch.randn(8, 256)
    whole = _noise_steps(start, bits=8)
    for sizes in ((4, 4), (3, 3, 2)):
        assert torch.equal(whole, _noise_steps(*start.split(sizes), bits=8))


@pytest.mark.parametrize("betas, num_moments", [((0.0, 0.999), 1), ((0.9, 0.999), 2)])
def test_states_are_a_quarter(torchao, betas, num_moments):
    shapes = [(96, 512), (32, 16, 1, 2, 2), (1, 6, 128), (512,), (8, 48)]
    weights = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
    assert [eight_bit.block_size(shape) for shape in shapes] == [256, 64, 256, 0, 0]
    num_bytes = _state_bytes(AdamW(weights, betas=betas, state_bits=8))
    assert num_bytes == num_moments * sum(eight_bit.moment_bytes(shape, 8) for shape in shapes)
    large = [weight for weight in weights if eight_bit.block_size(tuple(weight.shape))]
    ratio = _state_bytes(AdamW(large, state_bits=8)) / _state_bytes(AdamW(large))
    assert 0.25 < ratio < 0.27


def test_losses_stay_near_those_of_32_bits_and_resume_to_the_same_bits(torchao, tmp_path, teacher):
    full = _train(tmp_path / "full", teacher, optim__state_bits=32)
    whole = _train(tmp_path / "whole", teacher)
    expected, losses = losses_by_step(tmp_path / "full"), losses_by_step(tmp_path / "whole")
    assert losses != expected
    for step in range(1, 11):
        assert losses[step]["critic/loss"] == pytest.approx(expected[step]["critic/loss"], rel=0.02)
    assert losses[6]["generator/loss"] == pytest.approx(expected[6]["generator/loss"], rel=0.02)
    for name in ("generator", "critic"):
        (eight,), (plain,) = whole.optimizers[name].parts, full.optimizers[name].parts
        assert _state_bytes(eight) < 0.35 * _state_bytes(plain)  # short rows stay as they are

    _train(tmp_path / "parts", teacher, max_steps=5)
    again = _train(tmp_path / "parts", teacher)
    assert losses_by_step(tmp_path / "parts") == losses
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, again.tensors()[name]), name
    assert any(name.endswith("exp_avg_sq_codes") for name in whole.tensors())
    with pytest.raises(ValueError, match=r"optim.state_bits is 32, .* made with 8"):
        _train(tmp_path / "parts", teacher, optim__state_bits=32)
    assert complete(tmp_path / "parts" / "checkpoints")[-1].step == 10


def test_without_torchao_it_says_what_to_install(monkeypatch):
    eight_bit._state_class.cache_clear()
    monkeypatch.setitem(sys.modules, "torchao.optim.subclass_8bit", None)
    weight = torch.nn.Parameter(torch.zeros(4, 64))
    with pytest.raises(ValueError, match="pip install torchao"):
        AdamW([weight], state_bits=8)
    AdamW([weight])
    with pytest.raises(ValueError, match="state_bits is 4"):
        AdamW([weight], state_bits=4)
