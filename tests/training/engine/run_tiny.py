"""A run on batches of noise, for tests that need separate processes: `run_tiny.py CONFIG.json`."""

import json
import logging
import os
import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[3])

from tests.support.distill import NoiseSource
from training.distributed import world as parallel
from training.engine.trainer import Trainer
from training.methods.programs import distill_config
from training.methods.vdot import Vdot


def main() -> None:
    """Train as the JSON file says."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    run = json.loads(Path(sys.argv[1]).read_text())
    if run.get("out_dirs"):
        run["config"]["out_dir"] = run["out_dirs"][int(os.environ["RANK"])]
    config = distill_config(run["config"])
    world = parallel.start(config.parallel)
    try:
        source = NoiseSource(**run["source"])
        Trainer(config, Vdot(config, world, source.empty_text), source, world).run()
    finally:
        parallel.stop()


if __name__ == "__main__":
    main()
