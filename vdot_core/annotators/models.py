"""The annotators' files: where they lie, and how the .tflite networks among them are run.

`fetch.py` puts them into a folder of the user's cache; nothing is downloaded here.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..files import sha256_of
from ..text import shown
from .fetch import model_files, model_folder

CURE = "run `python vdot_core/annotators/fetch.py` in the pack's folder, once"


def missing_files(name: str, *files: str) -> str | None:
    """A sentence on the files that are not in the folder; None where all are."""
    absent = [file for file in files if not (model_folder() / file).is_file()]
    if not absent:
        return None
    return f"{name} lacks {', '.join(absent)} in {shown(model_folder())}; {CURE}"


def missing_models(name: str, *files: str) -> str | None:
    """What an annotator lacks, in a sentence; None where its package and its files are there."""
    absent = missing_files(name, *files)
    if not importlib.util.find_spec("ai_edge_litert"):
        return f"{name} needs LiteRT: `pip install ai-edge-litert`" + (f"; then {CURE}" if absent else "")
    return absent


def checked_path(file: str) -> Path:
    """The path of a file that is the one in `files.json`.

    Raises:
        ValueError: It is another one.
        OSError: It is missing.
    """
    path = model_folder() / file
    if sha256_of(path) != model_files()[file]["sha256"]:
        raise ValueError(f"{shown(path)} is damaged or another file; remove it, and {CURE}")
    return path


class Model:
    """A .tflite network on one thread.

    Args:
        file: Its name in `files.json`.

    Raises:
        ValueError: The file is missing, or is not the one that `files.json` names.
    """

    def __init__(self, file: str) -> None:
        from ai_edge_litert.interpreter import Interpreter

        # LiteRT reads whatever it is given without a check.
        self._interpreter = Interpreter(str(checked_path(file)), num_threads=1)
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        self.height, self.width = (int(side) for side in self._input["shape"][1:3])

    def __call__(self, picture: np.ndarray) -> list[np.ndarray]:
        """The outputs for one picture [H, W, 3] float32 of the network's size."""
        self._interpreter.set_tensor(self._input["index"], picture[None].astype(np.float32))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(output["index"])[0] for output in self._outputs]


@lru_cache(maxsize=8)
def load_model(file: str) -> Model:
    """A model, read at its first use."""
    return Model(file)
