"""Environments are complete or rebuilt, and nothing of others is deleted.

Real environments, with a small wheel from a local folder instead of PyPI.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from devtools import venv as environments
from devtools.errors import DevError
from devtools.paths import python_of, require_space


def make_wheel(folder: Path, name: str, version: str) -> Path:
    """A wheel with one module that knows its version."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f'version = "{version}"\n',
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for inner, text in files.items():
            wheel.writestr(inner, text)
    return path


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Path:
    """A new environment, made once; tests work on copies."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    environments.create_venv(folder, 0, print)
    return folder


@pytest.fixture
def venv(fresh, tmp_path, monkeypatch) -> Path:
    shutil.copytree(fresh, tmp_path / "venv", symlinks=True)
    make_wheel(tmp_path / "wheels", "tiny", "1.0")
    make_wheel(tmp_path / "wheels", "tiny", "2.0")
    (tmp_path / "constraints.txt").write_text("tiny==1.0\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return tmp_path / "venv"


def install(venv: Path, requirement: str = "tiny") -> bool:
    return environments.install(venv, [requirement], venv.parent / "constraints.txt", lambda line: None)


def _works(venv: Path) -> bool:
    return (
        subprocess.run([str(python_of(venv)), "-m", "pip", "--version"], capture_output=True).returncode == 0
    )


def installed(venv: Path) -> str:
    command = [str(python_of(venv)), "-c", "import tiny; print(tiny.version)"]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=venv
    ).stdout.strip()


def test_installs_what_the_constraints_say_once(venv):
    assert install(venv) is True
    assert installed(venv) == "1.0"
    assert not (venv / environments.INSTALLING).exists()
    assert install(venv) is False


BACKEND = """
import shutil, tempfile
from pathlib import Path

def build_wheel(folder, config_settings=None, metadata_directory=None):
    Path("temporary").write_text(tempfile.gettempdir())
    return Path(shutil.copy(next(Path.cwd().glob("*.whl")), folder)).name
"""


def test_pip_unpacks_beside_what_it_installs(venv):
    """A killed pip leaves gigabytes behind: they are to lie in the folder that is made anew."""
    source = venv.parent / "source"
    make_wheel(source, "tiny", "1.0")
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n'
    )
    (source / "own.py").write_text(BACKEND)
    assert install(venv, f"tiny @ {source.as_uri()}") is True
    assert installed(venv) == "1.0"
    temporary = Path((source / "temporary").read_text())
    assert venv in temporary.parents and not temporary.exists()


def test_other_constraints_or_requirements_install_again(venv):
    install(venv)
    (venv.parent / "constraints.txt").write_text("tiny==2.0\n")
    assert install(venv) is True
    assert installed(venv) == "2.0"
    assert install(venv, "tiny>1") is True


@pytest.mark.parametrize("text", ["", "{", "[]", '{"other": 1}', "\0"])
def test_an_unreadable_stamp_counts_as_none(tmp_path, text):
    (tmp_path / environments.STAMP).write_text(text)
    assert environments.read_stamp(tmp_path / environments.STAMP) is None


def test_a_failure_before_anything_changed_keeps_the_environment(venv):
    install(venv)
    with pytest.raises(DevError, match="no-such-package"):
        install(venv, "no-such-package")
    assert not (venv / environments.INSTALLING).exists()
    assert environments.read_stamp(venv / environments.STAMP) is None
    said = []
    environments.create_venv(venv, 0, said.append)
    assert said == [] and installed(venv) == "1.0"
    assert install(venv) is True


def test_a_failure_while_packages_change_makes_it_anew(venv):
    """A wheel that breaks off during its installation: pip has begun to change the environment."""
    wheel = venv.parent / "wheels" / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("../../../outside.py", "")
    with pytest.raises(DevError, match="pip failed"):
        install(venv)
    assert (venv / environments.INSTALLING).exists()
    make_wheel(venv.parent / "wheels", "tiny", "1.0")
    said = []
    environments.create_venv(venv, 0, said.append)
    assert "cut off" in said[0]
    assert install(venv) is True and installed(venv) == "1.0"


def test_an_interrupted_installation_makes_it_anew_and_spares_what_is_not_of_it(venv):
    (venv / environments.INSTALLING).touch()
    (venv / "lib" / "leftover").touch()
    (venv / "thesis.txt").write_text("years of work")
    environments.create_venv(venv, 0, lambda line: None)
    assert not (venv / "lib" / "leftover").exists() and _works(venv)
    assert (venv / "thesis.txt").read_text() == "years of work"


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


def test_an_environment_of_somebody_else_can_be_installed_into(venv):
    (venv / environments.MARKER).unlink()
    environments.create_venv(venv, 0, lambda line: None)
    assert install(venv) is True and installed(venv) == "1.0"
    assert not (venv / environments.MARKER).exists()


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
    said = []
    environments.create_venv(venv, 0, said.append)
    assert "does not run" in said[0]
    assert install(venv) is True


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


@pytest.mark.parametrize(
    ("output", "hint"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "disk is full",
        ),
        (
            "WARNING: Retrying ... NewConnectionError(': Failed to establish a new connection')",
            "check the network",
        ),
        ("ReadTimeoutError: Read timed out.", "interrupted"),
        ("ERROR: No matching distribution found for torch==2.11.0", "3.12"),
        ("ERROR: something nobody has seen", "see the log"),
    ],
)
def test_pip_failures_say_what_to_do(output, hint, tmp_path):
    message = environments.explain_pip_failure("Collecting x\n" + output, tmp_path / "log")
    assert hint in message and output in message and str(tmp_path / "log") in message
