"""Environments are complete or rebuilt, and nothing of others is deleted."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from devtools import venv as environments
from devtools.errors import DevError
from devtools.paths import python_of, require_space


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Path:
    """A new environment, made once; tests work on copies."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    environments.create_venv(folder, 0, print)
    return folder


@pytest.fixture
def venv(fresh, tmp_path) -> Path:
    shutil.copytree(fresh, tmp_path / "venv", symlinks=True)
    return tmp_path / "venv"


def _works(venv: Path) -> bool:
    return (
        subprocess.run([str(python_of(venv)), "-m", "pip", "--version"], capture_output=True).returncode == 0
    )


def test_an_interrupted_installation_makes_it_anew_and_spares_what_is_not_of_it(venv):
    (venv / environments.INSTALLING).touch()
    leftover = packages_of(venv) / "leftover.py"
    leftover.touch()
    (venv / "thesis.txt").write_text("years of work")
    environments.create_venv(venv, 0, lambda line: None)
    assert not leftover.exists() and _works(venv)
    assert (venv / "thesis.txt").read_text() == "years of work"


def packages_of(venv: Path) -> Path:
    return next(path for path in venv.rglob("site-packages") if not path.parent.is_symlink())


@pytest.mark.skipif(sys.platform == "win32", reason="folders have other names on Windows")
@pytest.mark.parametrize(
    "name",
    ["bin/mytool", "bin/pip", "bin/python", "share/mydata", "lib/mylib/x.py", "include/my.h", "share/link"],
)
def test_files_that_nobody_installed_are_never_deleted(tmp_path, name):
    """The environment's folder may be one that other programs use too, such as ~/.local."""
    venv, mine = tmp_path / "venv", tmp_path / "venv" / name
    (venv / "bin").mkdir(parents=True)
    (venv / environments.MARKER).write_text(environments.MARKER_TEXT)
    (venv / environments.INSTALLING).touch()
    (venv / "bin" / "activate").touch()
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.symlink_to(__file__) if name == "share/link" else mine.write_text("#!/bin/sh\necho mine\n")
    before = files_of(venv)
    with pytest.raises(DevError, match=rf"no installation recorded \({name}\): move them out"):
        environments.create_venv(venv, 0, lambda line: None)
    assert files_of(venv) == before and "mine" in mine.read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_a_marker_that_is_not_ours_is_neither_followed_nor_taken_for_ours(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    venv = tmp_path / "venv"
    venv.mkdir()
    marker = venv / environments.MARKER
    marker.symlink_to(tmp_path / "thesis.txt")
    for _ in range(2):
        with pytest.raises(
            DevError, match=r"vdot-environment is not a file that dev\.py wrote: move it away"
        ):
            environments.create_venv(venv, 0, lambda line: None)
        assert (tmp_path / "thesis.txt").read_text() == "years of work"
        marker.unlink()
        marker.write_text("notes on my environment")


def files_of(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


@pytest.mark.parametrize("damage", ["cut off", "no Python"])
def test_an_environment_of_somebody_else_is_never_deleted(venv, damage):
    """A project folder that is itself a virtual environment."""
    (venv / environments.MARKER).unlink()
    (venv / "thesis.txt").write_text("years of work")
    python_of(venv).unlink() if damage == "no Python" else (venv / environments.INSTALLING).touch()
    before = files_of(venv)
    with pytest.raises(DevError, match="did not make this environment, so it does not delete it"):
        environments.create_venv(venv, 0, lambda line: None)
    assert files_of(venv) == before


def test_the_marker_is_there_before_anything_else(tmp_path, monkeypatch):
    marked = []

    def run(command, **options):
        marked.append([path.name for path in Path(command[-1]).iterdir()])
        raise KeyboardInterrupt

    monkeypatch.setattr(environments, "_output", lambda command: "")
    monkeypatch.setattr(environments.subprocess, "run", run)
    with pytest.raises(KeyboardInterrupt):
        environments.create_venv(tmp_path / "venv", 0, lambda line: None)
    assert marked == [[environments.MARKER]]


def test_an_environment_whose_python_is_gone_is_made_anew(venv):
    python_of(venv).unlink()
    lines = []
    environments.create_venv(venv, 0, lines.append)
    assert "does not run" in lines[0] and _works(venv)


def test_an_environment_without_its_configuration_is_rebuilt(venv):
    """Its Python runs, as the base Python, into which packages would go."""
    (venv / "pyvenv.cfg").unlink()
    lines = []
    environments.create_venv(venv, 0, lines.append)
    assert "does not run" in lines[0] and (venv / "pyvenv.cfg").exists() and _works(venv)


def test_a_folder_with_something_else_in_it_is_never_deleted(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DevError, match=r"no virtual environment \(it has thesis.txt\)"):
        environments.create_venv(tmp_path, 0, lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_in_the_place_is_a_sentence(tmp_path):
    (tmp_path / "venv").write_text("years of work")
    with pytest.raises(DevError, match="venv is a file: VDOT_VENV must be a folder"):
        environments.create_venv(tmp_path / "venv", 0, lambda line: None)


def test_a_failing_base_python_leaves_nothing(tmp_path):
    base = tmp_path / "python"
    base.write_text(
        "#!/bin/sh\n[ \"$1\" = -m ] && { echo 'ensurepip is not available'; exit 1; }\necho 3 12\n"
    )
    base.chmod(0o755)
    if sys.platform == "win32":
        pytest.skip("needs a shell script as an interpreter")
    with pytest.raises(DevError, match="apt install python3-venv"):
        environments.create_venv(tmp_path / "venv", 0, lambda line: None, str(base))
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("output", "free", "advice"),
    [
        ("Error: Command '[.., '-m', 'ensurepip', ..]' returned non-zero exit status 1.", 0, "disk is full"),
        ("OSError: [Errno 28] No space left on device: 'lib'", 2**40, "disk is full"),
        ("created successfully because ensurepip is not\navailable.", 2**40, "apt install python3-venv"),
        ("Error: Command '[.., '-m', 'ensurepip', ..]' died with SIGKILL.", 2**40, ""),
    ],
)
def test_the_advice_fits_the_failure(output, free, advice):
    hint = environments._advice(output, free)
    assert advice in hint and bool(hint) == bool(advice)


def test_a_python_that_is_too_new_is_named(tmp_path):
    if sys.platform == "win32":
        pytest.skip("needs a shell script as an interpreter")
    base = tmp_path / "python"
    base.write_text("#!/bin/sh\necho 3 99\n")
    base.chmod(0o755)
    with pytest.raises(DevError, match=r"newer than 3\.14: use python3\.12"):
        environments.create_venv(tmp_path / "venv", 0, lambda line: None, str(base))


def test_too_little_space_is_said_first(tmp_path):
    with pytest.raises(DevError, match=r"needs \d+\.0 GiB in .*VDOT_VENV"):
        environments.create_venv(tmp_path / "a" / "venv", 1 << 60, lambda line: None)
    assert not (tmp_path / "a").exists()
    require_space(tmp_path, 1, "nothing")
