"""Train a VACE transformer by flow matching: `python training/finetune.py --config FILE.yaml`.

For a teacher that knows your clips, or a model to use as it is (20 to 50 steps, guidance). Encode the clips
first: `python training/cache.py --config ..` with the same file. The same file runs under torchrun. A second
start resumes from the last checkpoint. The method is `training/methods/flow_matching.py`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    # Replaces the script's own folder, whose names would hide other packages' (`data`, `methods`).
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.engine.stopping import interrupt_in_words
from training.methods.programs import finetune_parser
from vdot_core.out_of_memory import memory_in_words

logger = logging.getLogger("vdot")


@interrupt_in_words
@memory_in_words(
    "lower data.batch_size or raise data.accumulation (distill.py --plan says what fits); the same command "
    "resumes from the newest checkpoint, if there is one"
)
def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the process's exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    from training.engine.run import run
    from training.methods.flow_matching import FlowMatching

    try:
        config, _ = finetune_parser().read(sys.argv[1:] if argv is None else argv)
    except ValueError as error:
        logger.error("%s", error)
        return 2
    return run(config, FlowMatching, {"losses.task_text_drop": config.losses.task_text_drop})


if __name__ == "__main__":
    raise SystemExit(main())
