"""No input ends in anything but a unit or a sentence."""

import pytest

from tests.core.vcu.fuzz import run


@pytest.mark.parametrize("seed", range(3))
def test_anything_builds_and_encodes_or_is_refused_in_words(seed):
    results = run(500, seed)
    assert min(results["built"], results["refused"]) > 100
