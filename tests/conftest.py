"""Fixtures every test can use."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

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
