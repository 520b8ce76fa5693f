"""No input ends in anything but a unit or a sentence, at any `--fuzz`."""

import pytest
import torch

from tests.core.vcu.fuzz import run
from vdot_core import vcu


@pytest.mark.parametrize("seed", range(2))
def test_anything_builds_and_encodes_or_is_refused_in_words(seed, fuzz_cases):
    results = run(fuzz_cases(700), seed)
    assert min(results["built"], results["refused"]) > 140


def test_numbers_may_be_tensors():
    """Sizes and ratios that come as tensors of one number are numbers."""
    clip, mask = torch.rand(5, 32, 48, 3), torch.zeros(32, 48)
    mask[8:20, 8:30] = 1
    numbers = {"expand": 0.2, "grow_px": 2, "blur_px": 1.5}
    tensors = {name: torch.tensor(value) for name, value in numbers.items()}
    assert vcu.inpaint(clip, mask, **tensors) == vcu.inpaint(clip, mask, **numbers)
