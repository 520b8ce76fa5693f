"""The command line: what is refused, with which words, and before anything is installed."""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from devtools import cli, commands
from devtools.demo.flags import parse
from devtools.demo.options import DemoOptions, tasks
from devtools.errors import DevError
from tests.conftest import positive_int

ROOT = Path(__file__).resolve().parents[2]
OLD = ("python3.9", "python3.8", "python3.7", "python3.6", "python2.7")


def old_pythons() -> list[str]:
    """Interpreters below 3.10 on this machine."""
    candidates = [path for name in OLD if (path := shutil.which(name))]
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates += [str(path) for name in OLD for path in sorted(root.glob(f"{name[6:]}.*/bin/python"))]
    probe = "import sys; sys.exit(sys.version_info >= (3, 10))"
    return [
        path
        for path in candidates
        if subprocess.run([path, "-c", probe], capture_output=True).returncode == 0
    ]


def run_dev(*arguments: str, python: str = sys.executable, **variables: str) -> subprocess.CompletedProcess:
    command = [python, str(ROOT / "dev.py"), *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_an_old_python_gets_one_line():
    pythons = old_pythons()
    if not pythons:
        pytest.skip("no Python below 3.10 on this machine")
    for python in pythons:
        run = run_dev("demo", python=python)
        assert run.returncode == 1, python
        assert run.stderr.startswith("dev.py needs Python 3.10 or newer, this is "), run.stderr
        assert run.stderr.strip().count("\n") == 0


def test_without_a_command_the_usage_is_shown():
    run = run_dev()
    assert run.returncode == 2 and "usage: python dev.py COMMAND" in run.stdout
    assert run_dev("--help").returncode == 0


@pytest.mark.parametrize("command", ["lint", "pins", "bench"])
def test_commands_without_a_parser_explain_themselves_too(command, monkeypatch, capsys):
    monkeypatch.setattr(commands, command, lambda _: pytest.fail("it ran"))
    assert cli.main([command, "--help"]) == 0
    assert f"  {command}  " in capsys.readouterr().out


def test_an_unknown_command_names_the_known_ones(capsys):
    assert cli.main(["tset"]) == 2
    assert "no command 'tset'; there are demo, comfy, test, lint, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--mask", str(ROOT / "dev.py")],
            "--mask was given 1 time, the depth workflow reads 0 masks",
        ),
        (["--task", "text", "--image", str(ROOT / "dev.py")], "the text workflow reads 0 images$"),
        (["--task", "xyzzy"], "--task xyzzy: there is no such workflow; choose from"),
        (["--task", "impaint"], r"there is no such workflow; did you mean inpaint\? There are animate, "),
        (["--video", "no/such.mp4"], "^--video no/such.mp4 does not exist in /[^ ]*; give a file$"),
        (["--mask", str(ROOT)], "--mask [^ ]* is a folder; give a file"),
        (["--mask", "/no/such.png"], "^--mask /no/such.png does not exist; give a file$"),
        (["--image", str(ROOT / "dev.py"), "--image", "nope"], "--image nope does not exist in "),
        (["--size", "big"], "--size big: expected WIDTHxHEIGHT in pixels, as in 64x64"),
        (["--size", "64"], "expected WIDTHxHEIGHT"),
        (["--size", "100x50"], "--size 100x50: both sides must be multiples of 16, as in 96x48"),
        (["--size", "0x64"], "both sides must be multiples of 16, as in 16x64"),
        (["--frames", "16"], "--frames 16: the count must be 4n.1, as in 13 or 17"),
        (["--frames", "0"], "--frames 0: the count must be 4n.1, as in 1 or 5"),
        (["--seed", "-1"], "--seed -1: a seed is an integer"),
        (["--out", str(ROOT / "dev.py")], "--out .* cannot be made or is no folder"),
    ],
)
def test_bad_demo_flags_say_what_is_wrong(arguments, message):
    with pytest.raises(DevError, match=message):
        parse(arguments)


def test_a_bad_flag_costs_no_set_up(tmp_path):
    run = run_dev(
        "demo", "--size", "64", VDOT_VENV=str(tmp_path / "venv"), VDOT_CACHE=str(tmp_path / "cache")
    )
    assert run.returncode == 1 and run.stderr.strip().startswith("error: --size 64")
    assert not list(tmp_path.iterdir())


def test_good_demo_flags_survive_the_way_into_the_environment(tmp_path):
    (tmp_path / "a b.png").touch()
    arguments = [
        "--task",
        "replace",
        "--image",
        str(tmp_path / "a b.png"),
        "--mask",
        str(tmp_path / "a b.png"),
    ]
    arguments += ["--prompt", 'a "red" square, für immer', "--frames", "13", "--size", "80x48", "--seed", "5"]
    options = parse([*arguments, "--out", str(tmp_path / "new" / "out")])
    assert DemoOptions.from_json(options.to_json()) == options
    assert options.size == (80, 48) and options.images == (str((tmp_path / "a b.png").resolve()),)
    assert (tmp_path / "new" / "out").is_dir()
    assert options.workflow.is_file()


def test_the_default_task_exists():
    assert DemoOptions().task in tasks()
    assert {"text", "depth", "inpaint"} <= set(tasks())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "no_such"], "no benchmark 'no_such'; there are:"),
        (["lint", "nodes"], "lint takes no arguments, got nodes"),
        (["comfy", "--port", "99999"], "a port is a number from 1 to 65535"),
    ],
)
def test_other_commands_refuse_early(arguments, message, capsys):
    assert cli.main(arguments) == 1
    assert message in capsys.readouterr().err


def test_two_workers_share_the_tests_unless_the_arguments_say_otherwise(monkeypatch):
    monkeypatch.setattr(commands, "num_cores", lambda: 2)
    assert commands.worker_options(["-x", "--full", "--nf"])[:2] == ["-n", "2"]
    for arguments in (["-n", "4"], ["-n0"], ["--numprocesses=3"], ["--pdb"], ["-p", "no:xdist"]):
        assert commands.worker_options(arguments) == []
    monkeypatch.setattr(commands, "num_cores", lambda: 1)
    assert commands.worker_options([]) == []


def test_processes_of_the_tests_keep_what_they_compile(monkeypatch):
    code = "import sys; sys.exit(sys.dont_write_bytecode)"
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(commands, "set_up", lambda: SimpleNamespace(python=sys.executable))
    monkeypatch.setattr(commands, "worker_options", lambda _: [])
    run = commands.run
    monkeypatch.setattr(commands, "run", lambda _, variables: run([sys.executable, "-c", code], variables))
    assert commands.test([]) == 0


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ["default"]),
        pytest.param(["--full"], ["default", "rare"], marks=pytest.mark.full),
        pytest.param(["-m", "full"], ["rare"], marks=pytest.mark.full),
    ],
)
def test_rare_tests_run_only_when_asked_for(tmp_path, options, names):
    source = "import pytest\ndef test_default(): pass\n@pytest.mark.full\ndef test_rare(): pass\n"
    (tmp_path / "test_two.py").write_text(source)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "--collect-only",
        "-q",
        "-p",
        "no:xdist",
    ]
    run = subprocess.run(
        [*command, "-c", str(ROOT / "pyproject.toml"), *options, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert re.findall(r"::test_(\w+)", run.stdout) == names, run.stdout + run.stderr


def test_fuzz_scales_the_number_of_cases(pytestconfig, fuzz_cases):
    assert fuzz_cases(7) == 7 * pytestconfig.getoption("--fuzz")
    assert positive_int("20") == 20
    for text in ("0", "-1", "x", "1.5", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number from 1"):
            positive_int(text)


def test_the_commands_use_the_standard_library_alone():
    """dev.py starts on a bare Python: no import of the set-up part may need a package."""
    code = (
        "import sys; sys.path.insert(0, '.'); import devtools.cli, devtools.commands, devtools.demo.flags,"
        "devtools.demo.convert, devtools.demo.graph, devtools.layers\n"
        "known = set(sys.stdlib_module_names) | {'devtools'}\n"
        "print(sorted({m.split('.')[0] for m in sys.modules if not m.startswith('_')} - known))"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"VDOT_VENV": "{file}"}, "error: {file} is a file: VDOT_VENV must be a folder"),
        (
            {"VDOT_VENV": "{file}/venv"},
            "error: cannot write to {file}/venv (Not a directory): make {file}/venv a writable",
        ),
        ({"VDOT_VENV": "/"}, "error: VDOT_VENV=/ is the root of the disk"),
        (
            {"VDOT_VENV": "~nobody-of-this-name/venv"},
            "error: VDOT_VENV=~nobody-of-this-name/venv is no usable path",
        ),
        ({"VDOT_VENV": "{folder}"}, "error: {folder} is no virtual environment (it has "),
        ({"VDOT_CACHE": "{file}"}, "or set VDOT_CACHE to another one"),
        ({"VDOT_CACHE": "{file}/cache"}, "error: cannot write to {file}/cache (Not a directory)"),
        ({"VDOT_CACHE": "{readonly}/cache"}, "error: cannot write to {readonly}/cache"),
        ({"COMFYUI_PATH": "{file}"}, "error: COMFYUI_PATH={file} is no ComfyUI folder"),
        ({"COMFYUI_PATH": "{comfyui}"}, "error: COMFYUI_PATH={comfyui} is no ComfyUI folder (main.py,"),
    ],
    ids=str,
)
def test_a_wrong_path_is_a_sentence_and_costs_no_set_up(tmp_path, variables, message):
    if os.name == "nt":
        pytest.skip("the paths and messages are those of POSIX systems")
    # /proc refuses new folders to everybody, root included.
    places = {
        "file": tmp_path / "file",
        "folder": tmp_path,
        "readonly": "/proc",
        "comfyui": tmp_path / "comfyui",
    }
    places["file"].touch()
    places["comfyui"].mkdir()
    for name in ("main.py", "comfyui_version.py"):
        (places["comfyui"] / name).write_text('__version__ = "0.30.0"\n')
    if "{readonly}" in message and not Path("/proc").is_dir():
        pytest.skip("needs /proc")
    environment = {
        "VDOT_VENV": str(tmp_path / "venv"),
        "VDOT_CACHE": str(tmp_path / "cache"),
        "COMFYUI_PATH": "",
    }
    environment |= {name: value.format(**places) for name, value in variables.items()}
    run = run_dev("lint", **environment)
    assert run.returncode == 1 and "Traceback" not in run.stderr, run.stderr
    assert message.format(**places) in run.stderr
    assert not (tmp_path / "venv" / "pyvenv.cfg").exists()
