"""Names of the files of a manifest's rows, which do not change when both are moved."""

from __future__ import annotations

import hashlib
import os

from .video_files import local_path


def relative_name(path: str, manifest: str) -> str:
    """A file's path from its manifest's folder, so that moving both changes nothing; others are unchanged."""
    return path.removeprefix(manifest.replace("\\", "/").rpartition("/")[0]).lstrip("/")


def clip_file(path: str, manifest: str) -> str:
    """As `relative_name`, equal for all spellings of one path: "a.mp4", "./a.mp4", "b/../a.mp4".

    Links are not followed: a linked file has the content of its other name, which `held_out.copies` compares.
    """
    folder = _plain(manifest).rpartition("/")[0]
    plain = _plain(path)
    if folder and plain.startswith(f"{folder}/"):
        return plain[len(folder) :].lstrip("/")
    return _without_dots(relative_name(path, manifest))


def name_digest(name: str) -> str:
    """Name of the clip in a file that is named so."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _plain(path: str) -> str:
    local = local_path(path)
    return _without_dots(path) if local is None else os.path.abspath(local).replace(os.sep, "/")


def _without_dots(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and parts and parts[-1] not in ("", ".."):
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
