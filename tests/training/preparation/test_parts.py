"""Segments, buckets, hashes, masks and workers, one by one."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from training.preparation import motion
from training.preparation.annotate import annotation_stage
from training.preparation.clip_files import load, write_clip, write_mask
from training.preparation.config import CaptionConfig, ClipConfig, PrepareConfig
from training.preparation.duplicates import find_duplicates
from training.preparation.executors import Worker, _told, failure
from training.preparation.quality import border, perceptual_hash
from training.preparation.references import moments, on_white
from training.preparation.shots import segments
from training.preparation.sources import find_sources
from training.preparation.stage import StopError
from training.preparation.stages import CAPTIONS, MOTION, QUALITY
from training.preparation.task_masks import moving_box, shifted, write_kept
from training.preparation.trim import choose_bucket
from training.prepare import parser

from .conftest import panning, textured


@pytest.mark.parametrize("seconds", [0.5, 1.1, 2.0, 5.3, 30.0])
@pytest.mark.parametrize("start", [0.0, 3.7])
def test_segments_stay_in_their_shot_and_apart(start, seconds):
    config = ClipConfig(num_frames=33, min_frames=17, clips_per_shot=3, reserve=8)
    clips = segments(start, start + seconds, config)
    ends = [start]
    for clip in clips:
        assert clip["num_frames"] % 4 == 1 and 17 <= clip["num_frames"] <= 33
        assert clip["start"] >= ends[-1] - 1e-6
        ends.append(clip["start"] + (clip["num_frames"] - 1) / 16)
        assert ends[-1] < start + seconds
    assert bool(clips) == (seconds > 1.2)


def test_a_bucket_is_the_nearest_in_aspect_and_the_largest_of_several():
    buckets = [[832, 480], [480, 832], [416, 240], [624, 624]]
    assert choose_bucket(1920, 1080, buckets) == (832, 480)
    assert choose_bucket(1080, 1920, buckets) == (480, 832)
    assert choose_bucket(800, 760, buckets) == (624, 624)


def test_hashes_tell_pictures_apart_and_know_scaled_ones():
    from scipy import ndimage

    picture = textured(1, 192, 128).mean(-1) / 255

    def distance(other):
        return (int(perceptual_hash(picture), 16) ^ int(perceptual_hash(other), 16)).bit_count()

    assert distance(ndimage.zoom(picture, 0.5)) <= 5
    assert distance(np.clip(picture + 0.02 * np.random.default_rng(0).normal(size=picture.shape), 0, 1)) <= 5
    assert min(distance(textured(seed, 192, 128).mean(-1) / 255) for seed in range(2, 12)) > 12


def test_duplicates_are_those_of_the_first():
    same, near, far = ["0" * 16] * 4, ["0" * 15 + "3"] * 4, ["f" * 16] * 4
    clips = [("a", same), ("b", far), ("c", near), ("d", [*far[:3], "0" * 16])]
    assert find_duplicates(clips, 5, 5) == {"c": "a"}
    assert find_duplicates(clips, 5, 64) == {"c": "a", "d": "b"}
    assert find_duplicates(clips, -1, 64) == {}


def test_bars_are_measured_on_all_sides():
    clip = np.full((4, 50, 80), 0.5)
    assert border(clip) == 0
    clip[:, :5] = 0.02
    clip[:, :, 72:] = 0.02
    assert border(clip) == pytest.approx(0.1)


def test_the_same_frames_are_the_same_bytes(tmp_path):
    clip = panning(1, 17)
    for name in ("a.mp4", "b.mp4"):
        assert write_clip(tmp_path / name, clip, 16, 12) == 17
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert (load(tmp_path / "a.mp4", 16, 81) - torch.from_numpy(clip) / 255).mean(-1).abs().mean() < 0.03


def test_motion_is_measured_by_raft_where_it_is_named(tmp_path):
    from torchvision.models.optical_flow import raft_small

    from vdot_core.signals import load_raft, raft_flow

    torch.save(raft_small(weights=None, progress=False).state_dict(), tmp_path / "raft.pth")
    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips/clip.mp4", panning(1, 2), 16, 12)
    row = {"id": "a", "trim": {"file": "clips/clip.mp4", "num_frames": 2}}
    config = PrepareConfig(input=["x"], out_dir=str(tmp_path), flow_model=str(tmp_path / "raft.pth"))
    frames = load(tmp_path / "clips/clip.mp4", 16, 2)
    expected = float(raft_flow(frames, load_raft(tmp_path / "raft.pth")).norm(dim=1).mean())
    assert motion.measure_motion(row, config)["mean_px"] == pytest.approx(expected, rel=1e-3)
    gone = PrepareConfig(input=["x"], flow_model=str(tmp_path / "gone.pth"))
    assert "does not exist" in motion.missing(gone)


def test_masks_survive_their_file_exactly(tmp_path):
    mask = (torch.rand(9, 32, 48) > 0.5).float()
    write_mask(tmp_path / "mask.mp4", mask, 16)
    assert torch.equal((load(tmp_path / "mask.mp4", 16, 81).mean(-1) > 0.5).float(), mask)


@pytest.mark.parametrize(
    "kind", ["firstclip", "lastclip", "firstlastclip", "keyframes", "outpainting", "expand"]
)
def test_kept_parts_are_where_the_task_says(kind, tmp_path):
    config = PrepareConfig(input=["x"], out_dir=str(tmp_path))
    row = {"id": "clip", "trim": {"num_frames": 17, "width": 48, "height": 32}}
    mask = (load(tmp_path / write_kept(row, kind, config), 16, 81).mean(-1) > 0.5).float()
    by_frame = [float(frame.mean()) for frame in mask]
    assert mask.shape == (17, 32, 48) and 0 < mask.mean() < 1
    if kind in ("outpainting", "expand"):
        assert 0 < by_frame[0] < 1 and by_frame[1] == (by_frame[0] if kind == "outpainting" else 1)
    else:
        assert {*by_frame} == {0.0, 1.0}
        assert (by_frame[0] == 0) == (kind != "lastclip") and (by_frame[-1] == 0) == (kind != "firstclip")


def test_a_moving_box_stays_whole_and_in_the_frame():
    row = {"trim": {"num_frames": 9, "width": 48, "height": 32}}
    mask = moving_box(row, [0.0, 1 - 1e-9, 0.0, 0.0, 0.99, 0.99])
    assert {float(frame.sum()) for frame in mask} == {10 * 16.0}
    assert mask[0, 0, 0] == 1 and mask[-1, -1, -1] == 1


def test_shifted_masks():
    mask = torch.zeros(1, 4, 6)
    mask[0, 1, 1] = 1
    assert shifted(mask, 3, 2).nonzero().tolist() == [[0, 3, 4]]
    assert not shifted(mask, -2, 0).any()


def test_references_come_from_outside_of_the_clip():
    config = PrepareConfig(input=["x"], clips=ClipConfig(num_frames=17, min_frames=17, reserve=8))
    row = {"start": 2.0, "shot_start": 1.0, "shot_end": 5.0, "trim": {"num_frames": 17}}
    times = moments(row, config)
    assert times and all(1.1 <= time <= 1.9 or 3.1 <= time <= 4.9 for time in times)
    assert moments({**row, "start": 1.1, "shot_end": 2.2}, config) == []


def test_a_subject_is_cropped_and_on_white():
    picture, mask = torch.rand(40, 60, 3), torch.zeros(40, 60)
    mask[10:30, 20:40] = 1
    cut = on_white(picture, mask)
    assert cut.shape == (22, 22, 3) and torch.equal(cut[1:21, 1:21], picture[10:30, 20:40])
    assert (cut[0] == 1).all()
    mask[0, 59] = mask[39, 0] = 1
    assert torch.equal(on_white(picture, mask), cut), "stray pixels do not widen the box"


def test_names_of_sources_are_the_same_wherever_the_folder_is(raw, tmp_path):
    (tmp_path / "elsewhere").symlink_to(raw)
    first, second = (find_sources([str(path)]) for path in (raw, tmp_path / "elsewhere"))
    assert [row["id"] for row in first] == [row["id"] for row in second]
    assert len({row["id"] for row in find_sources([f"{raw}/**/*.mp4"])}) == len(first)


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        (annotation_stage("flow"), {"flow_model": "{}/weights"}),
        (annotation_stage("matte"), {"matte_model": "{}"}),
        (MOTION, {"flow_model": "{}/weights"}),
        (CAPTIONS, {"captions": {"model_dir": "{}"}}),
        (QUALITY, {"quality": {"aesthetic_model": "{}", "aesthetic_head": "{}/weights"}}),
    ],
)
def test_a_stage_runs_again_with_other_weights_under_one_path(stage, settings, tmp_path):
    settings = yaml.safe_load(json.dumps(settings).replace("{}", str(tmp_path)))
    config = parser().read_values({"input": ["x"], **settings})
    (tmp_path / "weights").write_bytes(b"one")
    before = stage.key(config, "a", ["b"])
    assert stage.key(config, "a", ["b"]) == before
    (tmp_path / "weights").write_bytes(b"other")
    assert stage.key(config, "a", ["b"]) != before


def test_an_error_of_a_worker_keeps_its_type(server, tmp_path):
    """Workers hand it over as data: Ray would wrap it."""
    url, answers, _ = server
    answers += [(401, {})]
    config = PrepareConfig(input=["x"], out_dir=str(tmp_path), captions=CaptionConfig(url=url))
    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips/clip.mp4", panning(1, 5), 16, 12)
    row = {"id": "a", "path": "/none.mp4", "trim": {"file": "clips/clip.mp4", "num_frames": 5}}
    failures = []
    for stage, inputs in (("captions", row), ("trim", {**row, "width": 832, "height": 480, "start": 0})):
        (text,) = Worker(stage, config)({"row": [json.dumps({**inputs, "num_frames": 5})]})["outcome"]
        failures.append(json.loads(text))
    assert isinstance(failure(*failures[0]["failure"]), StopError)
    assert "is not a file" in failures[1]["value"]["rejected"][0]
    assert failure("OSError", "No space", 28, "/x").errno == 28


OUT_OF_MEMORY = (
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("not enough memory: 5"),
)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["Python", "GPU", "CPU"])
def test_a_worker_whose_memory_is_exhausted_ends_the_run_and_not_its_row(tmp_path, monkeypatch, error):
    config = PrepareConfig(input=[str(tmp_path)], out_dir=str(tmp_path / "out"))
    worker = Worker("shots", config)

    def run(*_):
        raise error

    worker.stage = SimpleNamespace(run=run)
    told = json.loads(worker({"row": ['{"id": "a"}']})["outcome"][0])
    assert isinstance(failure(*told["failure"]), MemoryError)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("OutOfMemoryError", MemoryError, "Ray: 12 GB used"),
        ("ActorDiedError", StopError, "a worker of Ray has ended .*lower executor.workers"),
        ("WorkerCrashedError", StopError, "a worker of Ray has ended"),
        ("OutOfDiskError", StopError, "Ray: 12 GB used"),
    ],
)
def test_the_end_of_a_workers_process_is_told_in_words(name, kind, words):
    """Errors of Ray, which have no base in common with Python's own."""
    bases = (type("RayActorError", (Exception,), {}),) if "Actor" in name else (Exception,)

    def results():
        yield {"outcome": "first"}
        raise type(name, bases, {})("12 GB used")

    told = _told(results())
    assert next(told) == {"outcome": "first"}
    with pytest.raises(kind, match=words):
        next(told)
