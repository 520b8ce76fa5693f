"""Anderson acceleration of a batch of fixed-point iterations."""

import torch

RIDGE = 1e-10
RESTART_FACTOR = 3.0


class Anderson:
    """Extrapolates x -> map(x) from the last `memory` steps; restarts from the best point when it diverges.

    Walker & Ni, SIAM J. Numer. Anal. 49 (2011), with the differences as unknowns: least squares in float64
    with a ridge. ``memory == 0`` is the plain iteration.

    Args:
        x: [B, N] starting points.
        weights: [B, N] weights of the least-squares norm.
        memory: number of past steps that are combined.
    """

    def __init__(self, x: torch.Tensor, weights: torch.Tensor, memory: int):
        self.memory, self.weights = memory, weights.double()
        self.best_x = x.clone()
        self.best_error = torch.full_like(x[:, 0], float("inf"))
        self.previous = None
        if memory:
            shape = (x.shape[0], memory, x.shape[1])
            self.d_mapped = torch.zeros(shape, dtype=torch.float64, device=x.device)
            self.d_residual = torch.zeros_like(self.d_mapped)
            self.slot = 0

    def next(self, x: torch.Tensor, mapped: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
        """The next point to evaluate, given x [B, N], map(x) and the error [B] measured at x."""
        better = error < self.best_error
        self.best_error = torch.where(better, error, self.best_error)
        self.best_x = torch.where(better[:, None], mapped, self.best_x)
        if not self.memory:
            return mapped
        strayed = ~(error <= RESTART_FACTOR * self.best_error)
        mapped64 = torch.where(strayed[:, None], self.best_x, mapped).double()
        residual = mapped64 - x.double()
        if self.previous is not None:
            self.d_mapped[:, self.slot] = mapped64 - self.previous[0]
            self.d_residual[:, self.slot] = residual - self.previous[1]
            self.slot = (self.slot + 1) % self.memory
        self.previous = (mapped64, residual)
        if strayed.any():
            self.d_mapped[strayed] = 0
            self.d_residual[strayed] = 0
        return (mapped64 - self._correction(residual, strayed)).to(x.dtype)

    def _correction(self, residual: torch.Tensor, strayed: torch.Tensor) -> torch.Tensor:
        weighted = self.d_residual * self.weights[:, None]
        gram = weighted @ self.d_residual.transpose(1, 2)
        right = weighted @ residual[..., None]
        size = gram.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None]
        # An empty history has a zero Gram matrix: the added constant keeps it solvable, with a zero solution.
        identity = torch.eye(self.memory, dtype=gram.dtype, device=gram.device)
        gamma = torch.linalg.solve(gram + (RIDGE * size + 1e-300) * identity, right)
        correction = (gamma.transpose(1, 2) @ self.d_mapped)[:, 0]
        usable = correction.isfinite().all(-1) & ~strayed
        return torch.where(usable[:, None], correction, torch.zeros_like(correction))

    def select(self, index: torch.Tensor) -> None:
        """Keep only the problems at `index`."""
        self.weights, self.best_x, self.best_error = (
            self.weights[index],
            self.best_x[index],
            self.best_error[index],
        )
        if self.previous is not None:
            self.previous = tuple(x[index] for x in self.previous)
        if self.memory:
            self.d_mapped, self.d_residual = self.d_mapped[index], self.d_residual[index]
