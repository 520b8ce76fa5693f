"""A batch refuses mismatched tensors, and moves all of them."""

import pytest
import torch

from training.data.batch import Batch


def batch(**changes):
    values = {
        "ids": ("a", "b"), "tasks": ("depth", "text"), "positions": (0, 1), "text": torch.zeros(2, 8, 4),
        "shape": (16, 3, 4, 6), "latents": torch.zeros(2, 16, 3, 4, 6),
        "contexts": torch.zeros(2, 1, 96, 3, 4, 6),
        "num_reference_latents": 1,
    }  # fmt: skip
    return Batch(**{**values, **changes})


def test_it_moves_with_its_tensors():
    moved = batch(contexts=None).to("cpu", torch.bfloat16)
    assert moved.text.dtype == moved.latents.dtype == torch.bfloat16 and moved.contexts is None
    assert moved.ids == ("a", "b") and len(moved) == 2
    assert batch().to("cpu").text.dtype == torch.float32


@pytest.mark.parametrize("change", [
    {"ids": ()}, {"tasks": ("depth",)}, {"positions": (0,)}, {"text": torch.zeros(3, 8, 4)},
    {"latents": torch.zeros(2, 16, 2, 4, 6)}, {"contexts": torch.zeros(2, 96, 3, 4, 6)},
    {"num_reference_latents": 3},
])  # fmt: skip
def test_parts_that_do_not_fit_are_refused(change):
    with pytest.raises(ValueError):
        batch(**change)
