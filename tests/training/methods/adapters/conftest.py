"""A teacher, a finished run on it, and a shorter one for each test that changes its files."""

import pytest

from tests.support.distill import write_teacher
from tests.training.methods.adapters.runs import CHANGES, train


@pytest.fixture(scope="package")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


@pytest.fixture(scope="package")
def run(tmp_path_factory, teacher):
    """Ten uninterrupted steps: (folder, trainer)."""
    folder = tmp_path_factory.mktemp("run")
    return folder, train(folder, teacher)


@pytest.fixture
def small_run(tmp_path, teacher):
    """Two steps with a copy of the teacher: folder, and its settings."""
    own = tmp_path / "own.safetensors"
    own.write_bytes(teacher.read_bytes())
    changes = {**CHANGES, "model__real_score": str(own), "max_steps": 2, "optim__generator_every": 1}
    train(tmp_path / "run", teacher, **changes)
    return tmp_path, changes
