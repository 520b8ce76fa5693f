"""Kinds of a network's parameters, for reports."""

from __future__ import annotations

import re

from ..layouts import VACE_ROOTS

KINDS = (
    "self-attention q",
    "self-attention k",
    "self-attention v",
    "self-attention o",
    "cross-attention",
    "feed-forward",
    "norms",
    "modulation",
    "embeddings and head",
    "VACE blocks",
)
_SELF_ATTENTION = re.compile(r"blocks\.\d+\.self_attn\.([qkvo])\.")


def kind_of(name: str) -> str:
    """The entry of KINDS that a parameter belongs to.

    Args:
        name: Wan's name of the parameter.
    """
    if name.startswith(VACE_ROOTS):
        return "VACE blocks"
    if ".norm" in name:
        return "norms"
    if name.endswith("modulation"):
        return "modulation"
    match = _SELF_ATTENTION.match(name)
    if match:
        return f"self-attention {match[1]}"
    if ".cross_attn." in name:
        return "cross-attention"
    return "feed-forward" if ".ffn." in name else "embeddings and head"
