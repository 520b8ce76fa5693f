"""A clip of one's own through a real server: the result lasts as long and keeps its sound."""

import av
import pytest

from tests.core.test_excerpts import write_clip

DEMO = "bundled demo"
NODES = {
    "1": ("VDOTLoad", {"model": DEMO, "text_encoder": DEMO, "vae": DEMO}),
    "2": (
        "VDOTLoadClip",
        {
            **{"file": "sound.mp4", "start": 0.0, "length": 0, "resolution": "auto", "fps": 16.0},
            "size": ["1", 3],
        },
    ),
    "3": (
        "VDOTControl",
        {"frames": ["2", 0], "width": 0, "height": 0, "length": 0},
    ),
    "4": ("CLIPTextEncode", {"clip": ["1", 1], "text": "a red circle moving right"}),
    "5": ("VDOTEncode", {"positive": ["4", 0], "vae": ["1", 2], "unit": ["3", 0], "strength": 1.0}),
    "6": (
        "VDOTSampler",
        {
            **{"model": ["1", 0], "positive": ["5", 0], "latent": ["5", 2], "seed": 1},
            **{"preset": "auto", "steps": 4, "shift": 16.0, "solver": "unipc"},
        },
    ),
    "7": ("VAEDecode", {"samples": ["6", 0], "vae": ["1", 2]}),
    "8": ("CreateVideo", {"images": ["7", 0], "audio": ["2", 1], "fps": ["2", 2]}),
    "9": ("SaveVideo", {"video": ["8", 0], "filename_prefix": "sound", "format": "auto", "codec": "auto"}),
}


def streams(path):
    """(seconds, frames) of the video, seconds of the sound and its loudest sample."""
    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate)
        frames = sum(1 for _ in container.decode(video=0))
    with av.open(str(path)) as container:
        parts = [part.to_ndarray() for part in container.decode(audio=0)]
        samples = sum(part.shape[1] for part in parts)
        return frames / rate, samples / container.streams.audio[0].rate, max(abs(p).max() for p in parts)


def test_a_clip_of_30_fps_keeps_its_duration_and_its_sound(server):
    source = write_clip(server.base / "input/sound.mp4", [k / 30 for k in range(31)], sound=31 / 30)
    prompt = {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in NODES.items()}
    run = server.run(prompt)
    assert run.status == "success", run.error
    (result,) = (server.base / "output").glob("sound_*.mp4")
    seconds, sound, loudest = streams(result)
    assert seconds == pytest.approx(31 / 30, abs=1 / 16)
    assert sound == pytest.approx(streams(source)[1], abs=1 / 16) and loudest > 0.3
