"""The diffusers package, imported where it is used."""

from __future__ import annotations

import logging
from types import ModuleType


def import_diffusers() -> ModuleType:
    """Import diffusers without its warning about checkpoints in torchao's formats, which are not read here.

    It appears with every torchao since 0.16, whether one is used or not.
    """
    logging.getLogger("diffusers.quantizers.torchao.torchao_quantizer").setLevel(logging.ERROR)
    import diffusers

    return diffusers
