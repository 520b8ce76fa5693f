"""The rows of a benchmark: what is read, what is refused and why."""

import json

import pytest

from training.benchmark.index import read_benchmark
from training.benchmark.samples import load_conditions
from training.data.bad_rows import BadRowError

GOOD = {"subtask": "depth", "sample_id": "a", "en_prompt": "clouds", "src_video": "assets/clip0.mp4"}
BAD = {
    "no JSON": ('{"subtask": ', "it is no JSON"),
    "a list": ("[1]", "expected an object"),
    "deep": ("[" * 100_000, "no JSON"),
    "no prompt": ({"en_prompt": " "}, "en_prompt is"),
    "number": ({"subtask": 5}, "subtask is 5"),
    "no id": ({"sample_id": None}, "sample_id is missing"),
    "id with a slash": ({"sample_id": "../a"}, "expected a name that can be a file's"),
    "task with a backslash": ({"subtask": "a\\b"}, "expected a name that can be a file's"),
    "hidden": ({"sample_id": ".hidden"}, "expected a name that can be a file's"),
    "parent": ({"src_video": "../outside.mp4"}, "leaves the benchmark's folder"),
    "absolute": ({"src_mask": "/etc/hostname"}, "leaves the benchmark's folder"),
    "link": ({"src_video": "assets/link.mp4"}, "leaves the benchmark's folder"),
    "absent": ({"src_ref_images": ["assets/none.png"]}, "src_ref_images"),
    "folder": ({"src_video": "assets"}, "src_video"),
    "references": ({"src_ref_images": {"a": 1}}, "expected a list of paths"),
    "surrogate": ({"en_prompt": "a\ud800"}, "surrogate"),
}


def write(bench, *rows):
    """Replace the indices by one."""
    for index in (bench / "indices").glob("*.txt"):
        index.unlink()
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (bench / "indices" / "uvcbench_single.txt").write_text("\n".join(lines), encoding="utf-8")


def test_rows_families_and_tasks_come_from_the_index(bench):
    benchmark = read_benchmark(bench)
    assert benchmark.tasks == ("gray", "extension", "R2V_face", "reference+gray")
    families = {sample.task: sample.family for sample in benchmark.samples}
    assert families == {
        "gray": "control",
        "extension": "keep",
        "R2V_face": "reference",
        "reference+gray": "composite",
    }
    assert len(benchmark.samples) == 8 and not benchmark.skipped
    chosen = benchmark.chosen(["extension"], 1)
    assert [sample.name for sample in chosen.samples] == ["extension/0000"]
    with pytest.raises(ValueError, match="tasks has 'depht'; the benchmark has gray, "):
        benchmark.chosen(["depht"], None)


@pytest.mark.parametrize("kind", BAD)
def test_a_malformed_row_is_named_and_the_others_stay(bench, kind):
    (bench.parent / "outside.mp4").write_bytes(b"x")
    (bench / "assets" / "link.mp4").symlink_to(bench.parent / "outside.mp4")
    change, reason = BAD[kind]
    write(bench, change if isinstance(change, str) else GOOD | change, GOOD | {"sample_id": 7})
    benchmark = read_benchmark(bench)
    assert [sample.name for sample in benchmark.samples] == ["depth/7"]
    (skipped,) = benchmark.skipped
    assert reason in skipped.reason and skipped.place == "uvcbench_single.txt line 1"
    assert len(str(skipped)) < 600


def test_a_name_stands_once_also_on_systems_without_case(bench):
    write(bench, GOOD, GOOD | {"subtask": "DEPTH"})
    benchmark = read_benchmark(bench)
    assert len(benchmark.samples) == 1 and "twice" in benchmark.skipped[0].reason


def test_an_empty_benchmark_is_refused(bench, tmp_path):
    write(bench, "[]")
    with pytest.raises(ValueError, match=r"no row of .* can be used; the first: .*line 1"):
        read_benchmark(bench)
    with pytest.raises(ValueError, match=r"holds no \.txt"):
        read_benchmark(tmp_path)


def test_masks_are_honored_also_with_references(bench, config):
    """The authors' runner drops the mask of these rows."""
    sample = read_benchmark(bench).chosen(["reference+gray"], 1).samples[0]
    conditions = load_conditions(sample, config())
    assert conditions.mask[:, :, :20].max() == 0 and conditions.mask[:, :, 28:].min() == 1
    assert len(conditions.references) == 1
    unit = conditions.unit()
    assert unit.masks.equal(conditions.mask) and unit.frames.equal(conditions.frames)


def test_rows_without_clips_take_the_size_of_the_settings(bench, config):
    sample = read_benchmark(bench).chosen(["R2V_face"], 1).samples[0]
    conditions = load_conditions(sample, config(width=64, height=16, num_frames=9))
    assert conditions.frames.shape == (9, 16, 64, 3)
    assert conditions.frames.eq(0.5).all() and conditions.mask.eq(1).all()


def test_a_clip_keeps_its_own_size_without_settings(bench, config):
    sample = read_benchmark(bench).chosen(["gray"], 1).samples[0]
    assert load_conditions(sample, config(width=None, height=None)).frames.shape == (5, 32, 48, 3)
    smaller = load_conditions(sample, config(width=None, height=None, max_pixels=600))
    assert smaller.frames.shape[1] * smaller.frames.shape[2] <= 600


def test_a_damaged_clip_is_a_bad_row(bench, config):
    (bench / "assets" / "gray0.mp4").write_bytes(b"no video")
    sample = read_benchmark(bench).chosen(["gray"], 1).samples[0]
    with pytest.raises(BadRowError, match="cannot be decoded"):
        load_conditions(sample, config())
