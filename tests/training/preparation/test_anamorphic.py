"""Sources whose pixels are not square, as of DV and DVD, become clips with the aspect that players show."""

from pathlib import Path

import numpy as np

from tests.training.data.conftest import write_video
from training.preparation.clip_files import load
from training.preparation.config import ClipConfig
from training.preparation.shots import cut_source
from training.preparation.trim import trim

from .conftest import RATE


def test_an_anamorphic_source_fills_the_bucket_of_its_shown_aspect(config, tmp_path):
    """Stored as 64x64 with pixels twice as wide as high: nothing of its 128x64 is cut off."""
    stored = np.zeros((24, 64, 64, 3), np.uint8)
    stored[:, :, :8], stored[:, :, -8:] = 255, 255
    path = tmp_path / "a.mp4"
    write_video(path, stored, RATE, aspect=2)
    buckets = [[64, 32], [48, 48]]
    settings = config(clips=ClipConfig(num_frames=17, min_frames=9, buckets=buckets, detector="none"))
    source = cut_source({"path": str(path)}, settings)
    assert (source["width"], source["height"]) == (128, 64)
    folder = Path(settings.out_dir)
    (folder / "clips").mkdir(parents=True)
    clip = trim({**source, **source["clips"][0], "id": "a", "path": str(path)}, settings)
    assert (clip["width"], clip["height"]) == (64, 32)
    frame = load(folder / clip["file"], RATE, 1)[0]
    assert frame[:, :6].min() > 0.8 and frame[:, -6:].min() > 0.8 and frame[:, 16:-16].max() < 0.2
