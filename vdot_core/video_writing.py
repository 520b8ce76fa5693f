"""Writes a video as it is made, as a file that is playable at any time.

Letters: F frames, H W pixels, C channels of sound, N samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .files import reason_of
from .vcu.checks import real
from .videos import RATES

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import OutputContainer

CRF = 14
"""H.264's quality: hardly to be told from the frames."""
# Parts that each describe themselves: a file that was cut off plays up to there.
FRAGMENTS = {"movflags": "frag_keyframe+delay_moov+default_base_moof", "flush_packets": "1"}
# Without looking ahead and with a key frame every 16, what is written is soon in the file.
ENCODING = {"crf": str(CRF), "tune": "zerolatency", "g": "16"}
SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
"""AAC's."""


class VideoWriter:
    """Appends frames, and the sound of their time, to an open file.

    Args:
        container: open for writing.
        rate: frames per second.
        width, height: in pixels, even.
        sound: [C, N] float in [-1, 1], of which the first two channels are written; None = silent.
        sample_rate: of the sound, one of `SAMPLE_RATES`.
    """

    def __init__(
        self,
        container: OutputContainer,
        rate: Fraction,
        width: int,
        height: int,
        sound: Tensor | None,
        sample_rate: int,
    ):
        self.container, self.rate = container, rate
        self.video = container.add_stream("libx264", rate=rate, options=ENCODING)
        self.video.width, self.video.height, self.video.pix_fmt = width, height, "yuv420p"
        self.sound, self.sample_rate, self.audio = sound, sample_rate, None
        if sound is not None:
            layout = "stereo" if len(sound) > 1 else "mono"
            self.audio = container.add_stream("aac", rate=sample_rate, layout=layout)
        self.num_frames = self.num_samples = 0

    def write(self, frames: Tensor) -> None:
        """Append frames [F, H, W, 3] float in [0, 1]; the first can be jumped to."""
        import av
        from av.video.frame import PictureType

        for index, frame in enumerate(frames):
            pixels = (frame.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            picture.pts, picture.time_base = self.num_frames, 1 / self.rate
            picture.pict_type = PictureType.I if index == 0 else PictureType.NONE
            self._write_picture(picture)
            self.num_frames += 1
        self._write_sound(round(self.num_frames / self.rate * self.sample_rate))

    def _write_picture(self, picture: VideoFrame | None) -> None:
        for packet in self.video.encode(picture):
            packet.duration = int(1 / (self.rate * packet.time_base))  # or the last frame of a part has none
            self.container.mux(packet)

    def _write_sound(self, stop: int) -> None:
        if self.audio is None:
            return
        import av

        part = self.sound[:2, self.num_samples : stop].float().clamp(-1, 1).cpu().numpy()
        if part.shape[1]:
            layout = "stereo" if len(part) > 1 else "mono"
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="fltp", layout=layout)
            block.sample_rate, block.pts = self.sample_rate, self.num_samples
            block.time_base = Fraction(1, self.sample_rate)
            self.container.mux(self.audio.encode(block))
        self.num_samples += part.shape[1]

    def close(self) -> None:
        """Write what the encoders still hold."""
        self._write_picture(None)
        if self.audio is not None:
            self.container.mux(self.audio.encode(None))


@contextmanager
def open_writer(
    path: Path,
    fps: float,
    width: int,
    height: int,
    sound: Tensor | None = None,
    sample_rate: int = 44100,
) -> Iterator[VideoWriter]:
    """Open an mp4 (H.264, AAC) that is complete also where the block ends with an exception.

    Args:
        path: of the file; an existing one is replaced.
        fps: frames per second.
        width, height, sound, sample_rate: see `VideoWriter`.
    Raises:
        ValueError: the file cannot be written, with the reason; or the sound has another rate, or values that
            are not finite.
    """
    import av

    if sound is not None and sample_rate not in SAMPLE_RATES:
        raise ValueError(
            f"the sound has {sample_rate} samples a second, expected {', '.join(map(str, SAMPLE_RATES))}; "
            "resample it, or connect no audio"
        )

    if sound is not None and not bool(sound.isfinite().all()):
        raise ValueError("the sound holds values that are not finite; look at the node that made it")
    rate = Fraction(real("fps", fps, *RATES)).limit_denominator(1001)
    try:
        with av.open(str(path), "w", format="mp4", options=FRAGMENTS) as container:
            writer = VideoWriter(container, rate, width, height, sound, sample_rate)
            try:
                yield writer
            finally:
                if writer.num_frames:
                    writer.close()
    except OSError as error:
        raise ValueError(f"cannot write the video {path.name}: {reason_of(error)}") from error
