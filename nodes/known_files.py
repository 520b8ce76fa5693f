"""The files that VDOT Load offers: those that are there, likely ones first, and those to be downloaded."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from functools import lru_cache

from ..vdot_core.files import open_file, version_of
from ..vdot_core.text import shown
from .comfy_files import MODEL_FOLDER, TEXT_FOLDER, VAE_FOLDER, file_path, list_files

DEMO = "bundled demo"
NOT_DOWNLOADED = " (not downloaded)"
WAN_REPACKAGED = "https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged/tree/main/split_files"
# Names, the most fitting ones first. A file whose name says nothing is looked into.
LIKELY = {
    MODEL_FOLDER: (r"vdot", r"vace", r"wan.*t2v", r"wan"),
    TEXT_FOLDER: (r"umt5.*xxl", r"umt5", r"t5"),
    VAE_FOLDER: (r"wan.?2.?1.*vae", r"wan(?!.?2.?2)", r"wan"),
}
SIGNS = ((b'"vdot_format"', 0), (b"vace_blocks.", 1), (b"vace_patch_embedding", 1))
HEAD_BYTES = 65536
SECONDS_FOR_HEADS = 0.25


@dataclass(frozen=True)
class KnownFile:
    """A published file that VDOT Load can tell where to get.

    Args:
        name: of the file.
        folder: ComfyUI's kind of folder.
        url: page that offers it.
        size: in words.
        more: a further sentence.
    """

    name: str
    folder: str
    url: str
    size: str
    more: str = ""

    @property
    def advice(self) -> str:
        """Its address, and the folder to put it into."""
        return (
            f"{self.name} is not there: download it ({self.size}) from {self.url} to models/{self.folder} "
            f"and press R.{self.more}"
        )


KNOWN = (
    KnownFile(
        "vdot_14b.pt",
        MODEL_FOLDER,
        "https://huggingface.co/yutongwang1012/VDOT",
        "34.7 GB",
        " It loads as it is; half as large after (README, Weights): python -m vdot_core.checkpoints "
        "convert vdot_14b.pt vdot_14b_fp8_scaled.safetensors --dtype fp8_scaled",
    ),
    KnownFile(
        "umt5_xxl_fp8_e4m3fn_scaled.safetensors", TEXT_FOLDER, f"{WAN_REPACKAGED}/text_encoders", "6.7 GB"
    ),
    KnownFile("wan_2.1_vae.safetensors", VAE_FOLDER, f"{WAN_REPACKAGED}/vae", "0.25 GB"),
)


def choices(folder: str) -> list[str]:
    """The demo, the files that are there, and those to be downloaded."""
    names = list_files(folder)
    present = {_base(name) for name in names}
    missing = [known.name for known in KNOWN if known.folder == folder and known.name not in present]
    return [DEMO, *ranked(folder, names), *(name + NOT_DOWNLOADED for name in missing)]


def ranked(folder: str, names: list[str]) -> list[str]:
    """Names in the order in which they are likely to be meant; equal ones stay in theirs."""
    until = time.monotonic() + SECONDS_FOR_HEADS
    return sorted(names, key=lambda name: _rank(folder, name, until))


def find_choice(folder: str, choice: str):
    """The file of a choice; None for the demo.

    Raises:
        ValueError: it is not there; says where to get it, if that is known.
    """
    if choice == DEMO:
        return None
    name = choice.removesuffix(NOT_DOWNLOADED)
    names = list_files(folder)
    if name in names:
        return file_path(folder, name)
    known = next((known for known in KNOWN if known.name == name and known.folder == folder), None)
    if known is None:
        return file_path(folder, name)
    in_subfolder = next((listed for listed in names if _base(listed) == name), None)
    if in_subfolder is None:
        raise ValueError(known.advice)
    return file_path(folder, in_subfolder)


def missing_choice(folder: str, choice: object) -> str:
    """Why a choice cannot be loaded; empty where its file is there."""
    if choice is None:  # it comes over a link, and is not made yet
        return ""
    if not isinstance(choice, str):
        return f"{shown(choice, 60)} is no name of a file; pick one in the menu"
    try:
        find_choice(folder, choice)
    except ValueError as error:
        return str(error)
    return ""


def _base(name: str) -> str:
    return re.split(r"[/\\]", name)[-1]


def _rank(folder: str, name: str, until: float) -> int:
    patterns = LIKELY[folder]
    for rank, pattern in enumerate(patterns):
        if re.search(pattern, name, re.IGNORECASE):
            return rank
    if folder != MODEL_FOLDER or not name.endswith(".safetensors") or time.monotonic() > until:
        return len(patterns)
    return _rank_of_content(folder, name, len(patterns))


def _rank_of_content(folder: str, name: str, otherwise: int) -> int:
    try:
        path = os.fspath(file_path(folder, name))
        head = _head(path, version_of(path))
    except (ValueError, OSError):
        return otherwise
    return next((rank for sign, rank in SIGNS if sign in head), otherwise)


@lru_cache(maxsize=8192)
def _head(path: str, version: tuple[int, ...]) -> bytes:
    """The signs that the start of a file has: its header names its tensors."""
    with open_file(path) as file:
        start = file.read(HEAD_BYTES)
    return b" ".join(sign for sign, _ in SIGNS if sign in start)
