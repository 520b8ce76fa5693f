"""Videos of any length in chunks that continue each other without drift."""

from .chunks import Tail, carried, continued, sliced
from .generate import CARRIES, FADES, Chunk, Joining, generate
from .plan import Change, Span, changed_at, chunk_seed, plan_chunks

__all__ = [
    "CARRIES",
    "FADES",
    "Change",
    "Chunk",
    "Joining",
    "Span",
    "Tail",
    "carried",
    "changed_at",
    "chunk_seed",
    "continued",
    "generate",
    "plan_chunks",
    "sliced",
]
