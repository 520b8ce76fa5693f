"""Tells the files of an environment from files that a person put into its folder, which are never deleted.

venv's files are known by name and content, installed ones by the RECORD that pip and uv write, scripts by the
interpreter that they start. `site-packages` belongs to the environment with all that is in it.
"""

import csv
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

SCRIPT_FOLDERS = ("bin", "Scripts")
LIBRARY_FOLDERS = ("lib", "lib64", "Lib")
SHARED_FOLDERS = ("include", "Include", "share")
VENV_SCRIPTS = re.compile(r"activate(\.\w+)?|Activate\.ps1|deactivate\.bat")
PYTHON_LINKS = re.compile(r"(python|\U0001d70bthon)[0-9.t]*")
WINDOWS_PYTHONS = re.compile(r"(python|venvlauncher)w?[0-9.t]*(_d)?\.exe")
SCRIPT_START_BYTES = 1024


def is_own_file(path: Path, start: str) -> bool:
    """True for a regular file, not a link, that begins with this text."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        with open(path, "rb") as file:
            return file.read(len(start.encode())) == start.encode()
    except OSError:
        return False


def foreign_files(venv: Path) -> list[str]:
    """Files in an environment's folders that neither venv nor an installer wrote, relative to it.

    Args:
        venv: the environment's folder.

    Returns:
        Their paths, sorted; links count as files and are not followed.
    """
    recorded = _recorded(venv)
    return sorted(
        path.relative_to(venv).as_posix()
        for path in _files(venv)
        if str(path) not in recorded and not _is_of_venv(venv, path)
    )


def _files(venv: Path) -> Iterator[Path]:
    """Files and links in the folders that an environment has, without those of `site-packages`."""
    for name in (*SCRIPT_FOLDERS, *LIBRARY_FOLDERS, *SHARED_FOLDERS):
        top = venv / name
        if top.is_symlink():
            if name != "lib64":  # venv's link to lib
                yield top
            continue
        if top.exists() and not top.is_dir():
            yield top
        for folder, folders, names in os.walk(top):
            packages = [name for name in folders if _is_packages(venv, Path(folder, name))]
            links = [name for name in folders if Path(folder, name).is_symlink()]
            folders[:] = [name for name in folders if name not in packages and name not in links]
            yield from (Path(folder, name) for name in (*links, *names))


def _is_packages(venv: Path, folder: Path) -> bool:
    """True for lib/pythonX.Y/site-packages and Windows's Lib/site-packages."""
    top, *middle = folder.relative_to(venv).parts[:-1]
    is_library = top in LIBRARY_FOLDERS and len(middle) <= 1 and "".join(middle).startswith("python")
    return (
        folder.name == "site-packages"
        and not folder.is_symlink()
        and (is_library or (top, middle) == ("Lib", []))
    )


def _recorded(venv: Path) -> set[str]:
    """Paths in the environment that the installed packages' RECORD files list."""
    paths = set()
    for library in ("lib/python*", "Lib"):
        for record in venv.glob(f"{library}/site-packages/*.dist-info/RECORD"):
            packages = record.parent.parent
            try:
                with open(record, encoding="utf-8", errors="replace", newline="") as file:
                    rows = [row[0] for row in csv.reader(file) if row]
            except (OSError, csv.Error):
                continue
            paths.update(os.path.normpath(packages / row) for row in rows)
    return paths


def _is_of_venv(venv: Path, path: Path) -> bool:
    if path.parent.parent != venv or path.parent.name not in SCRIPT_FOLDERS:
        return False
    if path.is_symlink():
        return bool(PYTHON_LINKS.fullmatch(path.name))
    if not path.is_file():
        return False
    if VENV_SCRIPTS.fullmatch(path.name) or (os.name == "nt" and WINDOWS_PYTHONS.fullmatch(path.name)):
        return True
    # The line that starts this environment's Python; pip writes it into the second line if the path is long.
    with open(path, "rb") as file:
        start = file.read(SCRIPT_START_BYTES)
    return start.startswith(b"#!") and os.fsencode(path.parent / "python") in b"\n".join(
        start.splitlines()[:3]
    )
