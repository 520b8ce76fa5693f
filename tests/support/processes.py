"""Two processes under torchrun."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

RUN_TINY = Path(__file__).resolve().parents[1] / "training" / "engine" / "run_tiny.py"


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def torchrun(folder: Path, *words: str, cwd: Path | None = None) -> subprocess.Popen:
    """Start two processes of a program; what they print is added to `folder`/log.txt."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    command += ["--master_addr=127.0.0.1", f"--master_port={_free_port()}", *words]
    log = (folder / "log.txt").open("ab")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=cwd, start_new_session=True)


def launch(
    folder: Path, values: dict, source: dict | None = None, out_dirs: Sequence[Path] = ()
) -> subprocess.Popen:
    """Start two processes on a configuration and batches of noise; two folders: each has its own."""
    config_file = folder / "run.json"
    folders = [str(path) for path in out_dirs]
    config_file.write_text(json.dumps({"config": values, "source": source or {}, "out_dirs": folders}))
    return torchrun(folder, str(RUN_TINY), str(config_file))


HOLD = """
import sys, time
from training.engine.lock import locked
with locked(sys.argv[1], "out_dir"):
    print("held", flush=True)
    time.sleep(3600)
"""


@contextmanager
def holding(folder: Path) -> Iterator[subprocess.Popen]:
    """A process that holds the lock of a folder."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, cwd=RUN_TINY.parents[3], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().strip() == "held"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def wait(process: subprocess.Popen, folder: Path, seconds: float = 300) -> int:
    """The exit status; too late, all is killed and the log shown."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError((folder / "log.txt").read_text()[-3000:]) from None
