"""Sweeps: every run with every seed once, on its own core; interrupted and failed ones go on."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tiny.evaluation.config import parse_config
from training.methods.programs import distill_parser
from training.sweep import main, make_jobs, read_sweep
from training.sweep_table import format_table, read_metrics, read_run

ROOT = Path(__file__).parents[3]
WORKER = """
import json, os, pathlib, sys, time
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
out = pathlib.Path(given["--out_dir"])
with (out.parents[1] / "calls.txt").open("a") as file:
    file.write(f"{out.parent.name} {given['--seed']}\\n")
if not (out.parents[1] / "mended").exists():
    time.sleep(float(given.get("--sleep", 0)))
    if given.get("--fail") == "true":
        sys.exit("this run fails")
cores = sorted(os.sched_getaffinity(0))
with (out / "metrics.jsonl").open("w") as file:
    for step in (1, 2):
        loss = float(given["--lr"]) * step + int(given["--seed"])
        numbers = {"step": step, "loss": loss, "cores": len(cores)}
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
            "table": ["loss", "cores"],
            "runs": {"low": {"lr": 0.5}, "high": {"lr": 2}},
            **changes,
        }
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in values.items() if v is not None}, sort_keys=False))
        return path

    return write


def calls(tmp_path):
    """Runs that were started, in order."""
    path = tmp_path / "out" / "calls.txt"
    return path.read_text().splitlines() if path.exists() else []


def test_every_run_with_every_seed_and_a_table(sweep, tmp_path, capsys):
    path = sweep(after=[["python", "-c", "open('{out_dir}/after', 'w').write('{run} {seed}')"]])
    assert main(["--sweep", str(path)]) == 0
    assert sorted(calls(tmp_path)) == ["high 0", "high 1", "low 0", "low 1"]
    table = capsys.readouterr().out
    # Last losses are lr * 2 + seed: 1 and 2, 4 and 5; each process had a core to itself.
    assert "| low | 2/2 | 1.5 ± 0.71 | 1 ± 0 |" in table and "| high | 2/2 | 4.5 ± 0.71 | 1 ± 0 |" in table
    assert (tmp_path / "out" / "table.md").read_text() == table
    rows = json.loads((tmp_path / "out" / "table.json").read_text())
    assert {(row["run"], row["seed"], row["loss"]) for row in rows} == {
        ("low", 0, 1), ("low", 1, 2), ("high", 0, 4), ("high", 1, 5)
    }  # fmt: skip
    assert (tmp_path / "out" / "high" / "seed1" / "after").read_text() == "high 1"


def test_finished_runs_are_skipped_and_changed_ones_refused(sweep, tmp_path, capfd):
    assert main(["--sweep", str(sweep())]) == 0
    assert main(["--sweep", str(sweep())]) == 0 and len(calls(tmp_path)) == 4
    assert main(["--sweep", str(sweep(seeds=[0, 1, 2]))]) == 0
    assert calls(tmp_path)[4:] == ["low 2", "high 2"]
    assert main(["--sweep", str(sweep(runs={"low": {"lr": 1}, "high": {"lr": 2}}))]) == 2
    assert "seed0 was begun with other settings" in capfd.readouterr().err and len(calls(tmp_path)) == 6


def test_a_failed_run_stops_no_other_and_is_tried_again(sweep, tmp_path, capsys):
    runs = {"bad": {"lr": 1, "fail": True}, "good": {"lr": 1}}
    path = sweep(runs=runs, seeds=[0])
    assert main(["--sweep", str(path)]) == 1
    assert calls(tmp_path) == ["bad 0", "good 0"]
    assert "| bad | 0/1 | - | - |" in capsys.readouterr().out
    assert "this run fails" in (tmp_path / "out" / "bad" / "seed0" / "sweep.log").read_text()
    (tmp_path / "out" / "mended").touch()
    assert main(["--sweep", str(path)]) == 0 and calls(tmp_path)[2:] == ["bad 0"]


def test_a_failing_command_afterwards_leaves_the_run_unfinished(sweep, tmp_path):
    path = sweep(runs={"one": {"lr": 1}}, seeds=[0], after=[["python", "-c", "raise SystemExit(3)"]])
    assert main(["--sweep", str(path)]) == 1
    assert not (tmp_path / "out" / "one" / "seed0" / "sweep_done.json").exists()


def test_an_interrupted_sweep_ends_its_processes_and_goes_on(sweep, tmp_path):
    path = sweep(runs={"quick": {"lr": 1}, "slow": {"lr": 1, "sleep": 60}}, seeds=[0])
    # A shell's background jobs ignore SIGINT, and their children with them.
    heeding = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    command = [sys.executable, str(ROOT / "training/sweep.py"), "--sweep", str(path)]
    process = subprocess.Popen(command, **heeding)
    quick, slow = (tmp_path / "out" / run / "seed0" / "sweep_done.json" for run in ("quick", "slow"))
    deadline = time.monotonic() + 60
    # Where there are cores enough the two run side by side.
    while not (quick.exists() and "slow 0" in calls(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    assert quick.exists() and not slow.exists()
    (tmp_path / "out" / "mended").touch()
    assert main(["--sweep", str(path)]) == 0 and calls(tmp_path)[2:] == ["slow 0"]


def test_only_the_table(sweep, tmp_path, capsys):
    assert main(["--sweep", str(sweep()), "--table"]) == 0
    assert "| low | 0/2 | - | - |" in capsys.readouterr().out and calls(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": [1]}, "unknown key seed; did you mean seeds"),
        ({"runs": {}}, "runs is {}"),
        ({"runs": None}, "runs is missing"),
        ({"runs": {"a": 1}}, "runs.a is 1"),
        ({"runs": {"../a": {}}}, "name '../a'"),
        ({"seeds": [1, 1]}, "each once"),
        ({"jobs": -1}, "jobs is -1"),
    ],
)
def test_mistakes_are_named(sweep, changes, words, capfd):
    path = sweep(**changes)
    with pytest.raises(ValueError, match=words.replace("{", r"\{").replace("}", r"\}")):
        read_sweep(path)
    assert main(["--sweep", str(path)]) == 2 and words in capfd.readouterr().err


def test_more_jobs_than_cores_and_missing_metrics_are_refused(sweep, capfd):
    cores = len(os.sched_getaffinity(0))
    assert (
        main(["--sweep", str(sweep()), "--jobs", str(cores + 1)]) == 2 and "cores" in capfd.readouterr().err
    )
    assert main(["--sweep", str(sweep(metrics="none.json"))]) == 2
    assert "none.json is missing" in capfd.readouterr().err


def test_metrics_of_both_forms(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"score": {"text": 1, "depth": 2.5}, "name": "x", "ok": True}))
    assert read_metrics(path) == {"score/text": 1, "score/depth": 2.5}
    path.write_text('{"a": 1, "b": 2}\n{"a": 3}\n')
    assert read_metrics(path) == {"a": 3, "b": 2}
    path.write_text("a: 1\nb: 2\n")
    with pytest.raises(ValueError, match="neither JSON nor JSON lines"):
        read_metrics(path)
    assert "| one | 1/2 | 0.5 | - |" in format_table({"one": [{"a": 0.5}], "two": [{"b": 1}]}, [], 2)


def test_metrics_of_many_files(sweep, tmp_path, capsys):
    """Each file's numbers behind its name; none, or two of a name, are refused."""
    write = (
        "import json, pathlib; out = pathlib.Path('{out_dir}') / 'scores' / '{run}'; out.mkdir(parents=True);"
        "[(out / f'{name}.json').write_text(json.dumps(dict(score=value, metrics=dict(psnr=20 + {seed}))))"
        " for name, value in (('text', 0.5), ('depth', 1))]"
    )
    changes = {"runs": {"one": {"lr": 1}}, "after": [["python", "-c", write]], "metrics": "scores/*/*.json"}
    path = sweep(**changes, table=["text/score", "depth/metrics/psnr"])
    assert main(["--sweep", str(path)]) == 0
    assert "| one | 2/2 | 0.5 ± 0 | 20.5 ± 0.71 |" in capsys.readouterr().out
    folder = tmp_path / "out" / "one" / "seed0"
    assert set(read_run(folder, "scores/*/*.json")) == {
        "text/score", "text/metrics/psnr", "depth/score", "depth/metrics/psnr",
    }  # fmt: skip
    with pytest.raises(ValueError, match="has no none/"):
        read_run(folder, "none/*.json")
    (folder / "scores" / "other").mkdir()
    (folder / "scores" / "other" / "text.json").write_text("{}")
    with pytest.raises(ValueError, match="several files of one name match"):
        read_run(folder, "scores/*/*.json")


def test_the_shipped_ablation_is_of_known_keys():
    sweep = read_sweep(ROOT / "tiny/configs/tiny_ablation.yaml")
    jobs = make_jobs(sweep)
    assert len(jobs) == 15 and len({job.folder for job in jobs}) == 15
    changed = {}
    for job in jobs:
        words = list(job.commands[0])
        words[words.index("--config") + 1] = str(ROOT / sweep.base)
        config = distill_parser().read(words[2:])[0]
        assert config.seed == job.seed and config.out_dir == str(job.folder)
        losses = config.losses
        changed[job.run] = (losses.dmd, losses.otd, losses.gan, bool(config.model.acc_wan_init))
    assert changed == {
        "full": (True, True, True, True), "dmd_only": (True, False, False, True),
        "no_gan": (True, True, False, True), "no_otd": (True, False, True, True),
        "no_acc_wan_init": (True, True, True, False),
    }  # fmt: skip
    student = distill_parser().read(["--config", str(ROOT / "tiny/configs/vdot_tiny_student.yaml")])[0]
    full = distill_parser().read([*_absolute(jobs[0].commands[0], sweep.base)[2:]])[0]
    assert dataclasses.replace(full, out_dir=student.out_dir) == student


def test_the_shipped_ablations_table_is_of_what_its_evaluation_writes(tmp_path, monkeypatch):
    sweep = read_sweep(ROOT / "tiny/configs/tiny_ablation.yaml")
    job = next(job for job in make_jobs(sweep) if job.run == "no_gan" and job.seed == 1)
    (command,) = job.commands[1:]
    words = _absolute(command, "tiny/configs/tiny_evaluation.yaml")
    config, _ = parse_config(words[2:])
    assert config.transformer == str(job.folder / "export" / "generator.safetensors")
    monkeypatch.chdir(tmp_path)
    rows = [row for row in config.tasks if row.title in config.only]
    for row in rows:
        file = Path(config.out_dir) / config.run / config.use[0] / f"{row.title}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        diverse = {"diversity_ratio": 0.3} if row.seeds > 1 else {}
        file.write_text(json.dumps({"score": 0.5, "metrics": {"frechet_distance": 20.0, **diverse}}))
    assert len(rows) == len(config.only) and set(sweep.table) <= set(read_run(job.folder, sweep.metrics))


def _absolute(command, config):
    """A command's words, its configuration's path from the root."""
    return [str(ROOT / word) if word == config else word for word in command]
