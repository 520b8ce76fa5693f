"""The commands of dev.py, in the order in which a new user meets them."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from devtools.comfyui import VERSION, version_of
from devtools.errors import DevError
from devtools.gpu import NO_DRIVER, NO_GPU, has_driver, measure, probe, read_options, why_no_gpu
from devtools.groups import signals_deferred
from devtools.hosts import ensure_host
from devtools.paths import ROOT, cache_dir, writing_to
from devtools.pins import all_pins, write_pins
from devtools.server import ComfyServer, require_port
from devtools.setup import layer_of, project_table, say, set_up, set_up_floor

HAS_ACCELERATOR = "import torch; print(torch.cuda.is_available() or torch.backends.mps.is_available())"
BENCHMARKS_WITH_PEERS = ("transport",)
FLOOR_TESTS = ("tests/core", "tests/dev/test_floor.py")
FETCH_ANNOTATORS = ROOT / "vdot_core" / "annotators" / "fetch.py"
HOST_TESTS = ("tests/workflows/test_hosts.py", "--full")


def demo(arguments: Sequence[str]) -> int:
    """Make a video and a contact sheet from a shipped workflow, inside the environment."""
    from devtools.demo.flags import parse

    options = parse(arguments)  # before the set-up: a mistyped path should not cost minutes
    environment = set_up()
    command = [str(environment.python), "-m", "devtools.demo", options.to_json()]
    variables = {"VDOT_DEMO_COMFYUI": str(environment.comfyui), "VDOT_DEMO_SETUP": str(environment.seconds)}
    return run(command, variables)


def _comfy_parser() -> argparse.ArgumentParser:
    """Options of `dev.py comfy`."""
    parser = argparse.ArgumentParser(
        prog="dev.py comfy", description="Start ComfyUI with the pack and open it in the browser."
    )
    parser.add_argument("--port", type=int, default=8188, help="port to listen on (default: %(default)s)")
    parser.add_argument("--no-browser", action="store_true", help="do not open the browser")
    parser.add_argument("--cpu", action="store_true", help="run on the CPU even if there is a GPU")
    return parser


def comfy(arguments: Sequence[str]) -> int:
    """Run ComfyUI with the pack until Ctrl-C; its files are in the per-user cache."""
    options = _comfy_parser().parse_args(arguments)
    require_port(options.port)
    environment = set_up()
    cpu = options.cpu or _output([str(environment.python), "-c", HAS_ACCELERATOR]) != "True"
    base = cache_dir() / "comfy"
    with writing_to(base, "VDOT_CACHE"):
        for name in ("input", "output", "models"):
            (base / name).mkdir(parents=True, exist_ok=True)
    say(f"models, input and output are in {base}" + (" (running on the CPU)" if cpu else ""))
    with ComfyServer(
        environment.python, environment.comfyui, base, port=options.port, cpu=cpu, show=True
    ) as server:
        say(f"ComfyUI is at {server.url}; the pack's workflows are under Templates; Ctrl-C ends it")
        if not options.no_browser:
            webbrowser.open(server.url)
        try:
            return server.wait()
        except KeyboardInterrupt:
            say("ComfyUI was stopped")
            return 0


def test(arguments: Sequence[str]) -> int:
    """Run pytest: the default tests; --full: all; --floor: those for the oldest supported versions.

    --host VERSION: the workflows' tests on an older ComfyUI, with the packages of the pinned one.

    On two cores or more, two workers share the tests, with one torch thread each. PYTHONDONTWRITEBYTECODE is
    overridden: hundreds of short processes would each compile torch and ComfyUI again.
    """
    arguments = list(arguments)
    variables = {"PYTHONDONTWRITEBYTECODE": ""}
    if "--floor" in arguments:
        arguments.remove("--floor")
        python = str(set_up_floor())
        # This environment lacks ComfyUI's requirements: comparisons with ComfyUI are skipped.
        with tempfile.TemporaryDirectory() as nothing:
            variables |= {"VDOT_CACHE": nothing, "COMFYUI_PATH": ""}
            has_paths = any((ROOT / argument.split("::")[0]).exists() for argument in arguments)
            return run([python, "-m", "pytest", *([] if has_paths else FLOOR_TESTS), *arguments], variables)
    variables["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")
    if "--host" in arguments:
        place = arguments.index("--host")
        version = "".join(arguments[place + 1 : place + 2])
        del arguments[place : place + 2]
        python = set_up().python
        variables["COMFYUI_PATH"] = str(ensure_host(version, python, say))
        return run([str(python), "-m", "pytest", *HOST_TESTS, *arguments], variables)
    return run([str(set_up().python), "-m", "pytest", *worker_options(arguments), *arguments], variables)


def worker_options(arguments: Sequence[str]) -> list[str]:
    """Options for two pytest workers; none where the arguments choose otherwise or there is one core.

    A file's tests stay in one worker, because they share slow fixtures: servers, trained weights.
    """
    single = {"--pdb", "--trace", "no:xdist"}.intersection(arguments)
    counted = any(argument.startswith(("-n", "--numprocesses")) for argument in arguments)
    return [] if single or counted or num_cores() < 2 else ["-n", "2", "--dist", "loadfile"]


def num_cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # absent on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def annotators(arguments: Sequence[str]) -> int:
    """Fetch the models of vdot_core/annotators into the per-user cache."""
    if arguments:
        raise DevError(f"annotators takes no arguments, got {' '.join(arguments)}")
    return run([str(set_up().python), str(FETCH_ANNOTATORS)])


def lint(arguments: Sequence[str]) -> int:
    """Run all checks, also after one has failed."""
    if arguments:
        raise DevError(f"lint takes no arguments, got {' '.join(arguments)}")
    python = str(set_up().python)
    checks = {
        "ruff check": ["ruff", "check", "."],
        "ruff format --check": ["ruff", "format", "--check", "."],
        "layers": ["devtools.layers"],
    }
    failed = []
    for name, command in checks.items():
        say(name)
        if run([python, "-m", *command]):
            failed.append(name)
    say(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return 1 if failed else 0


def bench(arguments: Sequence[str]) -> int:
    """Run benchmarks/NAME.py with the remaining arguments; without a name, list them.

    `--install-peers` installs other projects' packages to compare with, in a separate environment.
    """
    names = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if not path.stem.startswith("_"))
    if not arguments:
        print("benchmarks: " + (", ".join(names) or "none"))
        return 0
    if arguments[0] not in names:
        raise DevError(f"no benchmark {arguments[0]!r}; there are: {', '.join(names) or 'none'}")
    name, options = arguments[0], list(arguments[1:])
    script = ROOT / "benchmarks" / f"{name}.py"
    python = set_up().python
    if name in BENCHMARKS_WITH_PEERS:
        python = layer_of(python, "bench", install_it="--install-peers" in options)
        options = [option for option in options if option != "--install-peers"]
    return run([str(python), str(script), *options], {"PYTHONPATH": str(ROOT)})


def gpu(arguments: Sequence[str]) -> int:
    """Figures of this machine's GPU, part by part; see devtools/gpu.py."""
    started = time.monotonic()
    options = read_options(arguments)
    cuda = options.device == "cuda"
    if cuda and not options.no_setup and not has_driver():
        print(NO_DRIVER, file=sys.stderr)
        return NO_GPU
    python = Path(sys.executable) if options.no_setup else set_up().python
    gpu_info = probe(python)
    if cuda and gpu_info["name"] is None:
        print(why_no_gpu(gpu_info), file=sys.stderr)
        return NO_GPU
    if cuda and not options.no_setup:
        python = layer_of(python, "gpu", install_it=True)
    return measure(python, options, gpu_info, say, started)


def verify(arguments: Sequence[str]) -> int:
    """Check a network's file, and one step of our network against ComfyUI's; see devtools/verify."""
    from devtools.verify.options import absolute, read_options

    options = read_options(arguments)  # before the set-up: a mistyped option should not cost minutes
    environment = set_up()
    command = [str(environment.python), "-m", "devtools.verify", *absolute(options)]
    return run(command, {"VDOT_COMFYUI": str(environment.comfyui)})


def pins(arguments: Sequence[str]) -> int:
    """devtools/pinned/*.txt from pyproject.toml and ComfyUI's requirements; --upgrade: newer versions."""
    if unknown := [argument for argument in arguments if argument != "--upgrade"]:
        raise DevError(f"pins takes --upgrade alone, got {' '.join(unknown)}")
    environment = set_up()
    comfyui = environment.comfyui
    if version_of(comfyui) != VERSION:
        raise DevError(f"COMFYUI_PATH has {version_of(comfyui)}, the pins are for {VERSION}: unset it")
    for listed in all_pins(project_table(environment.python), comfyui):
        say(f"writing {listed.path.relative_to(ROOT)}")
        if status := write_pins(environment.python, listed, upgrade="--upgrade" in arguments):
            return status
    return 0


def run(command: Sequence[str], variables: dict[str, str] | None = None) -> int:
    """Run a program in the repository's root and give its exit status; Ctrl-C reaches it first.

    The child gets time to clean up (the demo stops its server) before this process ends.
    """
    child = None
    try:
        with signals_deferred():
            child = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **(variables or {})})
        return child.wait()
    except BaseException:
        if child is None:
            raise
        if not isinstance(
            sys.exc_info()[1], KeyboardInterrupt
        ):  # the terminal sent that one to the child too
            child.terminate()
        deadline = time.monotonic() + 20
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        child.kill()
        raise


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=Path(ROOT)).stdout.strip()
