"""Installations are complete, checked by hash, and repeated only when something else is asked for.

Real environments, with a small wheel from a local folder instead of PyPI, by uv and by pip.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from devtools import install as installations
from devtools import installer as installers
from devtools import venv as environments
from devtools.errors import DevError
from devtools.explain import explain_failure
from devtools.paths import python_of
from tests.support.packages import installed_uv, make_wheel, pin


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Path:
    """A new environment, made once; tests work on copies."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    environments.create_venv(folder, 0, print)
    return folder


@pytest.fixture(scope="module")
def uv_wheel(tmp_path_factory) -> Path | None:
    return installed_uv(tmp_path_factory.mktemp("uv"))


@pytest.fixture(scope="module")
def fresh_with_uv(fresh, uv_wheel, tmp_path_factory) -> Path:
    """The same after a first installation by uv, whose program has 50 MB."""
    folder = tmp_path_factory.mktemp("with_uv") / "venv"
    shutil.copytree(fresh, folder, symlinks=True, copy_function=os.link)
    command = [str(python_of(folder)), "-m", "pip", "install", "-q", "--no-index", "--no-deps", str(uv_wheel)]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture
def program(request, uv_wheel) -> str:
    """Name of the installer: uv unless a test asks for pip too."""
    name = getattr(request, "param", "uv")
    if name == "uv" and not uv_wheel:
        pytest.skip("this environment has no uv")
    return name


by_both = pytest.mark.parametrize("program", ["uv", "pip"], indirect=True)
by_pip = pytest.mark.parametrize("program", ["pip"], indirect=True)


@pytest.fixture
def venv(program, request, uv_wheel, tmp_path, monkeypatch) -> Path:
    """An environment next to a folder of wheels and the pins of one."""
    source = request.getfixturevalue("fresh_with_uv" if program == "uv" else "fresh")
    shutil.copytree(source, tmp_path / "venv", symlinks=True, copy_function=os.link)
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "tiny", "2.0")
    (tmp_path / "pins.txt").write_text(pin(make_wheel(wheels, "tiny", "1.0")))
    if program == "uv":
        os.link(uv_wheel, wheels / uv_wheel.name)
    (tmp_path / "uv.txt").write_text(pin(uv_wheel) if uv_wheel else f"uv==1 --hash=sha256:{'0' * 64}\n")
    monkeypatch.setattr(installers, "UV", tmp_path / "uv.txt")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "venv"


def install(venv: Path, *requirements: str, say=lambda line: None) -> bool:
    return installations.install(venv, venv.parent / "pins.txt", say, None, requirements)


def installed(venv: Path) -> str:
    command = [str(python_of(venv)), "-c", "import tiny; print(tiny.version)"]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=venv)
    return run.stdout.strip()


@by_both
def test_installs_what_is_pinned_once(venv, program):
    lines = []
    assert install(venv, say=lines.append) is True
    assert installed(venv) == "1.0"
    assert not (venv / environments.INSTALLING).exists() and not (venv / environments.SCRATCH).exists()
    assert ("no uv for this machine: pip installs" in lines[-1]) == (program == "pip")
    log = (venv / environments.LOG).read_text()
    assert ("Installed 1 package" in log) == (program == "uv")  # uv's words
    assert install(venv) is False


@by_pip
def test_pip_installs_where_uv_does_not_run(venv):
    """A package of that name that does nothing, as on a processor too old for it."""
    wheel = make_wheel(venv.parent / "wheels", "uv", "0.1")
    (venv.parent / "uv.txt").write_text(pin(wheel))
    lines = []
    assert install(venv, say=lines.append) is True and installed(venv) == "1.0"
    assert lines[-1].startswith("uv does not run on this machine: pip installs")


@by_both
def test_a_file_of_another_hash_is_refused(venv, program):
    """A wheel of the same name and version with one more module."""
    wheel = venv.parent / "wheels" / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("malware.py", "")
    with pytest.raises(DevError, match=rf"(?s){program} failed:.*not the file that was pinned"):
        install(venv)
    assert installed(venv) == ""
    assert not (venv / environments.INSTALLING).exists(), "nothing was changed: nothing need be rebuilt"


def test_a_package_without_a_hash_is_refused(venv):
    (venv.parent / "pins.txt").write_text("tiny==1.0\n")
    with pytest.raises(DevError, match="failed:"):
        install(venv)
    assert installed(venv) == ""


BACKEND = """
import shutil, tempfile
from pathlib import Path

def build_wheel(folder, config_settings=None, metadata_directory=None):
    Path("temporary").write_text(tempfile.gettempdir())
    return Path(shutil.copy(next(Path.cwd().glob("*.whl")), folder)).name
"""


def test_requirements_of_another_comfyui_come_after_the_pins_and_unpack_in_the_environment(venv):
    """Leftovers of a killed installer are in the folder that is rebuilt."""
    source = venv.parent / "source"
    make_wheel(source, "other", "1.0")
    (source / "pyproject.toml").write_text(
        '[project]\nname = "other"\nversion = "1.0"\n'
        '[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n'
    )
    (source / "own.py").write_text(BACKEND)
    lines = []
    assert install(venv, f"other @ {source.as_uri()}", "tiny>=1", say=lines.append) is True
    assert "1 requirements" in lines[1] or "2 requirements" in lines[1]
    assert installed(venv) == "1.0"
    temporary = Path((source / "temporary").read_text())
    assert venv in temporary.parents and not temporary.exists()
    assert install(venv) is True, "without them something else is asked for"


def test_a_pip_that_is_set_to_install_elsewhere_is_refused(tmp_path, monkeypatch):
    """It would leave the environment without its packages, and the stamp would say that it is complete."""
    config = tmp_path / "pip.conf"
    config.write_text("[install]\nprefix = /opt/all\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DevError, match=r"elsewhere \(prefix = /opt/all\): unset PIP_PREFIX, or"):
        installers.require_own_target(Path(sys.executable))
    monkeypatch.setenv("PIP_TARGET", "/opt/more")
    with pytest.raises(DevError, match=r"elsewhere \(target = /opt/more\): unset PIP_TARGET"):
        installers.require_own_target(Path(sys.executable))


@by_pip
@pytest.mark.parametrize("name", ["PIP_DRY_RUN", pytest.param("PIP_USER", marks=pytest.mark.full)])
def test_habits_of_pip_do_not_hinder_an_installation(venv, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert install(venv) is True and installed(venv) == "1.0"


def test_other_pins_install_again(venv):
    install(venv)
    (venv.parent / "pins.txt").write_text(pin(venv.parent / "wheels" / "tiny-2.0-py3-none-any.whl"))
    assert install(venv) is True
    assert installed(venv) == "2.0"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"other": 1}', "\0"])
def test_an_unreadable_stamp_counts_as_none(tmp_path, text):
    (tmp_path / environments.STAMP).write_text(text)
    assert installations.read_stamp(tmp_path / environments.STAMP) is None


@by_both
def test_a_failure_before_anything_changed_keeps_the_environment(venv):
    install(venv)
    good = (venv.parent / "pins.txt").read_text()
    (venv.parent / "pins.txt").write_text(f"no-such-package==1 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(DevError, match="no-such-package"):
        install(venv)
    assert not (venv / environments.INSTALLING).exists()
    assert installations.read_stamp(venv / environments.STAMP) is None
    lines = []
    environments.create_venv(venv, 0, lines.append)
    assert lines == [] and installed(venv) == "1.0"
    (venv.parent / "pins.txt").write_text(good)
    assert install(venv) is True


@by_pip
def test_a_failure_while_packages_change_makes_it_again(venv):
    """A second package breaks off when the first is replaced (uv unpacks all before it replaces any)."""
    install(venv)
    wheels = venv.parent / "wheels"
    broken = make_wheel(wheels, "broken", "1.0")
    with zipfile.ZipFile(broken, "a") as archive:
        archive.writestr("broken.py/module.py", "")
    (venv.parent / "pins.txt").write_text(pin(wheels / "tiny-2.0-py3-none-any.whl") + pin(broken))
    with pytest.raises(DevError, match="failed:"):
        install(venv)
    assert (venv / environments.INSTALLING).exists()
    lines = []
    environments.create_venv(venv, 0, lines.append)
    assert "cut off" in lines[0]
    (venv.parent / "pins.txt").write_text(pin(wheels / "tiny-1.0-py3-none-any.whl"))
    assert install(venv) is True and installed(venv) == "1.0"


def test_an_environment_of_somebody_else_can_be_installed_into(venv):
    (venv / environments.MARKER).unlink()
    environments.create_venv(venv, 0, lambda line: None)
    assert install(venv) is True and installed(venv) == "1.0"
    assert not (venv / environments.MARKER).exists()


def test_uv_gets_what_pip_is_told(tmp_path, monkeypatch):
    """An index of the company and its certificates, in pip.conf and in variables."""
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://a.example/simple\ncert = /a.pem\n[install]\ntrusted-host = h\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://b.example/simple https://c.example/simple")
    for name in ("PIP_FIND_LINKS", "PIP_CERT", "PIP_NO_INDEX", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(installers, "_links_from", lambda cache, scratch: False)
    uv = installers.uv_installer(Path(sys.executable), tmp_path, tmp_path)
    words = " ".join(uv.command)
    for option in (
        "--default-index https://a.example/simple",
        "--index https://b.example/simple --index https://c.example/simple",
        "--allow-insecure-host h",
    ):
        assert option in words
    assert uv.variables["SSL_CERT_FILE"] == "/a.pem" and "--no-index" not in words
    assert uv.variables["UV_CACHE_DIR"] == str(tmp_path / "uv"), "on another disk nothing can be linked"


@pytest.mark.parametrize(
    ("output", "hint"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left", "disk is full"),
        ("error: failed to copy file: No space left on device (os error 28)", "disk is full"),
        ("WARNING: Retrying ... NewConnectionError(': Failed to establish')", "check the network"),
        ("  Caused by: dns error: failed to lookup address information", "check the network"),
        ("ReadTimeoutError: Read timed out.", "interrupted"),
        ("invalid peer certificate: UnknownIssuer", "PIP_CERT"),
        ("ERROR: No matching distribution found for torch==2.11.0", "3.12"),
        ("error: No solution found when resolving dependencies:", "3.12"),
        ("ERROR: something nobody has seen", "see the log"),
    ],
)
def test_failures_say_what_to_do(output, hint, tmp_path):
    message = str(explain_failure("pip", "Collecting x\n" + output, tmp_path / "log"))
    assert hint in message and output in message and str(tmp_path / "log") in message
