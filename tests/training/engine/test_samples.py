"""Sample videos: their choice, weights and panels, and that they play where they are logged."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import training.data.encoders as encoders
from tests.support.distill import SIZES, new_trainer, tiny_config, tiny_values, write_teacher
from tests.support.processes import torchrun, wait
from training.data.cache import Cache
from training.data.cache_writer import fill
from training.data.encoded import EncodedSample
from training.data.encoders import VideoEncoder
from training.data.source import CachedSource
from training.data.wan_vae import decode_video, load_vae
from training.distributed import world as parallel
from training.engine.average import AveragedWeights
from training.engine.progress import Progress
from training.engine.samples import chosen, log_video, panels, sample_batch, to_images, write_samples
from training.methods.vdot import Vdot
from vdot_core import vcu

CPU = torch.device("cpu")
VAE = "assets/vdot_tiny_vae.safetensors"
SCRIPT = Path(__file__).with_name("run_samples.py")
WIDTH, HEIGHT, NUM_FRAMES = 32, 48, 5


def _clip(color, num_frames=NUM_FRAMES):
    """[F, H, W, 3]: a square moves down on gray-blue."""
    clip = torch.tensor([0.3, 0.35, 0.5]).expand(num_frames, HEIGHT, WIDTH, 3).clone()
    for frame in range(num_frames):
        clip[frame, 4 + 4 * frame : 20 + 4 * frame, 8:24] = torch.tensor(color)
    return clip


def _units():
    """Task -> its units: a full control, two references with a part kept, two contexts, nothing."""
    red, green = _clip((0.9, 0.1, 0.1)), _clip((0.1, 0.8, 0.2))
    everything, lower = torch.ones(NUM_FRAMES, HEIGHT, WIDTH), torch.zeros(NUM_FRAMES, HEIGHT, WIDTH)
    lower[:, 20:] = 1
    hole = torch.where(lower[..., None] > 0.5, 0.5, red)
    control = vcu.VCU(red.mean(-1, keepdim=True).expand_as(red), everything, kind="control")
    both = vcu.VCU(hole, lower, references=(red[0], green[2]), kind="repaint")
    nothing = vcu.VCU(torch.full_like(red, 0.5), everything, kind="generate")
    return {"depth": [control], "reference_inpaint": [both], "composed": [control, both], "text": [nothing]}


class Producer:
    """Two encoded samples of each task, depth's first; the second ones of depth have no real clip."""

    num_shards = 1

    def header(self):
        return {"text_len": SIZES.text_len}

    def empty_text(self):
        return torch.ones(1, SIZES.text_dim)

    def encode(self, shard):
        video = VideoEncoder(VAE, CPU)
        real = video(_clip((0.9, 0.1, 0.1))[None])[0]
        samples = []
        for task, units in _units().items():
            encoded = vcu.encode(units, video)
            count = encoded.num_reference_latents
            contexts = encoded.contexts[0].half()
            # The last unit is the one that brings references.
            latents = torch.cat([contexts[-1, :16, :count], real.half()], dim=1)
            for number in range(2):
                clip = None if task == "depth" and number else latents.clone()
                text = torch.randn(3, SIZES.text_dim, generator=torch.Generator().manual_seed(len(samples)))
                name, scale = f"{task} {number}", encoded.context_scale
                samples.append(EncodedSample(name, task, clip, contexts.clone(), (text,), count, scale))
        return samples, []


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "cache"
    assert fill(folder, Producer())
    return Cache(folder)


def _source(cache):
    return CachedSource(cache, task_weights={}, seed=0, global_batch=1, accumulation=1)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


@pytest.fixture
def make(tmp_path, teacher):
    """(function that writes the samples of a step, method, averages, configuration) of a run."""

    def build(**changes):
        settings = {"log__vae": VAE, "log__sample_every": 1, "log__num_samples": 4, **changes}
        config = tiny_config(tmp_path / "out", teacher, **settings)
        world = parallel.start(config.parallel)
        method = Vdot(config, world, torch.zeros(1, 1, SIZES.text_dim))
        average = AveragedWeights(method.generator, 0.9)

        def write(cache, step, config=config):
            return write_samples(method, average, config, _source(cache), world, step)

        return write, method, average, config

    return build


def test_each_task_is_shown_once_before_any_is_twice(cache, make, tmp_path):
    """Of micro-batches of one sample each; the same samples every time."""
    write, *_, config = make()
    videos = write(cache, 7)
    names = ["0-depth", "1-reference_inpaint", "2-composed", "3-text"]
    assert [video.name for video in videos] == names
    files = sorted((tmp_path / "out" / "samples").iterdir())
    assert [path.name for path in files] == [f"step-000007-{name}.webp" for name in names]
    # Besides result and real clip: control and mask of each context, and the references.
    for path, num_panels in zip(files, (2, 4, 6, 2), strict=True):
        with Image.open(path) as animation:
            assert animation.n_frames == NUM_FRAMES
            assert animation.size == ((2 + num_panels) * WIDTH, HEIGHT)
    assert write(cache, 8) == videos
    fewer = dataclasses.replace(config, log=dataclasses.replace(config.log, num_samples=2))
    assert write(cache, 9, fewer) == videos[:2]


def test_the_weights_order_the_tasks(cache, make):
    *_, config = make()
    infos = [info for _, info in cache.samples]

    def ids(num_samples, gan=False, **weights):
        changed = dataclasses.replace(
            config,
            data=dataclasses.replace(config.data, task_weights=weights),
            log=dataclasses.replace(config.log, num_samples=num_samples),
        )
        return [
            infos[number].id
            for number in chosen(infos, changed.data.task_weights, changed.log.num_samples, needs_latents=gan)
        ]

    assert ids(2, text=0.1, composed=0.5, depth=1.0) == ["text 0", "composed 0"]
    assert ids(3, text=0.0, composed=0.5, depth=1.0) == ["composed 0", "depth 0", "composed 1"]
    # Everything there is, once; with the GAN nothing that is not trained on.
    assert ids(9, text=1.0, depth=1.0) == ["text 0", "depth 0", "text 1", "depth 1"]
    assert ids(9, gan=True, text=1.0, depth=1.0) == ["text 0", "depth 0", "text 1"]
    assert len(set(ids(99))) == len(infos)


def _near(actual, expected):
    """The bundled VAE loses a little of a clip."""
    assert (actual - expected).abs().mean() < 0.04, (actual - expected).abs().mean()


def test_panels_show_the_sample_s_conditions(cache):
    video = VideoEncoder(VAE, CPU)
    places = {info.id: place for place, (_, info) in enumerate(cache.samples)}
    red, green = _clip((0.9, 0.1, 0.1)), _clip((0.1, 0.8, 0.2))
    for task, units in _units().items():
        batch = sample_batch(cache, places[f"{task} 0"], 0, text_only=False)
        result = torch.randn(1, 16, 2, HEIGHT // 8, WIDTH // 8)
        without = dataclasses.replace(batch, latents=None)  # references are found in the context then
        for sample in (batch, without) if len(units) == 1 else (batch,):
            columns = panels(sample, result, video).split(WIDTH, dim=2)
            if batch.num_reference_latents:
                for still, picture in zip(columns[:2], (red[0], green[2]), strict=True):
                    assert (still == still[:1]).all()
                    _near(still[0], picture)
            rest = columns[batch.num_reference_latents :]
            for unit in units:
                _near(rest[0], unit.frames)
                assert torch.equal(rest[1], unit.masks[..., None].expand_as(unit.frames))
                rest = rest[2:]
            torch.testing.assert_close(rest[0], video.decode(result)[0])
            assert len(rest) == (1 if sample.latents is None else 2)
        _near(panels(batch, result, video)[:, :, -WIDTH:], red)


def test_without_contexts_and_real_clips_only_the_result_is_shown(cache, make, tmp_path):
    write, *_, config = make(model__text_only=True, losses__gan=False)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, task_weights={"depth": 1.0}))
    first, second = write(cache, 1, config)
    assert (first.width, second.width, second.height) == (2 * WIDTH, WIDTH, HEIGHT)


def test_samples_are_the_averaged_weights_and_training_keeps_its_own(cache, make):
    write, method, average, _ = make(log__num_samples=1)
    (video,) = write(cache, 1)
    with torch.no_grad():
        for parameter in method.generator.parameters():
            parameter.add_(1.0)
    trained = [parameter.clone() for parameter in method.generator.parameters()]
    assert write(cache, 1) == [video]
    assert all(torch.equal(a, b) for a, b in zip(trained, method.generator.parameters(), strict=True))
    for parameter in average.parameters:
        parameter.add_(1.0)
    assert write(cache, 1) != [video]


@pytest.mark.full
def test_two_sharded_processes_show_the_samples_of_one(cache, make, tmp_path, teacher):
    """They make every sample together: of these the third takes more passes through the VACE blocks."""
    write, *_ = make(log__num_samples=5)
    videos = write(cache, 5)
    settings = {"log.vae": VAE, "log.num_samples": 5, "data.cache_dir": str(cache.folder)}
    (tmp_path / "run.json").write_text(json.dumps({**tiny_values(tmp_path / "two", teacher), **settings}))
    process = torchrun(tmp_path, str(SCRIPT), str(tmp_path / "run.json"))
    assert wait(process, tmp_path) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    names = [video.name for video in videos]
    assert json.loads((tmp_path / "two" / "logged.json").read_text()) == [True, names]
    for name in names:
        ones, twos = (
            Image.open(tmp_path / out / "samples" / f"step-000005-{name}.webp") for out in ("out", "two")
        )
        for frame in range(NUM_FRAMES):
            ones.seek(frame)
            twos.seek(frame)
            pixels = [torch.tensor(list(picture.convert("RGB").tobytes())) for picture in (ones, twos)]
            assert (pixels[0] - pixels[1]).abs().float().mean() < 1, (name, frame)


def _frames(gif):
    with Image.open(io.BytesIO(gif)) as picture:
        return picture.n_frames, picture.size, picture.info.get("loop"), picture.info["duration"]


def test_large_and_long_videos_are_logged_smaller():
    ramp = torch.linspace(0, 1, 81)[:, None, None, None].expand(81, 48, 1920, 3)
    video = log_video(to_images(ramp), "0-depth")
    # Every second of 81 frames, for as long as two: PIL writes hundredths of a second.
    assert _frames(video.gif) == (41, (960, 24), 0, 120) and (video.width, video.height) == (960, 24)
    assert _frames(log_video(to_images(_clip((1.0, 0.0, 0.0))), "0").gif) == (5, (WIDTH, HEIGHT), 0, 60)
    assert _frames(log_video(to_images(ramp[:2]), "0").gif)[0] == 2


def test_tensorboard_has_videos_that_play(cache, make, tmp_path):
    """Its page gets the GIF, with the right type."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import img_mime_type_detector

    write, method, _, config = make(log__num_samples=2)
    progress = Progress(config, method.world, 0)
    videos = write(cache, 3)
    progress.videos(videos, 3)
    progress.close()
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard")).Reload()
    assert events.Tags()["images"] == ["samples/0-depth", "samples/1-reference_inpaint"]
    for video in videos:
        (event,) = events.Images(f"samples/{video.name}")
        assert (event.step, event.width, event.height) == (3, video.width, video.height)
        assert event.encoded_image_string == video.gif and _frames(video.gif)[0] == NUM_FRAMES
        assert img_mime_type_detector.from_bytes(video.gif) == "image/gif"


def test_a_run_makes_them_at_intervals_and_refuses_a_missing_vae_first(make, tmp_path, teacher, monkeypatch):
    steps, uploads = [], []
    monkeypatch.setattr(
        "training.engine.trainer.write_samples", lambda *args: steps.append(args[-1]) or ["video"]
    )
    monkeypatch.setattr(Progress, "videos", lambda _, videos, step: uploads.append((videos, step)))
    settings = {"log__vae": VAE, "log__sample_every": 2, "max_steps": 5}
    config = tiny_config(tmp_path / "run", teacher, **settings)
    new_trainer(config).run()
    assert steps == [2, 4] and uploads == [(["video"], 2), (["video"], 4)]
    lost = tiny_config(tmp_path / "lost", teacher, **{**settings, "log__vae": "models/none"})
    with pytest.raises(ValueError, match="vae is models/none, which does not exist"):
        new_trainer(lost)
    silent = dataclasses.replace(lost, log=dataclasses.replace(lost.log, sample_every=0))
    new_trainer(silent).progress.close()


def test_wide_vaes_and_diffusers_folders_decode_to_the_same(tmp_path, monkeypatch):
    """In chunks of frames, as real widths need it, and all at once; a clip at a time either way."""
    latents = torch.randn(2, 16, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    whole = VideoEncoder(VAE, CPU).decode(latents)
    assert whole.shape == (2, 9, 32, 32, 3) and whole.dtype == torch.float32
    torch.testing.assert_close(whole, decode_video(load_vae(VAE), latents), rtol=0, atol=1e-4)
    load_vae(VAE).save_pretrained(tmp_path / "pipeline" / "vae")
    monkeypatch.setattr(encoders, "CHUNKED_FROM_DIM", 4)
    monkeypatch.setattr(encoders, "decode_video", lambda *_: pytest.fail("the complete clip at once"))
    for path in (VAE, tmp_path / "pipeline", tmp_path / "pipeline" / "vae"):
        encoder = VideoEncoder(path, CPU)
        sizes, decode = [], encoder.vae.decode
        encoder.vae.decode = lambda z, sizes=sizes, decode=decode: sizes.append(len(z)) or decode(z)
        torch.testing.assert_close(encoder.decode(latents), whole, rtol=0, atol=1e-4)
        assert sizes == [1, 1]
