"""Sample videos by separate processes: `run_samples.py CONFIG.json`."""

import json
import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[3])

from training.data.cache import Cache
from training.data.source import CachedSource
from training.distributed import world as parallel
from training.engine.average import AveragedWeights
from training.engine.samples import write_samples
from training.methods.programs import distill_config
from training.methods.vdot import Vdot
from vdot_core.networks import passes


def main() -> None:
    """Write the samples of a cache, as the JSON file says, and down what the first process would log."""
    # As with clips of real sizes: every context takes a separate pass through the VACE blocks.
    passes.MAX_BATCHED_TOKENS = 0
    config = distill_config(json.loads(Path(sys.argv[1]).read_text()))
    source = CachedSource(
        Cache(config.data.cache_dir), task_weights={}, seed=0, global_batch=2, accumulation=1
    )
    world = parallel.start(config.parallel)
    try:
        method = Vdot(config, world, source.empty_text)
        average = AveragedWeights(method.generator, 0.9)
        videos = write_samples(method, average, config, source, world, 5)
        if world.rank == 0:
            names = [video.name for video in videos]
            (Path(config.out_dir) / "logged.json").write_text(json.dumps([world.sharded, names]))
    finally:
        parallel.stop()


if __name__ == "__main__":
    main()
