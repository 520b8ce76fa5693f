"""Sizes at which a model works best, for clips of any shape."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdot_core.vcu import SIZES, VideoSize

SIDE = st.integers(1, 8192)
DEMO = VideoSize("demo", 64, 64, most_frames=17)


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("480p", (1920, 1080), (832, 480)),
        ("480p", (1080, 1920), (480, 832)),
        ("480p", (832, 480), (832, 480)),
        ("480p", (640, 480), (720, 544)),
        ("480p", (100, 100), (624, 624)),
        ("720p", (1920, 1080), (1280, 720)),
        ("720p", (3840, 2160), (1280, 720)),
    ],
)
def test_shapes_that_people_have(name, source, expected):
    assert SIZES[name].fit(*source) == expected


@given(SIDE, SIDE, st.sampled_from([*SIZES.values(), DEMO]))
def test_every_shape_fits_the_class(width, height, size):
    fitted = size.fit(width, height)
    assert all(side % 16 == 0 and side >= 16 for side in fitted)
    assert fitted[0] * fitted[1] <= size.width * size.height, "more tokens than the model was trained on"
    assert size.fit(height, width) == fitted[::-1]
    if size is not DEMO and 1 / 4 <= width / height <= 4:
        assert abs(fitted[0] / fitted[1] / (width / height) - 1) < 0.06
        assert fitted[0] * fitted[1] > 0.9 * size.width * size.height


def test_the_demos_size_stays_small():
    assert DEMO.fit(64, 64) == (64, 64) and DEMO.fit(1920, 1080) == (80, 48)


@given(st.integers(1, 5000))
def test_lengths_are_4n_plus_1_and_within_the_training(length):
    fitted = DEMO.fit_length(length)
    assert fitted % 4 == 1 and fitted <= min(length, 17)
    assert fitted > min(length, 17) - 4
