"""Runs of `tiny/pretrain.py` in this process, and what they left."""

from __future__ import annotations

from pathlib import Path

import yaml
from torch import Tensor

from tiny import pretrain
from training.engine.checkpoint import complete, read_progress, read_tensors


def pretrained(config: dict, file: Path, *arguments: str) -> tuple[int, dict[str, Tensor], dict]:
    """Train as a configuration says.

    Args:
        config: Keys of `tiny.config.PretrainConfig`.
        file: Where to write them.
        arguments: More of the command line.

    Returns:
        The step, tensors and plain values of the newest checkpoint.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(config))
    assert pretrain.main(["--config", str(file), *arguments]) == 0
    newest = complete(Path(config["out_dir"]) / "checkpoints")[-1]
    return newest.step, dict(read_tensors(newest, "")), read_progress(newest)["values"]
