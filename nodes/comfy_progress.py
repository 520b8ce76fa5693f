"""Progress and interruption of a node's loops."""

from collections.abc import Callable

import comfy.model_management
import comfy.utils


def progress_bar() -> Callable[[int, int], None]:
    """ComfyUI's progress bar for the loops of vdot_core; it also lets the user interrupt them."""
    bar = comfy.utils.ProgressBar(1)

    def report(count: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(count, total)

    return report
