"""ComfyUI's part of VDOT Long Video: file names, weights' identity, the VAE's decoding, progress.

Shape letters: T latent frames, h w latents, F pixel frames, H W pixels.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import comfy.latent_formats
import comfy.model_management
import folder_paths
import torch

from ..vdot_core.files import reason_of
from ..vdot_core.text import shown
from .comfy_checks import require_numbers
from .comfy_vae import CURE_OF_NAN

RECORD_SUFFIX = "_unfinished"
MAX_PREFIX = 150


def vae_decoder(vae) -> Callable[[torch.Tensor], torch.Tensor]:
    """ComfyUI's VAE as vdot_core wants it: latents [1, 16, T, h, w] -> [1, F, H, W, 3] in [0, 1]."""
    latent_format = comfy.latent_formats.Wan21()

    def decode(latents: torch.Tensor) -> torch.Tensor:
        frames = vae.decode(latent_format.process_out(latents.float()))
        require_numbers(frames, "the video, after the VAE decoded it,", CURE_OF_NAN)
        return (frames if frames.ndim == 5 else frames[None]).float()

    return decode


def to_network_space(latents: torch.Tensor) -> torch.Tensor:
    """Raw latents of the sampler -> the network's space, as everything between encoding and decoding."""
    return comfy.latent_formats.Wan21().process_in(latents.as_subclass(torch.Tensor).float())


def identity_of(model) -> str:
    """Hash of a model's weights and of what LoRAs and other patches add to them; independent of the session.

    Args:
        model: a MODEL, or the patcher of a VAE.
    """
    from ..vdot_core.sampling.long import digest_of, sampled_digest

    originals = {key: entry.weight for key, entry in getattr(model, "backup", {}).items()}
    weights = {key: originals.get(key, value) for key, value in model.model.named_parameters()}
    patches, described = {}, []
    for key, entries in sorted(model.patches.items()):
        for number, (strength, adapter, model_strength, *_) in enumerate(entries):
            described.append(f"{key} {strength} {model_strength}")
            parts = getattr(adapter, "weights", adapter)
            parts = parts if isinstance(parts, (list, tuple)) else [parts]
            for place, part in enumerate(parts):
                if isinstance(part, torch.Tensor):
                    patches[f"{key} {number} {place}"] = part
    return digest_of(sampled_digest(weights), sampled_digest(patches), described)


def new_paths(prefix: str, width: int, height: int) -> tuple[Path, Path]:
    """The next free file of a prefix in ComfyUI's output folder, and the folder of its record.

    Raises:
        ValueError: the prefix leads elsewhere, or the folder cannot be made.
    """
    folder, name, counter = _placed(prefix, width, height)
    file = folder / f"{name}_{counter:05}_.mp4"
    return file, file.with_name(file.stem + RECORD_SUFFIX)


def unfinished_paths(prefix: str, width: int, height: int) -> tuple[Path, Path]:
    """The newest unfinished video of a prefix.

    Raises:
        ValueError: there is none, and as for `new_paths`.
    """
    folder, name, _ = _placed(prefix, width, height)
    records = sorted(folder.glob(f"{glob.escape(name)}_*{RECORD_SUFFIX}"))
    if not records:
        raise ValueError(
            f"there is no unfinished video {shown(prefix, 60)} to resume; turn resume off, or give the "
            "filename_prefix that it was begun with"
        )
    record = records[-1]
    return record.with_name(record.name.removesuffix(RECORD_SUFFIX) + ".mp4"), record


def _placed(prefix: str, width: int, height: int) -> tuple[Path, str, int]:
    """Folder, name and next number of a prefix."""
    output = os.path.realpath(folder_paths.get_output_directory())
    if not prefix.isprintable() or not os.path.basename(prefix) or len(prefix) > MAX_PREFIX:
        raise ValueError(
            f"filename_prefix is '{shown(prefix, 60)}', expected a name such as video/VDOT_long of at most "
            f"{MAX_PREFIX} characters"
        )
    if os.path.commonpath([output, os.path.realpath(os.path.join(output, prefix))]) != output:
        raise ValueError(
            f"filename_prefix {shown(prefix, 60)} leaves ComfyUI's output folder; give a name such as "
            "video/VDOT_long"
        )
    try:
        folder, name, counter, _, _ = folder_paths.get_save_image_path(prefix, output, width, height)
    except OSError as error:
        raise ValueError(f"cannot write {shown(prefix, 60)}: {reason_of(error)}") from error
    return Path(folder), name, counter


def described_file(file: Path) -> dict:
    """A file of the output folder as ComfyUI's page wants it."""
    subfolder = os.path.relpath(file.parent, folder_paths.get_output_directory())
    return {"filename": file.name, "subfolder": "" if subfolder == "." else subfolder, "type": "output"}


@contextmanager
def only_interrupts():
    """Loops of vdot_core can be interrupted, and leave the progress bar to the sampler."""
    from ..vdot_core.progress import reporting

    with reporting(lambda *_: comfy.model_management.throw_exception_if_processing_interrupted()):
        yield
