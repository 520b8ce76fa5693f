"""The drawn benchmark has UVCBench's layout, and its clips are what a perfect model would make."""

import hashlib
import shutil

import pytest

from tiny import uvcbench
from tiny.uvcbench import COMPOSITE, SINGLE, main
from training.benchmark.config import EvaluateConfig, ModelConfig
from training.benchmark.index import read_benchmark
from training.benchmark.samples import load_conditions
from training.benchmark.scores import score
from training.data.video_files import Media, read_clip


def digest(folder):
    """Of all files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(p.relative_to(folder)), hashlib.sha256(p.read_bytes()).hexdigest()) for p in files]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A benchmark of one clip for each task."""
    folder = tmp_path_factory.mktemp("drawn")
    assert main(["--out", str(folder), "--clips", "1", "--size", "64", "--frames", "9"]) == 0
    return folder


def test_it_has_8_single_and_10_composite_tasks_of_every_kind(drawn):
    benchmark = read_benchmark(drawn)
    assert benchmark.tasks == (*SINGLE, *COMPOSITE) and len(benchmark.tasks) == 18 and not benchmark.skipped
    families = [sample.family for sample in benchmark.samples]
    assert families[:8] == ["control"] * 5 + ["keep"] * 2 + ["reference"] and set(families[8:]) == {
        "composite"
    }


def test_a_perfect_model_scores_well(drawn):
    config = EvaluateConfig(
        str(drawn),
        models=[ModelConfig("a", "folder", "x")],
        width=64,
        height=64,
        num_frames=9,
        estimators=["gray", "scribble", "flow"],
    )
    values = {}
    for sample in read_benchmark(drawn).samples:
        assert load_conditions(sample, config).frames.shape == (9, 64, 64, 3)
        video = read_clip(Media(str(drawn / "drawn" / f"{sample.name}.mp4")), 16, 9)
        values[sample.task] = score(video, sample, config)
    assert values["gray"]["control_fidelity"] > 0.99
    assert values["flow"]["control_fidelity"] > 0.6
    assert values["scribble"]["control_fidelity"] > 0.6
    assert min(values[task]["kept_psnr"] for task in ("extension", "outpainting")) > 35
    assert values["R2V_object"]["reference_identity"] > 0.5


def test_a_benchmark_of_another_size_that_was_killed_is_no_mix(drawn, tmp_path, monkeypatch):
    folder = shutil.copytree(drawn, tmp_path / "drawn")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(uvcbench, "write_picture", killed)
    with pytest.raises(KeyboardInterrupt):
        main(["--out", str(folder), "--clips", "1", "--size", "32", "--frames", "5"])
    with pytest.raises(ValueError, match=r"holds no \.txt"):
        read_benchmark(folder).chosen(["R2V_object"], None)


@pytest.mark.full
def test_the_same_arguments_draw_the_same_files(drawn, tmp_path):
    assert main(["--out", str(tmp_path / "again"), "--clips", "1", "--size", "64", "--frames", "9"]) == 0
    assert digest(tmp_path / "again") == digest(drawn)


def test_wrong_sizes_are_refused(tmp_path):
    for words in (
        ["--size", "60"],
        ["--size", "160000"],
        ["--frames", "8"],
        ["--frames", "1000000001"],
        ["--clips", "0"],
    ):
        with pytest.raises(SystemExit):
            main(["--out", str(tmp_path), *words])


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path, capfd):
    (tmp_path / "file").touch()
    assert main(["--out", str(tmp_path / "file" / "out"), "--clips", "1"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "file" in line and "cannot be written" in line and "--out" in line
