"""Videos of any length in chunks that continue each other without drift."""

from .chunks import continued, sliced
from .generate import Chunk, Joining, generate
from .plan import Change, Span, changed_at, changes_begin, check_changes, chunk_seed, plan_chunks
from .record import Record, digest_of, read_manifest, sampled_digest

__all__ = [
    "Change",
    "Chunk",
    "Joining",
    "Record",
    "Span",
    "changed_at",
    "changes_begin",
    "check_changes",
    "chunk_seed",
    "continued",
    "digest_of",
    "generate",
    "plan_chunks",
    "read_manifest",
    "sampled_digest",
    "sliced",
]
