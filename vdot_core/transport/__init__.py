"""Entropic optimal transport between the latent point clouds of the fake and the real score."""

from .memory import working_bytes
from .result import OTResult
from .solver import entropic_ot

__all__ = ["OTResult", "entropic_ot", "working_bytes"]
