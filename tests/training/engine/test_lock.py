"""One job at a time writes a folder: real processes that are alive, killed, told to end, or elsewhere."""

import importlib
import json
import os
import signal
import subprocess
import sys

import pytest

from tests.support.processes import holding
from training.data.cache_writer import sharing
from training.engine import lock
from training.engine.lock import LOCK, holder, locked

ELSEWHERE = "4242\nnode17.cluster\n81\n"


@pytest.fixture
def other(tmp_path):
    with holding(tmp_path) as process:
        yield process


def test_a_held_folder_is_refused_and_taken_over_once_its_process_was_killed(tmp_path, other, caplog):
    with (
        pytest.raises(ValueError, match=rf"in use by process {other.pid} on .*another out_dir.*\{LOCK}"),
        locked(tmp_path, "out_dir", grace_s=0.3),
    ):
        pass
    other.kill()
    other.wait()
    assert (tmp_path / LOCK).is_file(), "a killed process leaves its lock"
    with locked(tmp_path, "out_dir", grace_s=0.3):
        assert f"process {os.getpid()} on " in holder(tmp_path / LOCK)
    assert f"process {other.pid} on" in caplog.text and "taking it over" in caplog.text
    assert not (tmp_path / LOCK).exists()


def test_a_process_that_is_told_to_end_releases_its_folder(tmp_path, other):
    other.send_signal(signal.SIGTERM)
    assert other.wait(240) == -signal.SIGTERM and not (tmp_path / LOCK).exists()


def test_a_folder_is_waited_for_while_its_process_ends(tmp_path, other):
    other.send_signal(signal.SIGTERM)
    with locked(tmp_path, "out_dir"):
        pass


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\n\xff", b"4242\n\x1b[31mred\xe2\x80\xae\n", b"1\n" + b"h" * 900, b"9" * 9000]
)
def test_a_lock_of_odd_content_is_refused_in_a_short_sentence(tmp_path, content):
    (tmp_path / LOCK).write_bytes(content)
    with pytest.raises(ValueError) as error, locked(tmp_path, "out_dir", grace_s=0.2):
        pass
    message = str(error.value)
    assert message.isprintable() and len(message) <= 400
    assert "in use by process" in message and f"remove {tmp_path / LOCK}" in message


@pytest.mark.parametrize("text", [ELSEWHERE, "4242\nnode17.cluster\n", ""])
def test_the_lock_of_another_host_is_refused_with_what_to_do(tmp_path, text):
    """An older library's, and one that was not written to the end, too."""
    (tmp_path / LOCK).write_text(text)
    with pytest.raises(ValueError) as error, locked(tmp_path, "out_dir", grace_s=0.3):
        pass
    where = "process 4242 on node17.cluster" if text else "process ? on ?"
    assert where in str(error.value) and f"remove {tmp_path / LOCK}" in str(error.value)
    assert (tmp_path / LOCK).read_text() == text


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match=r"cannot be written to .* give another out_dir"),
        locked(tmp_path / "file", "out_dir"),
    ):
        pass


def test_processes_of_one_cache_job_share_its_folder_and_other_jobs_are_refused(tmp_path):
    with sharing(tmp_path, 0, 2), sharing(tmp_path, 1, 2):
        for rank, size in ((0, 1), (2, 3)):
            with (
                pytest.raises(ValueError, match=r"is being encoded by process .* another data\.cache_dir"),
                sharing(tmp_path, rank, size),
            ):
                pass
    with sharing(tmp_path, 0, 1):
        pass
    assert not list(tmp_path.iterdir())


def test_a_second_cache_job_with_the_same_share_is_refused_and_one_that_was_killed_is_not(tmp_path):
    path = tmp_path / f".encoding-0-of-2{LOCK}"
    path.write_text(ELSEWHERE)
    with pytest.raises(ValueError, match=r"node17"), sharing(tmp_path, 0, 1):
        pass
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with locked(tmp_path, "x", name="own"):
        host = (tmp_path / "own").read_text().split()[1]
    path.write_text(f"{process.pid}\n{host}\n")
    with sharing(tmp_path, 0, 1):
        assert not path.exists()


SHAPES = ["--data.source", "producer", "--data.producer", "tiny.producer.ShapesProducer"]
SHAPES += ["--data.vae", "assets/vdot_tiny_vae.safetensors"]
SHAPES += ["--data.text_encoder", "assets/vdot_tiny_text.safetensors", "--data.producer_args"]
SHAPES += [
    json.dumps({"groups": [{"width": 32, "height": 32, "num_frames": 5, "num_clips": 1, "tasks": ["text"]}]})
]


@pytest.mark.parametrize(
    "program, words",
    [
        ("training.distill", ["--out_dir", "OUT"]),
        ("training.finetune", ["--out_dir", "OUT"]),
        ("training.sweep", ["--out_dir", "OUT", "--runs", '{"one": {}}']),
        ("training.cache", [*SHAPES, "--data.cache_dir", "OUT"]),
        ("tiny.train", ["--out_dir", "OUT"]),
        ("tiny.pretrain", ["--model", "text", "--out_dir", "OUT"]),
    ],
)
def test_every_program_that_writes_a_folder_refuses_one_in_use(
    program, words, tmp_path, monkeypatch, capsys, caplog
):
    monkeypatch.setattr(lock, "GRACE_S", 0.1)
    name = f".encoding-0-of-1{LOCK}" if program == "training.cache" else LOCK
    (tmp_path / name).write_text(ELSEWHERE)
    main = importlib.import_module(program).main
    assert main([word.replace("OUT", str(tmp_path)) for word in words]) == 2
    output = capsys.readouterr().err + caplog.text
    assert f"{tmp_path} is in use by process 4242 on node17.cluster" in output and "Traceback" not in output
    assert [path.name for path in tmp_path.iterdir()] == [name], "nothing was written"
