"""Cuts a source into clips: shots by PySceneDetect or TransNet V2, then segments of 4n + 1 frames."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from vdot_core.text import counted
from vdot_core.vcu import snap_length
from vdot_core.videos import decoding_fault, open_video, shown_size, timed_frames

from ..data.bad_rows import BadRowError
from . import transnet
from .config import ClipConfig, PrepareConfig
from .stage import Row, rejection

DETECTION_WIDTH = 256  # pixels; PySceneDetect itself scales down to about so many
THRESHOLDS = {"adaptive": 3.0, "content": 27.0, "transnet": 0.5}
MIN_SHOT_FRAMES = 8


def missing(config: PrepareConfig) -> str | None:
    """Why shots cannot be detected here."""
    if config.clips.detector == "transnet":
        return transnet.missing()
    if config.clips.detector == "none" or importlib.util.find_spec("scenedetect"):
        return None
    return (
        f"clips.detector {config.clips.detector} needs PySceneDetect: `pip install scenedetect-headless`, or "
        "set clips.detector none, which takes each file for one shot"
    )


def cut_source(row: Row, config: PrepareConfig) -> Row:
    """The clips of a source.

    Args:
        row: A source's row.
        config: Its `clips`.

    Returns:
        `width`, `height`, `rate`, `seconds`, `num_shots` of the source; `clips`, each with `start` in seconds
        and `num_frames`, and its shot's `shot_start` and `shot_end`; or the reasons why there is none.
    """
    import av

    try:
        with open_video(row["path"]) as container:
            if not container.streams.video:
                return rejection("no video stream")
            stream = container.streams.video[0]
            times, gaps, size = _times_and_gaps(container, stream, config.clips)
    except av.error.FFmpegError as error:
        raise BadRowError("unreadable", f"cannot be decoded: {decoding_fault(error)}") from error
    if len(times) < 2:
        return rejection(f"too short: {counted(len(times), 'frame')}")
    seconds = times[-1] + (times[-1] - times[-2])
    starts = [0.0, *(times[after] for _, after in gaps)]
    ends = [*(times[first] for first, _ in gaps), seconds]
    shots = list(zip(starts, ends, strict=True))
    clips = [clip for shot in shots for clip in segments(*shot, config.clips)]
    info = {
        "width": size[0],
        "height": size[1],
        "rate": round(len(times) / seconds, 4),
        "seconds": round(seconds, 4),
        "num_shots": len(shots),
    }
    if not clips:
        longest = max(end - start for start, end in shots)
        needed = config.clips.min_frames / config.clips.frame_rate
        return info | rejection(
            f"too short: the longest shot has {longest:.2f} s, a clip needs {needed:.2f} s"
        )
    return info | {"clips": clips}


def _times_and_gaps(
    container, stream, config: ClipConfig
) -> tuple[list[float], list[tuple[int, int]], tuple[int, int]]:
    """Times of all frames, from where to where no shot is, by index, and (width, height) as shown."""
    stream.thread_type = "NONE"
    times: list[float] = []
    size = (0, 0)

    def pictures() -> Iterator[np.ndarray]:
        nonlocal size
        for time, frame in timed_frames(container):
            if times and time <= times[-1]:
                continue  # shown at the same time as the frame before it, or earlier
            times.append(time)
            size = shown_size(frame, stream)
            if config.detector == "none":
                continue
            if config.detector == "transnet":
                size_px = {"width": transnet.WIDTH, "height": transnet.HEIGHT}
                yield frame.reformat(**size_px, format="rgb24", interpolation="BICUBIC").to_ndarray()
                continue
            width = min(DETECTION_WIDTH, frame.width)
            height = max(1, round(frame.height * width / frame.width))
            yield frame.reformat(width=width, height=height, format="bgr24").to_ndarray()

    if config.detector == "none":
        for _ in pictures():
            pass
        return times, [], size
    return times, _gaps(pictures(), config), size


def _gaps(pictures: Iterator[np.ndarray], config: ClipConfig) -> list[tuple[int, int]]:
    """Transitions by their first frame and the first one after them, which are the same for a cut."""
    threshold = THRESHOLDS[config.detector] if config.threshold is None else config.threshold
    if config.detector == "transnet":
        return transnet.transitions(pictures, threshold)
    from scenedetect import AdaptiveDetector, ContentDetector, FrameTimecode

    detector = (AdaptiveDetector if config.detector == "adaptive" else ContentDetector)(
        threshold, min_scene_len=MIN_SHOT_FRAMES
    )
    # The rate only numbers the frames: their times are the file's own.
    rate = Fraction(25)
    cuts, moment = [], FrameTimecode(0, rate)
    for number, picture in enumerate(pictures):
        moment = FrameTimecode(number, rate)
        cuts += detector.process_frame(moment, picture)
    cuts += detector.post_process(moment)
    return [(number, number) for number in sorted({cut.frame_num for cut in cuts} - {0})]


def segments(start: float, end: float, config: ClipConfig) -> list[Row]:
    """Clips of one shot, of 4n + 1 frames; some frames stay outside of them where the shot is long enough.

    Args:
        start, end: Of the shot, in seconds.
        config: Rate, lengths and number of the clips.

    Returns:
        `start`, `num_frames`, `shot_start` and `shot_end` of each clip.
    """
    first, last = start + config.edge_s, end - config.edge_s
    if start == 0:
        first = start  # no blended cut is there
    available = int((last - first) * config.frame_rate + 1e-6)
    clips: list[Row] = []
    while available >= config.min_frames and len(clips) < config.clips_per_shot:
        reserve = config.reserve if available - config.reserve >= config.min_frames else 0
        count = snap_length(min(available - reserve, config.num_frames))
        clips.append(
            {
                "start": round(first, 6),
                "num_frames": count,
                "shot_start": round(start, 6),
                "shot_end": round(end, 6),
            }
        )
        first += (count + config.reserve) / config.frame_rate
        available -= count + config.reserve
    return clips
