"""The networks' workload for one micro-batch, in tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vdot_core.networks import WanVaceConfig
from vdot_core.vcu import VAE_STRIDE

if TYPE_CHECKING:
    from ..data.batch import Batch


@dataclass(frozen=True)
class Clip:
    """The size of a training clip.

    Attributes:
        width, height: In pixels.
        num_frames: 4n + 1 pixel frames.
        num_references: Reference images, each one more latent frame.
        num_contexts: Contexts (units that are not merged into one); 0: text alone.
    """

    width: int = 832
    height: int = 480
    num_frames: int = 81
    num_references: int = 0
    num_contexts: int = 1

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.num_frames % VAE_STRIDE[0] != 1:
            raise ValueError(f"num_frames is {self.num_frames}; a Wan VAE takes 4n + 1 frames, such as 81")
        for name in ("width", "height"):
            if getattr(self, name) < 16 or getattr(self, name) % 16:
                raise ValueError(f"{name} is {getattr(self, name)}; give a multiple of 16 pixels")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(T, h, w) of the latents, references included."""
        frames = (self.num_frames - 1) // VAE_STRIDE[0] + 1 + self.num_references
        return frames, self.height // VAE_STRIDE[1], self.width // VAE_STRIDE[2]


@dataclass(frozen=True)
class Workload:
    """One forward pass.

    Attributes:
        batch: B samples.
        tokens: L video tokens of a sample.
        text_tokens: S text tokens of a sample.
        contexts: K contexts of a sample; 0 leaves the VACE branch out.
    """

    batch: int
    tokens: int
    text_tokens: int
    contexts: int

    @classmethod
    def of(cls, network: WanVaceConfig, clip: Clip, batch: int = 1) -> Workload:
        """The pass of a network over clips.

        Args:
            network: its sizes; without VACE layers, contexts do not count.
            clip: what each sample is.
            batch: samples.

        Returns:
            The workload.
        """
        grid = (-(-size // patch) for size, patch in zip(clip.latent_shape, network.patch_size, strict=True))
        contexts = clip.num_contexts if network.vace_layers else 0
        return cls(batch, math.prod(grid), network.text_len, contexts)

    @classmethod
    def of_batch(cls, network: WanVaceConfig, batch: Batch) -> Workload:
        """The pass of a network over one sample of a micro-batch."""
        grid = (-(-size // patch) for size, patch in zip(batch.shape[1:], network.patch_size, strict=True))
        contexts = 0 if batch.contexts is None else batch.contexts.shape[1]
        return cls(1, math.prod(grid), batch.text.shape[1], contexts)
