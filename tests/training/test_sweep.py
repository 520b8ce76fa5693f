"""Sweeps: every run with every seed once; interrupted and failed ones resume."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from training.engine.cli import RunParser
from training.engine.progress import memory_gib
from training.sweep import main
from training.sweeps.config import SweepConfig
from training.sweeps.table import read_numbers, write_table

ROOT = Path(__file__).parents[2]
WORKER = """
import json, os, pathlib, sys, time
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
out = pathlib.Path(given["--out_dir"])
(out / "pid").write_text(str(os.getpid()))
with (out.parents[1] / "calls.txt").open("a") as file:
    file.write(f"{out.parent.name} {given['--seed']}\\n")
if not (out.parents[1] / "mended").exists():
    time.sleep(float(given.get("--sleep", 0)))
    if given.get("--fail") == "true":
        sys.exit("this run fails")
with (out / "metrics.jsonl").open("w") as file:
    for step in (1, 2):
        loss = float(given["--lr"]) * step + int(given["--seed"])
        numbers = {"step": step, "loss": loss}
        file.write(json.dumps(numbers) + "\\n")
"""


@pytest.fixture
def sweep(tmp_path):
    """Writes a sweep of a small command, and returns its path."""
    (tmp_path / "worker.py").write_text(WORKER)

    def write(**changes):
        values = {
            "out_dir": str(tmp_path / "out"),
            "command": ["python", str(tmp_path / "worker.py")],
            "seeds": [0, 1],
            "table": ["loss"],
            "runs": {"low": {"lr": 0.5}, "high": {"lr": 2}},
            **changes,
        }
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in values.items() if v is not None}, sort_keys=False))
        return path

    return write


def read_sweep(argv):
    """The settings of a command line."""
    return RunParser(SweepConfig).read(argv)[0]


def calls(tmp_path):
    """Runs that were started, in order."""
    path = tmp_path / "out" / "calls.txt"
    return path.read_text().splitlines() if path.exists() else []


def test_every_run_with_every_seed_and_a_table(sweep, tmp_path, capsys):
    path = sweep(after=[["python", "-c", "open('{out_dir}/after', 'w').write('{run} {seed}')"]])
    assert main(["--config", str(path)]) == 0
    assert sorted(calls(tmp_path)) == ["high 0", "high 1", "low 0", "low 1"]
    table = capsys.readouterr().out
    # Last losses are lr * 2 + seed: 1 and 2, 4 and 5.
    assert "| low | 2/2 | 1.5 ± 0.71 |" in table and "| high | 2/2 | 4.5 ± 0.71 |" in table
    assert (tmp_path / "out" / "table.md").read_text() == table
    assert (tmp_path / "out" / "high" / "seed1" / "after").read_text() == "high 1"


def test_finished_runs_are_skipped_and_changed_ones_refused(sweep, tmp_path, capfd):
    assert main(["--config", str(sweep())]) == 0
    assert main(["--config", str(sweep())]) == 0 and len(calls(tmp_path)) == 4
    assert main(["--config", str(sweep(seeds=[0, 1, 2]))]) == 0
    assert calls(tmp_path)[4:] == ["low 2", "high 2"]
    assert main(["--config", str(sweep(runs={"low": {"lr": 1}, "high": {"lr": 2}}))]) == 2
    assert "seed0 was started with other settings" in capfd.readouterr().err and len(calls(tmp_path)) == 6


def test_a_base_whose_keys_changed_is_refused_and_its_comments_are_free(sweep, tmp_path, capfd):
    base = tmp_path / "base.yaml"
    for text, status in (("steps: 1\n", 0), ("# more\nsteps: 1\n", 0), ("steps: 2\n", 2)):
        base.write_text(text)
        assert main(["--config", str(sweep(base=str(base), runs={"low": {"lr": 1}}))]) == status
    assert "was started with other keys in" in capfd.readouterr().err and len(calls(tmp_path)) == 2


def test_a_failed_run_stops_no_other_and_is_tried_again(sweep, tmp_path, capsys):
    runs = {"bad": {"lr": 1, "fail": True}, "good": {"lr": 1}}
    path = sweep(runs=runs, seeds=[0])
    assert main(["--config", str(path)]) == 1
    assert calls(tmp_path) == ["bad 0", "good 0"]
    assert "| bad | 0/1 | - |" in capsys.readouterr().out
    assert "this run fails" in (tmp_path / "out" / "bad" / "seed0" / "sweep.log").read_text()
    (tmp_path / "out" / "mended").touch()
    assert main(["--config", str(path)]) == 0 and calls(tmp_path)[2:] == ["bad 0"]


def test_a_failing_command_afterwards_leaves_the_run_unfinished(sweep, tmp_path):
    path = sweep(runs={"one": {"lr": 1}}, seeds=[0], after=[["python", "-c", "raise SystemExit(3)"]])
    assert main(["--config", str(path)]) == 1
    assert not (tmp_path / "out" / "one" / "seed0" / "sweep_done.json").exists()


def test_the_table_grows_with_each_run(sweep, tmp_path):
    peek = "import shutil; shutil.copy('{out_dir}/../../table.md', '{out_dir}/seen')"
    path = sweep(runs={"first": {"lr": 1}, "second": {"lr": 2}}, seeds=[0], after=[["python", "-c", peek]])
    assert main(["--config", str(path)]) == 0
    seen = [(tmp_path / "out" / run / "seed0" / "seen").read_text() for run in ("first", "second")]
    assert "| first | 0/1 | - |" in seen[0] and "| first | 1/1 | 2 |" in seen[1]
    assert "| second | 0/1 | - |" in seen[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_sweep_ends_its_processes_and_resumes(sweep, tmp_path, number):
    path = sweep(runs={"quick": {"lr": 1}, "slow": {"lr": 1, "sleep": 600}}, seeds=[0])
    # A shell's background jobs ignore SIGINT, and their children with them.
    heeding = {"preexec_fn": lambda: signal.signal(number, signal.SIG_DFL)}
    command = [sys.executable, str(ROOT / "training/sweep.py"), "--config", str(path), "--jobs", "2"]
    process = subprocess.Popen(command, **heeding)
    quick, slow = (tmp_path / "out" / run / "seed0" / "sweep_done.json" for run in ("quick", "slow"))
    deadline = time.monotonic() + 240
    while not (quick.exists() and "slow 0" in calls(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    status = process.wait(240)
    assert status == (130 if number == signal.SIGINT else 143)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "out/slow/seed0/pid").read_text()), 0)
    assert quick.exists() and not slow.exists()
    (tmp_path / "out" / "mended").touch()
    assert main(["--config", str(path)]) == 0 and calls(tmp_path)[2:] == ["slow 0"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not count what a child took")
def test_time_and_memory_of_each_command_unless_it_was_resumed(sweep, tmp_path, capsys):
    work = tmp_path / "work.py"
    work.write_text(
        "import pathlib, sys, time\n"
        "arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))\n"
        "block = b'x' * (int(arguments['--mib']) << 20)\n"
        "while time.process_time() < float(arguments['--cpu']): pass\n"
        "(pathlib.Path(arguments['--out_dir']) / 'metrics.jsonl').write_text('{\"loss\": 1}\\n')\n"
    )
    # Linux counts the parent's memory before exec: no command's peak is below it.
    own = memory_gib(torch.device("cpu"))
    runs = {name: {"mib": 1, "cpu": 0} for name in ("small", "large", "old")}
    runs["large"] = {"mib": int(1024 * own) + 200, "cpu": 1}
    path = sweep(command=["python", str(work)], runs=runs, seeds=[0], jobs=3, table=[])
    (tmp_path / "out" / "old" / "seed0").mkdir(parents=True)
    (tmp_path / "out" / "old" / "seed0" / "sweep.log").touch()
    assert main(["--config", str(path)]) == 0
    lines = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()]
    small, large, old = (dict(zip(lines[0], line, strict=True)) for line in lines[2:])
    assert 60 * float(small["sweep/cpu_minutes"]) < 1 <= 60 * float(large["sweep/cpu_minutes"]) < 6
    assert float(small["sweep/peak_gib"]) <= own + 0.01
    assert own + 0.19 < float(large["sweep/peak_gib"]) < own + 0.3
    assert old["sweep/cpu_minutes"] == old["sweep/peak_gib"] == "-"
    (tmp_path / "out" / "large" / "seed0" / "sweep_done.json").write_text("")  # of an earlier version
    assert main(["--config", str(path)]) == 0 and "| large | 1/1 | 1 | - | - |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": [1]}, "seed"),
        ({"runs": {}}, "runs are named []"),
        ({"runs": None}, "runs"),
        ({"runs": {"a": 1}}, "runs"),
        ({"runs": {"../a": {}}}, "'../a'"),
        ({"seeds": [1, 1]}, "each once"),
        ({"jobs": 0}, "jobs is 0"),
        ({"runs": {"a": {"seed": 5}}}, "runs.a sets seed"),
        ({"metrics": "/etc/*"}, "metrics is '/etc/*'"),
        ({"metrics": "../*.json"}, "metrics is '../*.json'"),
    ],
)
def test_mistakes_are_named(sweep, changes, words, capfd):
    path = sweep(**changes)
    with pytest.raises(ValueError, match=re.escape(words)):
        read_sweep(["--config", str(path)])
    assert main(["--config", str(path)]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert words in line


def test_numbers_of_any_size_and_names_with_bars_fill_the_table(tmp_path):
    runs, metrics = {"a|b": {}}, {"loss": "Infinity", "large": "1e308", "nan": "NaN", "x|y": "2"}
    config = SweepConfig(str(tmp_path), runs, seeds=[0, 1])
    for seed in config.seeds:
        folder = tmp_path / "a|b" / f"seed{seed}"
        folder.mkdir(parents=True)
        numbers = ", ".join(f'"{name}": {value}' for name, value in metrics.items())
        (folder / "metrics.jsonl").write_text(f"{{{numbers}}}\n")
        (folder / "sweep_done.json").write_text("")
    head, _, row = write_table(config).splitlines()
    assert head == "| run | seeds | large | loss | nan | x\\|y |"
    assert row == "| a\\|b | 2/2 | 1e+308 ± 0 | inf ± nan | nan ± nan | 2 ± 0 |"


def test_missing_metrics_are_named(sweep, capfd):
    assert main(["--config", str(sweep(metrics="none.json"))]) == 1
    assert "no numbers in none.json" in capfd.readouterr().err
    assert main(["--config", str(sweep())]) == 0


def test_metrics_of_both_forms(tmp_path):
    (tmp_path / "scores.json").write_text(
        json.dumps({"score": {"text": 1, "depth": 2.5}, "name": "x", "ok": True})
    )
    assert read_numbers(tmp_path, "scores.json") == {"score/text": 1, "score/depth": 2.5}
    (tmp_path / "metrics.jsonl").write_text('{"a": 1, "b": 2}\n{"a": 3}\n')
    assert read_numbers(tmp_path, "metrics.jsonl") == {"a": 3, "b": 2}


@pytest.mark.parametrize("text", ['{"a": 1}\n{"a": ', "[" * 100_000, "\xff"])
def test_damaged_metrics_are_named(tmp_path, text):
    (tmp_path / "metrics.jsonl").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"metrics\.jsonl holds no numbers \(.*; remove sweep_done") as error:
        read_numbers(tmp_path, "metrics.jsonl")
    assert len(str(error.value)) <= 400


def test_metrics_of_many_files(sweep, tmp_path, capsys):
    """Each file's numbers have its name as a prefix."""
    write = (
        "import json, pathlib; out = pathlib.Path('{out_dir}') / 'scores' / '{run}'; out.mkdir(parents=True);"
        "[(out / f'{name}.json').write_text(json.dumps(dict(score=value, metrics=dict(psnr=20 + {seed}))))"
        " for name, value in (('text', 0.5), ('depth', 1))]"
    )
    changes = {"runs": {"one": {"lr": 1}}, "after": [["python", "-c", write]], "metrics": "scores/*/*.json"}
    path = sweep(**changes, table=["text/score", "depth/metrics/psnr"])
    assert main(["--config", str(path)]) == 0
    assert "| one | 2/2 | 0.5 ± 0 | 20.5 ± 0.71 |" in capsys.readouterr().out
    folder = tmp_path / "out" / "one" / "seed0"
    assert set(read_numbers(folder, "scores/*/*.json")) == {
        "text/score", "text/metrics/psnr", "depth/score", "depth/metrics/psnr",
    }  # fmt: skip


@pytest.mark.parametrize("program", ["no-such-program", "/"])
@pytest.mark.parametrize("place", ["command", "after"])
def test_a_program_that_cannot_be_run_is_named_and_stops_no_other(sweep, capsys, place, program):
    other = {"command": [program]} if place == "command" else {"after": [[program, "x"]]}
    runs = {"a": {"lr": 1}, "b": {"lr": 2}}
    assert main(["--config", str(sweep(runs=runs, seeds=[0], **other))]) == 1
    said = capsys.readouterr().err
    for run in runs:
        assert f"{run}/seed0: '{program}' cannot be run (" in said
    assert "Traceback" not in said


def test_what_is_in_the_place_of_a_runs_files_is_named(sweep, tmp_path, capsys):
    arguments = ["--config", str(sweep(runs={"a": {"lr": 1}}, seeds=[0]))]
    run = tmp_path / "out" / "a"
    run.parent.mkdir()
    run.write_text("a file")
    assert main(arguments) == 1
    assert "a/seed0: Not a directory; give another folder" in capsys.readouterr().err
    run.unlink()
    (run / "seed0").mkdir(parents=True)
    os.mkfifo(run / "seed0" / "sweep.log")
    assert main(arguments) == 2
    assert "sweep.log is not a file but a pipe" in capsys.readouterr().err
