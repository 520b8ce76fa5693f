"""Clips too large for memory lie in a file that goes with them."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.core.test_excerpts import span, write_clip
from vdot_core import scratch, vcu
from vdot_core.excerpts import read_excerpt


@pytest.fixture
def no_memory(monkeypatch):
    """Every clip takes too much of it."""
    monkeypatch.setattr(scratch, "SHARE", 0.0)


def test_a_clip_in_a_file_is_an_ordinary_clip(tmp_path, no_memory):
    path = write_clip(tmp_path / "a.mp4", [index / 16 for index in range(40)])
    folder = tmp_path / "scratch"
    folder.mkdir()
    mapped, plain = read_excerpt(path, span(), folder), read_excerpt(path, span())
    assert scratch.is_mapped(mapped.frames) and not scratch.is_mapped(plain.frames)
    assert torch.equal(mapped.frames, plain.frames) and torch.equal(mapped.frames * 2, plain.frames * 2)
    assert (
        any("in a temporary file" in note for note in mapped.notes) and not plain.notes[len(mapped.notes) :]
    )
    unit = vcu.control(mapped.frames)
    assert scratch.is_mapped(unit.frames), "a control of the clip's own size is not copied"
    assert not list(folder.iterdir()), "the file has no name: it goes with the clip"


def test_a_small_clip_stays_in_memory(tmp_path):
    frames, notes = scratch.new_frames(5, 32, 16, tmp_path, "give less")
    assert frames.shape == (5, 16, 32, 3) and not scratch.is_mapped(frames) and not notes


def test_a_disk_without_room_is_named(tmp_path, no_memory):
    with pytest.raises(
        ValueError, match=r"a clip of 10000000 frames .* needs 18.* GB.*on the disk of .*; give less"
    ):
        scratch.new_frames(10_000_000, 1000, 1500, tmp_path, "give less")
    with pytest.raises(ValueError, match=r"cannot be kept in none: .*No such file"):
        scratch.new_frames(5, 32, 16, Path(tmp_path / "none"), "give less")


def test_a_clip_lies_in_memory_up_to_a_fixed_size(tmp_path, monkeypatch):
    """However much is free: memory does not grow with a longer clip. A full disk is no reason to fail."""
    monkeypatch.setattr(scratch, "available_bytes", lambda: 1e12)
    monkeypatch.setattr(scratch, "IN_MEMORY", 9 * 16 * 32 * 12)
    shapes = [(9, 16, 32, 3), (13, 16, 32, 3)]
    assert [scratch.is_mapped(scratch.new_frames(f, w, h, tmp_path, "")[0]) for f, h, w, _ in shapes] == [
        0,
        1,
    ]
    assert not scratch.is_mapped(scratch.empty(shapes[1])), "no folder is named"
    with scratch.spilling(lambda: tmp_path):
        assert [scratch.is_mapped(scratch.empty(shape)) for shape in shapes] == [False, True]
        assert scratch.empty(shapes[1], "meta").is_meta
    with scratch.spilling(lambda: tmp_path / "none"):
        assert not scratch.is_mapped(scratch.empty(shapes[1]))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    frames, notes = scratch.new_frames(13, 32, 16, tmp_path, "")
    assert not scratch.is_mapped(frames) and not notes


def test_conversions_lie_in_files_and_are_the_same(tmp_path, monkeypatch):
    """Also of a channel of a picture, which does not lie in one piece, in several parts."""
    monkeypatch.setattr(scratch, "IN_MEMORY", 0)
    monkeypatch.setattr(scratch, "PART", 2 * 16 * 32)
    values = torch.randn(5, 16, 32, 3, generator=torch.Generator().manual_seed(0))[..., 1]
    with scratch.spilling(lambda: tmp_path):
        halved = scratch.converted(values, lambda part: part / 2)
        doubled = scratch.joined([values, values[-1:].expand(3, 16, 32)])
        assert scratch.is_mapped(halved) and scratch.is_mapped(doubled)
    assert torch.equal(halved, values / 2)
    assert torch.equal(doubled[:5], values) and torch.equal(doubled[7], values[4])
    assert scratch.joined([values.bool(), values.bool()]).dtype == torch.bool
    assert scratch.extremes(values) == (float(values.min()), float(values.max()))
    values[4, 3, 2] = float("nan")
    assert all(end != end for end in scratch.extremes(values))
