"""Fixtures every test can use."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

# Each group has one server for all its files, which starts again if other files or workers come between.
ONE_WORKER = (
    ("tests/browser/",),
    ("tests/nodes/server/",),
    ("tests/workflows/",),
    ("tests/dev/test_demo.py", "tests/dev/test_upload.py"),
)
# Few tests that take long: at the end, where files of few tests come, the other worker would wait for them.
FIRST = (
    "tests/core/checkpoints/test_memory.py",
    "tests/dev/test_alone.py",
    "tests/dev/test_demo.py",
    "tests/dev/test_lock.py",
    "tests/golden/",
    "tests/nodes/test_load_memory.py",
    "tests/scale/",
    "tests/training/distributed/test_processes.py",
    "tests/training/engine/test_program.py",
    "tests/training/engine/test_trainer.py",
)
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="also run the tests that are marked `full`")
    parser.addoption(
        "--fuzz",
        type=positive_int,
        default=1,
        metavar="N",
        help="run N times as many cases in every fuzz test (default: %(default)s)",
    )


def positive_int(text: str) -> int:
    """The value of --fuzz."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from 1")
    return int(text)


def pytest_collection_modifyitems(config, items):
    """Leave out what is marked `full`, unless --full or a -m expression asks for it."""
    if config.getoption("--full") or config.option.markexpr:
        return
    rare = [item for item in items if item.get_closest_marker("full")]
    if rare:
        config.hook.pytest_deselected(items=rare)
        items[:] = [item for item in items if not item.get_closest_marker("full")]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Send a group of `ONE_WORKER` to one worker, of the others a file at a time; `FIRST` before the rest."""
    from xdist.scheduler import LoadFileScheduling

    class GroupScheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            group = next((group for group in ONE_WORKER if nodeid.startswith(group)), None)
            return group[0] if group else super()._split_scope(nodeid)

        def _assign_work_unit(self, node) -> None:
            if first := next((scope for scope in self.workqueue if scope.startswith(FIRST)), None):
                self.workqueue.move_to_end(first, last=False)
            super()._assign_work_unit(node)

    return GroupScheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def fuzz_cases(pytestconfig) -> Callable[[int], int]:
    """Map a fuzz test's default number of cases to the number to run: `--fuzz N` multiplies it by N.

    Derive each case from its index alone, so that a larger run contains the smaller one.
    """
    return lambda default: default * pytestconfig.getoption("--fuzz")


@pytest.fixture(scope="session")
def comfy():
    """The real ComfyUI package, imported in this process on the CPU."""
    from tests.support.comfy import import_comfy

    return import_comfy()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real clips and images; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real clips are not here: {SHARED_DATA}")
    return SHARED_DATA
