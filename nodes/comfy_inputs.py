"""Files of ComfyUI's folders: videos to load, the pack's examples, and scratch files."""

import logging
import os
import shutil
from pathlib import Path

import folder_paths

from ..vdot_core.files import new_file
from ..vdot_core.text import shown

EXAMPLES = Path(__file__).resolve().parents[1] / "assets" / "examples"
_log = logging.getLogger("vdot")


def list_clips() -> list[str]:
    """Names of the videos in ComfyUI's input folder."""
    try:
        with os.scandir(folder_paths.get_input_directory()) as entries:
            names = [entry.name for entry in entries if entry.is_file()]
    except OSError:
        return []
    return sorted(folder_paths.filter_files_content_types(names, ["video"]))


def missing_clip(name: str) -> str:
    """Why a name cannot be opened; empty where it can."""
    if not isinstance(name, str) or not name:
        return "no video is chosen; upload one, or connect a VIDEO"
    if not folder_paths.exists_annotated_filepath(name):
        return f"there is no video '{shown(name)}' in ComfyUI's input folder; upload it, or choose another"
    return ""


def clip_path(name: str) -> Path:
    """The file of a name.

    Raises:
        ValueError: there is none.
    """
    if problem := missing_clip(name):
        raise ValueError(problem)
    return Path(folder_paths.get_annotated_filepath(name))


def scratch_folder() -> Path:
    """ComfyUI's folder for temporary files, which it clears when it starts and ends."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def clip_version(name: str) -> object:
    """A value that changes with the file's content; None where there is no file."""
    if missing_clip(name):
        return None
    status = os.stat(folder_paths.get_annotated_filepath(name))
    # A file that is copied with its time, over one of its size, has another number or time of change.
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns


def install_examples() -> None:
    """Copy the workflows' examples into ComfyUI's input folder; a file that is there stays as it is.

    Called at every start, so that an update's new examples appear too. A folder that cannot be written to is
    logged once: the workflows then ask for other files.
    """
    folder = Path(folder_paths.get_input_directory())
    try:
        for example in sorted(EXAMPLES.iterdir()):
            target = folder / example.name
            if not os.path.lexists(target):
                with new_file(target, overwrite=False) as partial:
                    shutil.copyfile(example, partial)
    except (ValueError, OSError) as error:
        _log.warning("the examples could not be copied to %s: %s", folder, shown(error))
