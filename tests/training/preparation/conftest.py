"""A folder of small raw videos, good and bad, a configuration over it, and a caption server."""

import http.server
import json
import threading

import numpy as np
import pytest

from tests.training.data.conftest import write_video
from training.preparation import captions
from training.preparation.config import ClipConfig, ExecutorConfig, PrepareConfig, QualityConfig, TaskConfig

RATE = 16
BROKEN = "broken"
"""Body of an answer whose status is all that is sent."""
LIMITS = QualityConfig(min_sharpness=1.0)


def textured(seed, width=96, height=64):
    """[H, W, 3] uint8 of blurred noise, with the contrast of a photograph."""
    from scipy import ndimage

    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    smooth = ndimage.gaussian_filter(noise, (5, 5, 0))
    return np.clip(128 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def panning(seed, num_frames=24, step=2, width=96, height=64):
    """[F, H, W, 3] uint8: a picture that moves `step` pixels a frame to the left."""
    wide = textured(seed, width + step * num_frames, height)
    return np.stack([wide[:, step * i : step * i + width] for i in range(num_frames)])


@pytest.fixture(scope="session")
def raw(tmp_path_factory):
    """Sources: two shots, a copy of one in worse quality, and one of each fault."""
    folder = tmp_path_factory.mktemp("raw")
    (folder / "day").mkdir()
    write_video(folder / "day" / "two shots.mp4", np.concatenate([panning(1), 30 + panning(2) // 3]), RATE)
    write_video(folder / "pan.mp4", panning(3, 30), RATE)
    (folder / "pan.txt").write_text("a wall of clouds moves left\n")
    noisy = panning(3, 30).astype(int) + np.random.default_rng(0).integers(-6, 7, (30, 64, 96, 3))
    write_video(folder / "z_pan.mp4", np.clip(noisy, 0, 255).astype(np.uint8), RATE)
    write_video(folder / "static.mp4", panning(4, step=0), RATE)
    write_video(folder / "dark.mp4", panning(5) // 40, RATE)
    write_video(folder / "short.mp4", panning(6, 6), RATE)
    bars = panning(7)
    bars[:, :10] = bars[:, -10:] = 0
    write_video(folder / "bars.mp4", bars, RATE)
    write_video(folder / "small.mp4", panning(8, width=32, height=32), RATE)
    data = (folder / "pan.mp4").read_bytes()
    (folder / "broken.mp4").write_bytes(data[: len(data) // 3])
    return folder


@pytest.fixture
def config(raw, tmp_path):
    """A function: settings -> a configuration over `raw` that runs in this process."""

    def make(**changes):
        settings = {
            "input": [str(raw)],
            "out_dir": str(tmp_path / "out"),
            "annotators": ["flow"],
            "rows_per_shard": 8,
            "samples_per_task": 1,
            "clips": ClipConfig(num_frames=17, min_frames=9, clips_per_shot=1, buckets=[[48, 32]]),
            "quality": LIMITS,
            "tasks": TaskConfig(weights=dict.fromkeys(("text", "gray", "flow", "outpainting", "swap"), 1.0)),
            "executor": ExecutorConfig("inline"),
        }
        return PrepareConfig(**{**settings, **changes})

    return make


@pytest.fixture
def server():
    """A stand-in for a caption server: the status and body of each answer, and the requests it got."""
    answers, requests = [], []
    captions._silence.clear()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status, body = answers.pop(0)
            if body == BROKEN:
                self.wfile.write(status)
                return
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/v1", answers, requests
        running.shutdown()
