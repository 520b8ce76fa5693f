"""What a row shows a model, at the size and length of its video.

Letters: F pixel frames, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vdot_core import vcu
from vdot_core.vcu.unit import GRAY

from ..data.bad_rows import BadRowError
from ..data.video_files import Media, fit, own_size, read_clip
from .config import EvaluateConfig
from .index import Sample

FRAME_TOLERANCE = 1  # two codecs of one clip may differ by a frame


@dataclass(frozen=True, eq=False)
class Conditions:
    """A row's clips.

    Attributes:
        frames: [F, H, W, 3] float in [0, 1]: the control, or the clip of which something is kept; gray where
            there is none.
        mask: [F, H, W] of 0 and 1, 1 = generate.
        references: Pictures [H', W', 3] float in [0, 1].
        has_source: The row has a clip.
    """

    frames: Tensor
    mask: Tensor
    references: tuple[Tensor, ...]
    has_source: bool

    def unit(self) -> vcu.VCU:
        """The unit that a network is shown: source and mask as they are, as VACE's own runner does."""
        return vcu.VCU(self.frames, self.mask, self.references)


def load_conditions(sample: Sample, config: EvaluateConfig) -> Conditions:
    """Read a row's files.

    Args:
        sample: The row.
        config: Size, length and rate.

    Raises:
        BadRowError: A file cannot be decoded, or source and mask do not fit each other.
    """
    source, mask = (_clip(path, config) for path in (sample.source, sample.mask))
    lengths = {len(clip) for clip in (source, mask) if clip is not None and len(clip) > 1}
    if lengths and max(lengths) - min(lengths) > FRAME_TOLERANCE:
        raise BadRowError(
            "misshapen",
            f"src_video and src_mask have {max(lengths)} and {min(lengths)} frames; give both one length",
        )
    length = vcu.snap_length(min(lengths, default=config.num_frames))
    first = source if source is not None else mask
    if config.width is not None:
        width, height = config.width, config.height
    elif first is None:
        width, height = own_size(832, 480, config.max_pixels)
    else:
        width, height = own_size(first.shape[2], first.shape[1], config.max_pixels)
    frames = torch.full((length, height, width, 3), GRAY)
    if source is not None:
        frames = _lasting(fit(source[:length], width, height, "cover"), length)
    generate = torch.ones(length, height, width)
    if mask is not None:
        generate = _lasting((fit(mask[:length], width, height, "cover").mean(-1) > 0.5).float(), length)
    return Conditions(frames, generate, tuple(map(_picture, sample.references)), source is not None)


def _clip(path, config: EvaluateConfig) -> Tensor | None:
    return (
        None if path is None else read_clip(Media(str(path)), config.frame_rate, config.num_frames)[..., :3]
    )


def _lasting(clip: Tensor, length: int) -> Tensor:
    """A picture as a clip of it."""
    return clip if len(clip) == length else clip[:1].expand(length, *clip.shape[1:])


def _picture(path: Path) -> Tensor:
    """A reference, on white where it has alpha."""
    picture = read_clip(Media(str(path)), 1.0, 1)[0].float() / 255
    if picture.shape[-1] == 3:
        return picture
    alpha = picture[..., 3:]
    return picture[..., :3] * alpha + (1 - alpha)


def fit_video(video: Tensor, conditions: Conditions) -> tuple[Tensor, Conditions]:
    """A video and its conditions in one size and length: the conditions follow the video.

    Args:
        video: [F, H, W, 3] uint8, of anyone's size.
        conditions: The row's.

    Returns:
        The video as float in [0, 1], and the conditions at its size, both of the shorter length.
    """
    length = min(len(video), len(conditions.frames))
    height, width = video.shape[1:3]
    frames = video[:length].float() / 255
    source, mask = conditions.frames[:length], conditions.mask[:length]
    if source.shape[1:3] != (height, width):
        source = vcu.cover(source, width, height)
        mask = (vcu.cover(mask[..., None].expand(*mask.shape, 3), width, height)[..., 0] > 0.5).float()
    return frames, Conditions(source, mask, conditions.references, conditions.has_source)
