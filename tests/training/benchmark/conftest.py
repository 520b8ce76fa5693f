"""A small benchmark of moving textures, and models that a processor makes videos of in a second."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.data.conftest import write_video
from tests.training.preparation.conftest import panning, textured
from training.benchmark.config import EvaluateConfig, ModelConfig, SamplerConfig
from training.benchmark.evaluate import evaluate
from training.preparation.clip_files import write_clip

ROOT = Path(__file__).resolve().parents[3]
WIDTH, HEIGHT, NUM_FRAMES = 48, 32, 5
STUDENT = ModelConfig(
    "student",
    path=str(ROOT / "assets/vdot_tiny_student.safetensors"),
    vae=str(ROOT / "assets/vdot_tiny_vae.safetensors"),
    text_encoder=str(ROOT / "assets/vdot_tiny_text.safetensors"),
    sampler=SamplerConfig(steps=1),
)
STAND_IN = Path(__file__).parent / "vbench_stand_in.py"


def moving(seed, num_frames=NUM_FRAMES, width=WIDTH, height=HEIGHT):
    """[F, H, W, 3] uint8: a texture that pans."""
    return panning(seed, num_frames, 2, width, height)


def gray_of(clip):
    """[F, H, W, 3] uint8: luma three times."""
    luma = clip.astype(float) @ [0.299, 0.587, 0.114]
    return np.repeat(luma.round().astype(np.uint8)[..., None], 3, -1)


def half_mask():
    """[F, H, W, 3] uint8: the right half is generated."""
    mask = np.zeros((NUM_FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    mask[:, :, WIDTH // 2 :] = 255
    return mask


def write_benchmark(folder, rows_per_task=2):
    """Tasks gray, extension, R2V and reference+gray; `real` holds what a perfect model would make."""
    (folder / "indices").mkdir(parents=True)
    (folder / "assets").mkdir()
    lines = {"single": [], "composite": []}
    for number in range(rows_per_task):
        clip = moving(number)
        write_video(folder / f"assets/gray{number}.mp4", gray_of(clip))
        write_video(folder / f"assets/clip{number}.mp4", clip)
        write_video(folder / f"assets/mask{number}.mp4", half_mask())
        Image.fromarray(textured(number, 24, 24)).save(folder / f"assets/subject{number}.png")
        shared = {"sample_id": f"{number:04d}", "en_prompt": f"clouds <b>{number}</b> | *move* & drift"}
        none = {"src_video": None, "src_mask": None, "src_ref_images": None}
        gray, clips = {"src_video": f"assets/gray{number}.mp4"}, {"src_video": f"assets/clip{number}.mp4"}
        subject = {"src_ref_images": [f"assets/subject{number}.png"]}
        mask = {"src_mask": f"assets/mask{number}.mp4"}
        tasks = {
            "gray": gray,
            "extension": clips | mask,
            "R2V_face": subject,
            "reference+gray": gray | subject | mask,
        }
        for task, files in tasks.items():
            row = {"subtask": task, **none, **shared, **files}
            lines["composite" if "+" in task else "single"].append(json.dumps(row))
            (folder / "real" / task).mkdir(parents=True, exist_ok=True)
            write_video(folder / "real" / task / f"{number:04d}.mp4", clip)
    for name, index in lines.items():
        (folder / "indices" / f"uvcbench_{name}.txt").write_text("\n".join(index) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def bench(tmp_path):
    """Folder of a small benchmark."""
    return write_benchmark(tmp_path / "bench")


@pytest.fixture
def config(bench, tmp_path):
    """A function: settings -> a configuration over `bench` with its real clips as the only model."""

    def make(**changes):
        settings = {
            "benchmark": str(bench),
            "out_dir": str(tmp_path / "out"),
            "models": [ModelConfig("real", "folder", str(bench / "real"))],
            "width": WIDTH,
            "height": HEIGHT,
            "num_frames": NUM_FRAMES,
            "device": "cpu",
            "dtype": "fp32",
            "num_resamples": 100,
        }
        return EvaluateConfig(**{**settings, **changes})

    return make


@pytest.fixture
def vbench_command():
    """Words of a stand-in for VBench's program."""
    return [sys.executable, str(STAND_IN), "evaluate"]


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """The settings of a finished evaluation of two folders, one of which is coded as no browser plays it."""
    folder = tmp_path_factory.mktemp("pages")
    bench = write_benchmark(folder / "bench")
    for task in (bench / "real").iterdir():
        (bench / "other" / task.name).mkdir(parents=True)
        for number in range(2):
            video = bench / "other" / task.name / f"{number:04d}.mp4"
            write_clip(video, iter(moving(40 + number)), 16, 12)
    models = [ModelConfig(name, "folder", str(bench / name)) for name in ("real", "other")]
    settings = EvaluateConfig(
        str(bench),
        str(folder / "out"),
        models,
        width=WIDTH,
        height=HEIGHT,
        num_frames=NUM_FRAMES,
        num_resamples=100,
    )
    assert evaluate(settings) == []
    return settings
