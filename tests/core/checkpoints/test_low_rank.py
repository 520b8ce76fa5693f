"""Truncated SVD against torch's complete one."""

import pytest
import torch

from vdot_core.checkpoints.lora.low_rank import EXACT_SIDE, squared_norm, truncated_svd

SPECTRA = {
    "falling": lambda n: torch.arange(1.0, n + 1) ** -0.8,
    "steps": lambda n: torch.where(torch.arange(n) < 40, 1.0, 0.02),
    "flat": lambda n: torch.ones(n),
}


def planted(rows: int, columns: int, spectrum: str, seed: int = 0) -> torch.Tensor:
    """A matrix of a known spectrum."""
    generator = torch.Generator().manual_seed(seed)
    side = min(rows, columns)
    u, v = (torch.linalg.qr(torch.randn(n, side, generator=generator)).Q for n in (rows, columns))
    return (u * SPECTRA[spectrum](side)) @ v.T


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("rank", [8, 64])
@pytest.mark.parametrize("shape", [(96, 160), (EXACT_SIDE + 88, EXACT_SIDE + 188), (800, EXACT_SIDE + 88)])
def test_the_product_is_as_close_as_any_of_its_rank(shape, rank, spectrum):
    matrix = planted(*shape, spectrum)
    up, down = truncated_svd(matrix, rank)
    assert (up.shape, down.shape) == ((shape[0], rank), (rank, shape[1]))
    values = torch.linalg.svdvals(matrix).square()
    kept = 1 - squared_norm(matrix - up @ down) / squared_norm(matrix)
    best = (values[:rank].sum() / values.sum()).item()
    # Of a flat spectrum every subspace is as good, but a sketch still finds one.
    assert best * (0.995 if spectrum == "falling" else 0.999) <= kept <= best * 1.0001
    assert torch.allclose(up.norm(dim=0), down.norm(dim=1), rtol=1e-3), "both factors share the scale"


@pytest.mark.parametrize("shape", [(120, 90), (640, 600)])
def test_the_smallest_rank_that_keeps_an_energy(shape):
    matrix = planted(*shape, "falling")
    values = torch.linalg.svdvals(matrix).double().square()
    best = int((values.cumsum(0) < 0.8 * values.sum()).sum()) + 1
    up, down = truncated_svd(matrix, 300, energy=0.8)
    assert up.shape[1] == pytest.approx(best, abs=0 if min(shape) <= EXACT_SIDE else 2)
    assert 1 - squared_norm(matrix - up @ down) / squared_norm(matrix) >= 0.799
    assert truncated_svd(matrix, 5, energy=0.99)[0].shape[1] == 5, "the cap comes first"


def test_full_rank_is_the_matrix_itself():
    matrix = planted(30, 50, "falling")
    up, down = truncated_svd(matrix, 1000)
    assert up.shape == (30, 30) and (matrix - up @ down).norm() < 1e-5 * matrix.norm()


def test_equal_seeds_give_equal_factors():
    matrix = planted(700, 600, "falling")
    first, second, other = (truncated_svd(matrix, 16, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], other[0])


def test_squared_norm_of_any_shape():
    for shape in ((7,), (3, 4), (600, 5), (2, 3, 4)):
        value = torch.randn(shape)
        assert squared_norm(value) == pytest.approx(value.double().square().sum().item(), rel=1e-12)
