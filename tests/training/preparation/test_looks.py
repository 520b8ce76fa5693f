"""NIQE against scikit-video's values, and text that stays over a clip."""

import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage

from training.preparation import niqe, quality, text_overlays
from training.preparation.config import PrepareConfig, QualityConfig
from training.preparation.stage import StopError

from .conftest import panning, textured

needs_photographs = pytest.mark.skipif(niqe.missing() is not None, reason=str(niqe.missing()))


@needs_photographs
def test_niqe_is_that_of_scikit_video_and_grows_with_blur_and_noise(shared_data):
    """Values of skvideo.measure.niqe 1.1.11 for a frame's luma, its blurred and its noised copy."""
    import av

    with av.open(str(shared_data / "test.mp4")) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="gray").astype(float)
    noise = np.random.default_rng(0).normal(0, 12, picture.shape)
    pictures = (picture, ndimage.gaussian_filter(picture, 2), np.clip(picture + noise, 0, 255))
    values = [niqe.picture_niqe(one / 255) for one in pictures]
    assert values == pytest.approx([9.989865, 15.649747, 14.537568], rel=2e-3)
    assert values[0] < min(values[1:])


@needs_photographs
def test_niqe_needs_size_and_texture():
    clip = np.stack([textured(seed, 200, 196).mean(-1) / 255 for seed in range(2)])
    assert niqe.clip_niqe(clip) > 0
    assert niqe.clip_niqe(clip[:, :190]) is None
    assert niqe.clip_niqe(np.full_like(clip, 0.5)) is None


def test_niqe_names_its_file_and_a_limit_needs_it(tmp_path, monkeypatch):
    monkeypatch.setenv("VDOT_CACHE", str(tmp_path))
    config = PrepareConfig(input=["x"], quality=QualityConfig(max_niqe=8.0))
    assert "NIQE lacks niqe_image_params.mat" in quality.missing(config)
    assert quality.missing(PrepareConfig(input=["x"])) is None


def test_distorted_clips_and_those_with_text_are_rejected():
    measures = {"brightness": 0.5, "border": 0, "contrast": 0.2, "sharpness": 100, "change": 0.1}
    limits = QualityConfig(max_niqe=8.0, max_text=0.02)
    assert quality.reject({**measures, "niqe": 7.0, "text": 0.01}, limits) == []
    assert quality.reject({**measures, "text": 0.01}, limits) == []
    reasons = quality.reject({**measures, "niqe": 9.0, "text": 0.05}, limits)
    assert reasons == [
        "distorted: NIQE 9.0, max_niqe 8",
        "text overlay: 5.0% of the picture, max_text 0.02",
    ]


def test_a_damaged_reader_of_text_ends_the_run_in_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "rapidocr.py").write_text("raise RuntimeError('no networks')")
    (tmp_path / "onnxruntime.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "rapidocr", raising=False)
    text_overlays._reader.cache_clear()
    assert text_overlays.missing() is None
    with pytest.raises(StopError, match=r"RapidOCR cannot be started \(no networks\); install it again"):
        text_overlays.text_share(torch.rand(1, 16, 16, 3))
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name[:4] == "onnx" else found(name))
    assert text_overlays.missing() == "RapidOCR needs ONNX Runtime: `pip install onnxruntime`"


def test_text_counts_where_it_stays(monkeypatch):
    lines = iter(np.zeros((4, 10, 10), int))
    masks = [next(lines) for _ in range(4)]
    for number, mask in enumerate(masks):
        mask[8:, :] = 1  # in every frame
        mask[number] = 1  # in one
    masks[3][8] = 0
    monkeypatch.setattr(text_overlays, "_lines", lambda picture: masks.pop(0))
    assert text_overlays.text_share(torch.rand(9, 10, 10, 3)) == pytest.approx(0.2)


def test_a_region_that_is_no_line_does_not_count(monkeypatch):
    lines = [[[0, 0], [99, 0], [99, 79], [0, 79]], [[10, 70], [59, 70], [59, 77], [10, 77]]]
    for answer in ((lines, 0.1), SimpleNamespace(boxes=np.array(lines)), (None, None)):
        monkeypatch.setattr(text_overlays, "_reader", lambda answer=answer: lambda picture, **_: answer)
        share = text_overlays.text_share(torch.rand(5, 80, 100, 3))
        assert share == pytest.approx(0 if isinstance(answer, tuple) and answer[0] is None else 400 / 8000)


@pytest.mark.skipif(text_overlays.missing() is not None, reason=str(text_overlays.missing()))
def test_drawn_subtitles_are_detected():
    from PIL import Image, ImageDraw, ImageFont

    clip = panning(1, 9, 2, 384, 256)
    plain = text_overlays.text_share(torch.from_numpy(clip) / 255)
    for number, frame in enumerate(clip):
        picture = Image.fromarray(frame)
        words = "a boat leaves the harbor" if number < 5 else "and does not come back"
        ImageDraw.Draw(picture).text((40, 215), words, "white", ImageFont.load_default(24), stroke_width=1)
        clip[number] = np.asarray(picture)
    assert plain < 0.005 and 0.02 < text_overlays.text_share(torch.from_numpy(clip) / 255) < 0.15
