"""Distill a few-step generator: `python training/distill.py --config training/configs/wan_14b_stage2.yaml`.

The same file runs under torchrun. A second start with the same command resumes from the last checkpoint. The
method is `training/methods/vdot.py`, the loop `training/engine/trainer.py`.
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
from training.methods.programs import distill_parser
from vdot_core.out_of_memory import is_out_of_memory, memory_in_words

logger = logging.getLogger("vdot")


@interrupt_in_words
@memory_in_words(
    "lower data.batch_size or raise data.accumulation (distill.py --plan says what fits); the same command "
    "resumes from the newest checkpoint, if there is one"
)
def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the process's exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    argv = list(sys.argv[1:] if argv is None else argv)
    if "--plan" in argv:
        from training.plan import main as plan

        return plan(argv)
    from training.engine.export import export
    from training.engine.run import run, unusable
    from training.engine.trainer import TrainingStoppedError
    from training.engine.writing import NotSavedError
    from training.methods.vdot import Vdot, export_metadata
    from training.methods.vdot_networks import adapted_from

    try:
        config, values = distill_parser().read(argv)
        if values.export:
            export(config, values.export, export_metadata(config), adapted_from(config))
            return 0
        if values.dry_run:
            from training.planning.dry_run import dry_run

            return dry_run(config)
    except ValueError as error:
        logger.error("%s", error)
        return 2
    except (NotSavedError, TrainingStoppedError) as error:
        logger.error("%s", error)
        return 1
    except OSError as error:
        if is_out_of_memory(error):
            raise
        logger.error("%s", unusable(error, "path"))
        return 2
    return run(
        config,
        Vdot,
        {"losses.task_guidance": config.losses.task_guidance},
        text_only=config.model.text_only,
        need_latents=config.losses.gan,
    )


if __name__ == "__main__":
    raise SystemExit(main())
