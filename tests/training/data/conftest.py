"""Small real files: clips written with PyAV, a tiny VAE and text encoder, and a manifest's rows over them."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from tiny import text, vae
from training.data import wan_vae
from training.data.config import DataConfig
from training.data.umt5 import load_umt5

WIDTH, HEIGHT, NUM_FRAMES = 48, 32, 5
EVERY = {
    "id": None,
    "src_video_path": None,
    "mask_video_path": None,
    "ref_image_path": None,
    "target_video_path": None,
}


def moving_square(width=WIDTH, height=HEIGHT, num_frames=NUM_FRAMES, shade=220):
    """[F, H, W, 3] uint8: a square that moves 4 pixels a frame over gray."""
    clip = np.full((num_frames, height, width, 3), 90, np.uint8)
    for frame in range(num_frames):
        left = 4 + 4 * frame % (width - 16)
        clip[frame, 8:24, left : left + 12] = (shade, 60, 30)
    return clip


def write_video(path, clip, rate=16, aspect=1):
    """A lossless H.264 file of [F, H, W, 3] uint8; aspect is a pixel's width over its height."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"qp": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = clip.shape[2], clip.shape[1], "yuv444p"
        stream.codec_context.sample_aspect_ratio = aspect
        for picture in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Paths of a VAE and of a text encoder, both with random weights and very small."""
    folder = tmp_path_factory.mktemp("models")
    network = wan_vae.build_vae(4)
    vae.initialize_vae(network, torch.Generator().manual_seed(0))
    vae.save_vae(network, folder / "vae.safetensors")
    config = {**text.umt5_config(1, 1000), "d_ff": 64}
    tokenizer = load_umt5("assets/vdot_tiny_text.safetensors").tokenizer
    config["vocab_size"] = len(tokenizer)
    text.save_text_encoder(text.build_encoder(config), config, tokenizer, folder / "text.safetensors")
    return folder / "vae.safetensors", folder / "text.safetensors"


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """A folder of videos and pictures, good and bad."""
    folder = tmp_path_factory.mktemp("clips")
    clip = moving_square()
    write_video(folder / "real.mp4", clip)
    write_video(folder / "control.mp4", np.repeat(clip.mean(-1, keepdims=True), 3, -1).astype(np.uint8))
    write_video(folder / "mask.mp4", np.where(clip[..., :1] > 150, 255, 0).repeat(3, -1).astype(np.uint8))
    write_video(folder / "long.mp4", moving_square(num_frames=13))
    write_video(folder / "square.mp4", moving_square(width=32))
    Image.fromarray(clip[0]).save(folder / "one.png")
    Image.fromarray(clip[2, :24, :20]).save(folder / "two.png")
    (folder / "broken.mp4").write_bytes((folder / "real.mp4").read_bytes()[:300])
    (folder / "words.png").write_text("not a picture")
    return folder


@pytest.fixture(scope="session")
def records():
    """Rows that are all good."""
    real = {"target_video_path": "real.mp4"}
    rows = [
        {"task_name": "depth", "prompt": "a red square", "src_video_path": "control.mp4", **real},
        {"task_name": "text", "prompt": "a square moves right", **real},
        {"task_name": "inpainting", "prompt": "a box", "mask_video_path": "mask.mp4", **real},
        {"task_name": "reference", "prompt": "this thing", "ref_image_path": ["one.png"], **real},
        {
            "task_name": "reference_gray",
            "prompt": "these things, moving",
            "src_video_path": "control.mp4",
            "ref_image_path": ["one.png", "two.png"],
            **real,
        },
        {"task_name": "firstframe", "prompt": "it goes on", **real},
    ]
    return [{**EVERY, **row} for row in rows]


def write_manifest(path, rows):
    """Rows as CSV, JSON Lines or Parquet, by the path's ending."""
    import csv

    if path.suffix == ".jsonl":
        path.write_text(
            "\n".join(json.dumps({k: v for k, v in row.items() if v is not None}) for row in rows)
        )
    elif path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), str(path))
    else:
        names = list(dict.fromkeys(name for row in rows for name in row))
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, names)
            writer.writeheader()
            for row in rows:
                lists = {k: "; ".join(v) if isinstance(v, list) else v for k, v in row.items()}
                writer.writerow(lists)
    return path


def write_tar(path, rows, folder):
    """The rows as a WebDataset shard, each with its files."""
    import webdataset

    with webdataset.TarWriter(str(path)) as sink:
        for number, row in enumerate(rows):
            sample = {"__key__": f"{number:08d}", "json": {k: row[k] for k in ("task_name", "prompt")}}
            for column in ("src_video_path", "mask_video_path", "target_video_path"):
                if row[column]:
                    sample[f"{column.removesuffix('_path')}.mp4"] = (folder / row[column]).read_bytes()
            for index, name in enumerate(row["ref_image_path"] or ()):
                sample[f"ref_image_{index}.png"] = (folder / name).read_bytes()
            sink.write(sample)
    return path


@pytest.fixture
def config(models, tmp_path):
    """A function: settings -> a DataConfig over the tiny models and a fresh cache folder."""

    def make(**changes):
        settings = {
            "source": "manifest",
            "cache_dir": str(tmp_path / "cache"),
            "vae": str(models[0]),
            "text_encoder": str(models[1]),
            "num_frames": NUM_FRAMES,
            "batch_size": 4,
            "accumulation": 1,
            "rows_per_shard": 2,
            "device": "cpu",
        }
        return DataConfig(**{**settings, **changes})

    return make


def png(picture):
    """Bytes of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
