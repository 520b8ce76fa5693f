"""Tests that need an annotator's models skip where these are missing."""

from pathlib import Path

import pytest


def skip_without(name: str) -> None:
    """Skip where an annotator lacks its package or its models."""
    from vdot_core.annotators import make_annotator

    if reason := make_annotator(name).missing():
        pytest.skip(reason)


def skip_task_without(task: str) -> None:
    """Skip a task whose workflow finds poses where that cannot be done."""
    from devtools.demo.options import POSE_FINDER, DemoOptions

    if DemoOptions(task).uses_node(POSE_FINDER):
        skip_without("pose")


def fetched_models() -> Path:
    """Folder of the fetched models; skips where they were not fetched."""
    from vdot_core.annotators.fetch import model_files, model_folder
    from vdot_core.annotators.models import missing_models

    if reason := missing_models("pose", *model_files()):
        pytest.skip(reason)
    return model_folder()
