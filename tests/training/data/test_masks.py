"""Masks of rows that would train something else than was meant: named, or refused."""

import numpy as np
import pytest
from PIL import Image

from training import cache as program
from training.data.cache import Cache

from .conftest import HEIGHT, WIDTH, write_manifest

SHAPE = np.zeros((HEIGHT, WIDTH), np.uint8)
SHAPE[8:24, 8:24] = 255


def saved(folder, name, color, alpha=None):
    layers = [color] * 3 + ([] if alpha is None else [alpha])
    Image.fromarray(np.stack(layers, -1)).save(folder / name)
    return name


@pytest.fixture
def encode(config, clips, records, tmp_path):
    def encode(*masks):
        row = next(row for row in records if row["task_name"] == "inpainting")
        rows = [{**row, "mask_video_path": mask} for mask in masks]
        settings = config(
            path=str(write_manifest(clips / "masks.jsonl", rows)), cache_dir=str(tmp_path / "cache")
        )
        assert program.encode(settings)
        return Cache(settings.cache_dir)

    return encode


@pytest.mark.parametrize("color", [0, 255])
def test_a_mask_whose_shape_is_in_its_alpha_alone_is_refused_by_name(encode, clips, color):
    flat = np.full_like(SHAPE, color)
    cache = encode(saved(clips, "alpha.png", flat, SHAPE), "mask.mp4")
    (bad,) = cache.skipped
    assert (bad.place, bad.kind) == ("masks.jsonl row 1", "wrong")
    assert "alpha.png: the mask has one color" in bad.reason
    assert "white = generate, black = keep" in bad.reason and len(bad.reason) <= 400
    assert len(cache.samples) == 1


@pytest.mark.parametrize("alpha", [np.full_like(SHAPE, 255), SHAPE])
def test_a_mask_whose_colors_show_its_shape_is_read_by_them(encode, clips, alpha, caplog):
    with caplog.at_level("WARNING", "vdot"):
        cache = encode(saved(clips, "colors.png", SHAPE, alpha))
    assert not cache.skipped and len(cache.samples) == 1 and "black everywhere" not in caplog.text


def test_a_row_whose_mask_is_empty_is_named_with_its_file(encode, clips, caplog, monkeypatch):
    empty = saved(clips, "empty.png", np.zeros_like(SHAPE))
    monkeypatch.setattr("training.data.row_progress.NUM_LOGGED", 2)
    with caplog.at_level("WARNING", "vdot"):
        encode("mask.mp4", empty, empty, empty)
    lines = [r.getMessage() for r in caplog.records if "black everywhere" in r.getMessage()]
    assert len(lines) == 3 and all("empty.png" in line for line in lines[:2])
    assert lines[0].startswith("masks.jsonl row 2 (00000001): its mask ")
    assert lines[2].startswith("1 more row")
