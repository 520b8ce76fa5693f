"""Folders of models that transformers and diffusers read, whose errors are of any type for a damaged one."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .out_of_memory import is_out_of_memory
from .text import shown


class UnusableModelError(RuntimeError):
    """A model cannot be read: every clip would fail alike, so none is to blame."""


@contextmanager
def loading(
    library: str, folder: str | Path, what: str, kind: type[Exception] = ValueError
) -> Iterator[None]:
    """Tell in words why a library cannot read a folder: `with loading("diffusers", path, "a VAE"): ...`.

    Args:
        library: that reads it.
        folder: the model's.
        what: it is read as.
        kind: of the error that is raised.

    Raises:
        kind: the library failed; exhausted memory and packages that are missing stay as they are.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, ImportError):
            raise
        raise kind(
            f"{library} cannot load {shown(folder, 100)} as {what} ({shown(error, 120)}); download it again, "
            "or give another folder"
        ) from error


def missing_model(user: str, folder: str | Path | None, what: str, purpose: str = "") -> str | None:
    """Sentence on a model of transformers that cannot be run here; None where it can.

    Args:
        user: of the model, such as a setting.
        folder: the model's.
        what: the folder should hold, such as "a CLIP of transformers".
        purpose: of the package, after its name.
    """
    if not importlib.util.find_spec("transformers"):
        return f"{user} needs transformers{purpose}: `pip install transformers`"
    if not (Path(folder) / "config.json").is_file():
        return f"{user}: {shown(folder)} holds no config.json; give the folder of {what}"
    return None


def load_transformers(
    folder: str | Path,
    what: str,
    network: type,
    processor: type,
    kind: type[Exception] = UnusableModelError,
    **options: Any,
) -> tuple[Any, Any]:
    """Load a model of transformers from a local folder, whose code is never run, on the GPU if there is one.

    Args:
        folder: the model's.
        what: it is read as, for errors.
        network, processor: classes of transformers.
        kind: of the error that is raised.
        options: of the network's `from_pretrained`.

    Returns:
        Processor, and network for inference.

    Raises:
        kind: transformers failed, see `loading`.
    """
    import torch

    local = {"local_files_only": True, "trust_remote_code": False}
    with loading("transformers", folder, what, kind):
        reader = processor.from_pretrained(folder, **local)
        loaded = network.from_pretrained(folder, use_safetensors=True, **options, **local)
    return reader, loaded.eval().to("cuda" if torch.cuda.is_available() else "cpu")
