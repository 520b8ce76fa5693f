"""Folders of models that transformers and diffusers read, whose errors are of any type for a damaged one."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .checkpoints.folders import INDEX_SUFFIX, listed_shards
from .foreign_files import CONFIG, bounded_by_files, check_files
from .out_of_memory import is_out_of_memory
from .text import listed, shown


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
        kind: the library failed, a package that the model needs is missing, or a file of the folder asks for
            what is not in it, see `check_files`; exhausted memory stays as it is.
    """
    with _as_kind(kind):
        check_files(Path(folder))
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if isinstance(error, ImportError):
            raise kind(
                f"{shown(folder, 100)} needs a package that is not here to be read as {what} "
                f"({shown(error, 160)}); install it, or give another folder"
            ) from error
        raise kind(
            f"{library} cannot load {shown(folder, 100)} as {what} ({shown(error, 120)}); download it again, "
            "or give another folder"
        ) from error


@contextmanager
def _as_kind(kind: type[Exception]) -> Iterator[None]:
    """Errors of a check as the kind that the caller expects."""
    try:
        yield
    except ValueError as error:
        raise kind(str(error)) from error


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
    if not (Path(folder) / CONFIG).is_file():
        return f"{user}: {shown(folder)} holds no config.json; give the folder of {what}"
    return None


def load_weights(
    library: str,
    network: type,
    folder: str | Path,
    what: str,
    kind: type[Exception] = ValueError,
    unused: str = "$^",
    **options: Any,
) -> Any:
    """Load a network of transformers or diffusers, every parameter of it, from safetensors of a local folder.

    Args:
        library: of the network.
        network: class of the library.
        folder: the model's.
        what: it is read as, for errors.
        kind: of the error that is raised.
        unused: expression of the names of parameters which may be missing, as nothing computes with them.
        options: of the network's `from_pretrained`.

    Returns:
        The network, on the CPU.

    Raises:
        kind: weights in a pickle or outside of the folder, parameters that are missing or of another shape,
            or the library failed, see `loading`.
    """
    folder = Path(folder)
    _require_safetensors(folder, what, kind)
    # Tensors of other shapes are ignored by the library, so that they can be named below.
    strict = {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
    with loading(library, folder, what, kind), bounded_by_files(folder):
        if not (folder / CONFIG).is_file():  # a library would build the network that it knows best
            raise ValueError(f"{CONFIG} is not there")
        loaded, report = network.from_pretrained(folder, local_files_only=True, **strict, **options)
    # Each of these is left with random values.
    missing = sorted(name for name in report["missing_keys"] if not re.match(unused, name))
    if missing:
        raise kind(
            f"{shown(folder, 100)} is not {what}: it lacks {len(missing)} tensors "
            f"({listed(missing, 3, 80)}); download it again, or give another folder"
        )
    for name, size, expected in sorted(report["mismatched_keys"]):
        raise kind(
            f"{shown(folder, 100)} is not {what}: {shown(name, 60)} has the shape {shown(tuple(size), 40)}, "
            f"config.json asks for {shown(tuple(expected), 40)}; download it again, or give another folder"
        )
    return loaded


def _require_safetensors(folder: Path, what: str, kind: type[Exception]) -> None:
    """Refuse weights in pickles, and an index that leads out of the folder: the libraries read both."""
    pickles = sorted(file.name for file in folder.glob("*.bin"))
    if pickles and not any(folder.glob("*.safetensors*")):
        raise kind(
            f"{shown(folder, 100)} has {what} as {listed(pickles, 2, 60)}, which can run code; download its "
            ".safetensors instead, or write them where you trust the file, by the library's from_pretrained "
            "and save_pretrained"
        )
    # config.json may name one in a folder below (transformers_weights).
    for index in sorted(folder.rglob(f"*.safetensors{INDEX_SUFFIX}")):
        with _as_kind(kind):
            listed_shards(index)


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
        options: of `load_weights`.

    Returns:
        Processor, and network for inference.

    Raises:
        kind: see `load_weights`.
    """
    import torch

    with loading("transformers", folder, what, kind):
        reader = processor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    loaded = load_weights("transformers", network, folder, what, kind, trust_remote_code=False, **options)
    return reader, loaded.eval().to("cuda" if torch.cuda.is_available() else "cpu")
