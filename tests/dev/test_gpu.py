"""`dev.py gpu`: each part in a separate process and finished once, nothing left running."""

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import PARTS as MEASURED
from devtools import gpu, groups
from devtools.groups import run_group
from devtools.paths import ROOT

PR_SET_CHILD_SUBREAPER = 36
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")

# A child that ignores SIGTERM, and another that has ended and is never waited for.
STUBBORN = """
import os, signal, sys, time
if os.fork() == 0:
    os._exit(0)
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open(sys.argv[1], "w").write(str(os.getpid()))
    time.sleep(600)
time.sleep(600)
"""


def run_dev(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "dev.py"), "gpu", *arguments]
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def options(folder: Path, *only: str, again: bool = False) -> gpu.Options:
    return gpu.Options(only, again, "cpu", True, folder)


def measure(folder: Path, *only: str, again: bool = False, started: float | None = None) -> tuple[int, list]:
    lines: list[str] = []
    gpu_info = {"name": None, "torch": "2.11.0", "cuda": None}
    python, begin = Path(sys.executable), time.monotonic() if started is None else started
    status = gpu.measure(python, options(folder, *only, again=again), gpu_info, lines.append, begin)
    return status, lines


def figures(folder: Path) -> dict:
    (path,) = folder.glob("*/figures.json")
    return json.loads(path.read_text())


@pytest.fixture
def quick(monkeypatch):
    """Parts without torch: one that works, one that fails, one that never ends."""
    program = (
        "import json, sys, time\n"
        "part, out = sys.argv[1], sys.argv[-1]\n"
        "if part == 'fails': sys.exit('wrong numbers')\n"
        "if part == 'hangs': time.sleep(600)\n"
        "json.dump({'not_measured': 'too small'} if part == 'small' else {'value': 1}, open(out, 'w'))\n"
    )

    def run(command, log, limit, *, cwd):
        return run_group([command[0], "-c", program, *command[3:]], log, limit, cwd=cwd)

    monkeypatch.setattr(gpu, "run_group", run)
    monkeypatch.setattr(gpu, "PARTS", {"works": 30, "small": 30, "fails": 30, "hangs": 1})
    monkeypatch.setattr(gpu, "SHORTEST", 1)


def test_without_a_gpu_it_is_one_sentence_and_a_status_of_its_own(tmp_path):
    run = run_dev("--no-setup", "--out", str(tmp_path), CUDA_VISIBLE_DEVICES="")
    assert run.returncode == gpu.NO_GPU
    assert run.stderr.startswith("no NVIDIA GPU to measure: torch ") and run.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_without_a_driver_nothing_is_set_up(tmp_path):
    if gpu.has_driver():
        pytest.skip("this machine has an NVIDIA driver")
    run = run_dev(VDOT_VENV=str(tmp_path / "venv"), VDOT_CACHE=str(tmp_path / "cache"))
    assert (run.returncode, run.stderr) == (gpu.NO_GPU, gpu.NO_DRIVER + "\n")
    assert not list(tmp_path.iterdir())


def test_a_build_for_cpus_is_named():
    assert "is a build for CPUs" in gpu.why_no_gpu({"torch": "2.11.0+cpu", "cuda": None})


def test_finished_parts_are_skipped_at_the_second_start_and_others_run_again(tmp_path, quick):
    status, lines = measure(tmp_path)
    parts = figures(tmp_path)["parts"]
    assert status == 1 and {name: part["state"] for name, part in parts.items()} == {
        "works": "done", "small": "skipped", "fails": "failed", "hangs": "timeout",
    }  # fmt: skip
    assert parts["works"]["figures"] == {"value": 1} and parts["small"]["reason"] == "too small"
    assert "exit status 1: wrong numbers" in parts["fails"]["reason"]
    assert parts["hangs"]["seconds"] >= 1 and "not finished after 1 s" in parts["hangs"]["reason"]
    status, lines = measure(tmp_path, "works", "small", "fails")
    assert lines[:2] == ["works: done before", "small: skipped before"] and "fails: at most" in lines[2]
    status, lines = measure(tmp_path, "works", again=True)
    assert status == 0 and "works: at most" in lines[0]


def test_what_has_no_time_left_is_not_started(tmp_path, quick):
    status, lines = measure(tmp_path, "works", started=time.monotonic() - gpu.TOTAL_SECONDS)
    assert status == 1 and "run the same command again" in lines[0]
    assert figures(tmp_path)["parts"]["works"] == {"state": "not started"}
    assert measure(tmp_path, "works")[0] == 0


def test_the_figures_say_where_they_come_from(tmp_path, quick):
    measure(tmp_path, "works")
    head = figures(tmp_path)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    assert head["commit"] == (commit.stdout.strip() or None)
    assert head["torch"] == "2.11.0" and {"gpu", "host", "system", "cuda", "changed"} <= set(head)


@posix
def test_a_group_is_ended_at_the_limit_to_the_last_process(tmp_path, monkeypatch, counted_when_ready):
    monkeypatch.setattr(groups, "GRACE_SECONDS", 1.0)
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc")
    command = [sys.executable, "-c", STUBBORN, str(tmp_path / "ready")]
    begin = time.monotonic()
    assert run_group(command, tmp_path / "log", 0.5, cwd=tmp_path) is None
    assert time.monotonic() - begin < 300, "as long as the programs sleep"
    assert not is_running(int((tmp_path / "ready").read_text()))


@pytest.fixture
def counted_when_ready(tmp_path, monkeypatch):
    """A program's limit counts from the moment when it has written something into `ready`."""

    class Program(subprocess.Popen):
        def wait(self, timeout=None):
            end = time.monotonic() + 240
            while timeout and not (tmp_path / "ready").exists() and time.monotonic() < end:
                time.sleep(0.02)
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Program)


@pytest.fixture
def orphans():
    """Adopt the orphans of programs, as a container's first process does that never waits for a child."""
    if not sys.platform.startswith("linux"):
        pytest.skip("needs Linux")
    prctl = ctypes.CDLL(None).prctl
    assert prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def test_a_zombie_is_not_alive(tmp_path, orphans, monkeypatch, counted_when_ready):
    """A child that ended and is never waited for does not delay the end."""
    monkeypatch.setattr(groups, "GRACE_SECONDS", 600.0)
    program = "import os, time\nif os.fork() == 0: os._exit(0)\nopen('ready', 'w').close()\ntime.sleep(600)"
    begin = time.monotonic()
    assert run_group([sys.executable, "-c", program], tmp_path / "log", 0.5, cwd=tmp_path) is None
    assert time.monotonic() - begin < 300
    pid, _ = os.waitpid(-1, os.WNOHANG)
    assert pid > 0, "the zombie was there"


@posix
def test_a_terminated_command_ends_its_part(tmp_path):
    command = [
        sys.executable,
        str(ROOT / "dev.py"),
        "gpu",
        "--device",
        "cpu",
        "--no-setup",
        "--only",
        "tests",
    ]
    run = subprocess.Popen([*command, "--out", str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert "tests: at most" in run.stdout.readline()
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    if not children.exists():
        pytest.skip("needs /proc")
    deadline = time.monotonic() + 240
    while not children.read_text().split() and time.monotonic() < deadline:
        time.sleep(0.05)
    (part,) = children.read_text().split()
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=240)
    assert run.returncode == 143 and not is_running(int(part))


def test_every_part_is_there_and_fits_into_the_command():
    assert gpu.PARTS.keys() == MEASURED.keys()
    assert max(gpu.PARTS.values()) < gpu.TOTAL_SECONDS <= 540


@pytest.mark.parametrize("part", ["sample_1_3b", "train_1_3b", "lora_1_3b", "transport"])
def test_the_parts_measure_the_real_code_at_a_very_small_size(part):
    module, arguments = MEASURED[part]
    figures = importlib.import_module(f"benchmarks.gpu.{module}").measure("cpu", *arguments)
    if module == "transport":
        assert figures["rows"] and all(row["converged"] for row in figures["rows"])
        return
    assert figures["clip"] == "5 frames of 32x32" and figures["predicted_gib"] > 0
    steps = figures["steps"] if module == "training" else [figures]
    assert steps and all(step["finite"] for step in steps)


@pytest.mark.full
@pytest.mark.parametrize("part", gpu.PARTS)
def test_every_part_runs_as_a_process(tmp_path, part):
    status, lines = measure(tmp_path, part)
    assert status == 0 and figures(tmp_path)["parts"][part]["state"] == "done", lines
