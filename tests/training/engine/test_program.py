"""The program itself on one process: drawn clips, cache, training, samples and export; and its errors."""

import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from tests.support.distill import SIZES, losses_by_step, tiny_values, write_teacher
from tests.support.processes import holding, torchrun, wait
from training.distill import main
from training.engine import lock
from training.engine.checkpoint import complete, read_tensors
from training.engine.cli import nest
from training.engine.trainer import Trainer
from vdot_core.checkpoints import inspect, read_weights

TEXT = {"text_dim": 128, "text_len": 64}  # as the bundled text encoder's
ROOT = Path(__file__).resolve().parents[3]
VAE = "assets/vdot_tiny_vae.safetensors"


@pytest.fixture(autouse=True)
def _all_messages():
    """Other tests of the process may have silenced the logger, as processes of a higher rank do."""
    logging.getLogger("vdot").setLevel(logging.NOTSET)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A configuration's file: two steps, each with both updates, on two clips of 32 x 32."""
    folder = tmp_path_factory.mktemp("program")
    teacher = write_teacher(folder / "teacher.safetensors", **TEXT)
    group = {"width": 32, "height": 32, "num_frames": 5, "num_clips": 2, "tasks": ["depth", "text"]}
    values = tiny_values(
        folder / "out", teacher, steps=2, export_dtype="fp32", rollout__steps=2, optim__generator_every=1,
        data__source="producer", data__producer="tiny.producer.ShapesProducer",
        data__producer_args={"groups": [group]}, data__cache_dir=str(folder / "cache"),
        data__batch_size=2, data__accumulation=1, data__vae=VAE,
        data__text_encoder="assets/vdot_tiny_text.safetensors", losses__task_guidance={"depth": 1.5},
        log__save_every=2, log__vae=VAE, log__sample_every=2, log__num_samples=1,
    )  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump(nest(values)))
    assert main(["--config", str(folder / "run.yaml")]) == 0
    return folder


def test_from_drawn_clips_to_an_export(run_folder):
    out = run_folder / "out"
    logged = losses_by_step(out)
    assert list(logged) == [1, 2] and all(math.isfinite(v) for row in logged.values() for v in row.values())
    assert {"generator/otd", "generator/dmd", "critic/denoising"} <= set(logged[1])
    assert {"generator/gan", "critic/discriminator"} <= set(logged[2])
    path = out / "export" / "generator.safetensors"
    info = inspect(path)
    assert {**SIZES.to_dict(), **TEXT} == info.config.to_dict()
    assert (info.metadata["step"], info.metadata["trained_by"]) == ("2", "training/distill.py")
    weights, start = (read_weights(p).state_dict for p in (path, run_folder / "teacher.safetensors"))
    average = dict(read_tensors(complete(out / "checkpoints")[-1], "average."))
    assert weights.keys() == average.keys() and all(torch.equal(weights[n], average[n]) for n in weights)
    assert any(not torch.equal(weights[n], start[n]) for n in weights)
    (sample,) = (out / "samples").glob("step-000002-0-*.webp")
    with Image.open(sample) as animation:
        # What is kept, what is changed or shown, the result and the real clip, side by side.
        assert animation.n_frames == 5 and animation.size == (4 * 32, 32)


def test_a_second_start_finds_all_done(run_folder, capsys):
    before = (run_folder / "out" / "metrics.jsonl").read_text()
    assert main(["--config", str(run_folder / "run.yaml")]) == 0
    assert (run_folder / "out" / "metrics.jsonl").read_text() == before
    assert "nothing to train: the run is at step 2 of 2" in capsys.readouterr().err


def test_a_stop_before_the_end_says_how_to_continue(run_folder, capsys):
    assert main(["--config", str(run_folder / "run.yaml"), "--steps", "4", "--max_steps", "2"]) == 0
    assert "stopped at step 2 of 4 by max_steps" in capsys.readouterr().err


ASKED = """
import os, signal, sys
from training.distill import main
from training.engine.trainer import Trainer

number, step = int(sys.argv[1]), Trainer.train_step
signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

def asked(trainer, batches):
    # As torchrun, which passes on what the terminal sends too.
    os.kill(os.getpid(), number)
    result = step(trainer, batches)
    os.kill(os.getpid(), number)
    return result

Trainer.train_step = asked
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX's signals")
@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C"), (signal.SIGHUP, "SIGHUP")]
)
def test_a_run_that_a_signal_stops_says_how_to_continue(run_folder, tmp_path, number, name):
    words = ["--config", str(run_folder / "run.yaml"), "--out_dir", str(tmp_path), "--log.sample_every", "0"]
    command = [sys.executable, "-c", ASKED, str(int(number)), *words, "--data.workers", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 128 + number, done.stderr[-2000:]
    assert f"stopped at step 1 of 2 by {name}; the same command resumes" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / ".lock").exists()
    assert main(words) == 0 and (tmp_path / "export" / "generator.safetensors").exists()


def test_abbreviated_keys_are_refused(run_folder, capsys):
    assert main(["--config", str(run_folder / "run.yaml"), "--max_step", "2"]) == 2
    assert "did you mean max_steps" in capsys.readouterr().err


def test_torchrun_starts_it_from_another_directory_with_the_losses_of_one_process(run_folder, tmp_path):
    """The cache is encoded by both, each sample shown and each step's batch taken by one of them."""
    (tmp_path / "elsewhere").mkdir()
    words = ["--config", str(run_folder / "run.yaml"), "--out_dir", str(tmp_path / "out")]
    words += ["--data.cache_dir", str(tmp_path / "cache"), "--log.num_samples", "2"]
    process = torchrun(tmp_path, str(ROOT / "training" / "distill.py"), *words, cwd=tmp_path / "elsewhere")
    assert wait(process, tmp_path) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    ones, twos = losses_by_step(run_folder / "out"), losses_by_step(tmp_path / "out")
    assert ones.keys() == twos.keys()
    for step, row in ones.items():
        for name, value in row.items():
            assert twos[step][name] == pytest.approx(value, rel=1e-4, abs=1e-6), (step, name)
    assert not list((tmp_path / "elsewhere").iterdir())
    assert len(list((tmp_path / "out/samples").glob("*.webp"))) == 2
    two = read_weights(tmp_path / "out/export/generator.safetensors").state_dict
    one = read_weights(run_folder / "out/export/generator.safetensors").state_dict
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)


def test_mistakes_found_while_setting_up_are_one_line(run_folder, capsys):
    words = ["--config", str(run_folder / "run.yaml")]
    for more, message in (
        (["--losses.task_guidance", "{gray: 1.5}"], "losses.task_guidance"),
        (["--seed", "6"], "seed is 6"),
        (["--losses.guidance", "2.0"], "does not fit this run: it was made with another losses.guidance"),
        (["--model.frozen", "[nonexistent_]"], "model.frozen has 'nonexistent_', with which no parameter's"),
        (["--model.real_score", str(run_folder / "none.safetensors")], "none.safetensors"),
    ):
        assert main([*words, *more]) == 2
        output = capsys.readouterr().err
        assert message in output.splitlines()[-1] and "Traceback" not in output
    assert main([*words, "--export", str(run_folder / "again.safetensors")]) == 0
    assert read_weights(run_folder / "again.safetensors").state_dict.keys()


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_start_in_the_folder_of_a_running_one_is_refused_and_changes_nothing(
    run_folder, monkeypatch, capsys
):
    monkeypatch.setattr(lock, "GRACE_S", 0.3)
    unfinished = run_folder / "out" / "checkpoints" / ".partial-00000099-abc"
    unfinished.mkdir()
    (unfinished / "shard").write_bytes(b"being written")
    with holding(run_folder / "out") as process:
        before = _files(run_folder / "out")
        assert main(["--config", str(run_folder / "run.yaml")]) == 2
        assert f"in use by process {process.pid} on" in capsys.readouterr().err.splitlines()[-1]
        assert _files(run_folder / "out") == before
    assert main(["--config", str(run_folder / "run.yaml")]) == 0
    assert "taking it over" in capsys.readouterr().err and not unfinished.exists()


@pytest.mark.full
def test_of_two_starts_at_once_one_trains_and_the_other_is_refused(run_folder, tmp_path):
    """As a job that was requeued while it still ran; every step and checkpoint is the one's."""
    words = ["--config", str(run_folder / "run.yaml"), "--out_dir", str(tmp_path / "out"), "--steps", "60"]
    words += ["--log.save_every", "5", "--log.keep", "3", "--log.sample_every", "0"]
    command = [sys.executable, str(ROOT / "training" / "distill.py"), *words]
    starts = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(2)]
    output = [process.communicate()[1] for process in starts]
    assert sorted(process.returncode for process in starts) == [0, 2], output
    trained = starts[0] if starts[0].returncode == 0 else starts[1]
    refused = output[1 - starts.index(trained)]
    assert f"in use by process {trained.pid} on" in refused and "Traceback" not in refused
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 61))
    assert [checkpoint.step for checkpoint in complete(tmp_path / "out" / "checkpoints")] == [50, 55, 60]


def test_samples_left_out_are_named_in_a_file_of_the_run(run_folder, capsys):
    """A shard that was cut off after encoding: all of this cache, of which nothing is left then."""
    folder, out = run_folder / "cut", run_folder / "cut" / "out"
    shutil.copytree(run_folder / "cache", folder / "cache")
    shard = next((folder / "cache").glob("shard-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    words = ["--config", str(run_folder / "run.yaml"), "--out_dir", str(out)]
    assert main([*words, "--data.cache_dir", str(folder / "cache")]) == 2
    named = (out / "skipped.txt").read_text().splitlines()
    assert len(named) == 4 and all(f"unreadable: {shard.name} sample " in line for line in named)
    output = capsys.readouterr().err
    assert (
        str(out / "skipped.txt") in output
        and "holds no sample: 4 rows were left out" in output.splitlines()[-1]
    )


def test_what_goes_wrong_in_training_keeps_its_traceback(run_folder, monkeypatch, capsys):
    """A ValueError of a step is not a mistake of the user's, who would see one line of a library's."""

    def fail(self, batches):
        raise ValueError("shapes do not match")

    monkeypatch.setattr(Trainer, "train_step", fail)
    folder = run_folder / "fails"
    with pytest.raises(ValueError, match="shapes do not match") as error:
        main(["--config", str(run_folder / "run.yaml"), "--out_dir", str(folder)])
    assert error.traceback[-1].name == "fail" and "shapes do not match" not in capsys.readouterr().err
    assert not torch.distributed.is_initialized()
