"""A perfect observer, which sees in drawn clips what is in them, and a small model of random weights."""

from __future__ import annotations

import pytest
import torch

from tiny import text, vae
from tiny.clips.backgrounds import BACKGROUNDS
from tiny.clips.captions import DIRECTIONS
from tiny.clips.shapes import COLORS, OBJECT_COLORS, SIZES, SPLITS, clip
from tiny.evaluation.accuracy import background_words
from tiny.evaluation.generate import TEXT_FILE, TRANSFORMER_FILE, VAE_FILE
from tiny.evaluation.network import PATHS, SEEN_SHAPES, Evaluator, EvaluatorWidths, save_evaluator
from tiny.evaluation.observe import Observation
from training.data import wan_vae
from training.data.umt5 import Tokenizer
from vdot_core.checkpoints import save_network
from vdot_core.networks import WanVace, WanVaceConfig


def _one_hot(index: int, size: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(index), size).float()


def perfect_observation(scene) -> Observation:
    """One clip's observation, from its annotations."""
    count, frames = len(OBJECT_COLORS), len(scene.frames)
    kind, color = background_words(scene)
    values = {
        "presence": torch.zeros(count),
        "seen": torch.zeros(frames, count),
        "shape": torch.zeros(count, len(SEEN_SHAPES)),
        "size": torch.zeros(count, len(SIZES)),
        "path": torch.zeros(count, len(PATHS)),
        "direction": torch.zeros(count, len(DIRECTIONS)),
        "positions": torch.full((frames, count, 2), 0.5),
        "background": _one_hot(list(COLORS).index(color), len(COLORS)),
        "kind": _one_hot(BACKGROUNDS.index(kind), len(BACKGROUNDS)),
        "labels": torch.zeros(scene.frames.shape[:3], dtype=torch.uint8),
    }
    for track, mask in zip(scene.objects, scene.object_masks, strict=True):
        slot = OBJECT_COLORS.index(track.color)
        values["seen"][:, slot] = (mask.sum((1, 2)) >= 12).float()
        values["presence"][slot] = values["seen"][:, slot].mean()
        values["shape"][slot] = _one_hot(SEEN_SHAPES.index(track.shape), len(SEEN_SHAPES))
        values["size"][slot] = _one_hot(tuple(SIZES).index(track.size_name), len(SIZES))
        values["path"][slot] = _one_hot(PATHS.index(track.path), len(PATHS))
        values["direction"][slot] = _one_hot(DIRECTIONS.index(track.direction), len(DIRECTIONS))
        values["positions"][:, slot] = track.centers / scene.frames.shape[1]
        values["labels"][mask > 0] = 1 + slot
    values["features"] = scene.frames.mean((0, 1, 2))
    return Observation(**values)


@pytest.fixture(scope="session")
def drawn_clips():
    """Forty evaluation clips, one and two objects."""
    return [clip(SPLITS["evaluation"].start + i) for i in range(40)]


@pytest.fixture(scope="session")
def perfect(drawn_clips):
    """The true observations of the drawn clips."""
    return [perfect_observation(scene) for scene in drawn_clips]


@pytest.fixture(scope="session")
def observe_perfectly():
    """The true observation of a clip."""
    return perfect_observation


@pytest.fixture(scope="session")
def assets(tmp_path_factory):
    """A folder with every file of a model, and an evaluation network."""
    folder = tmp_path_factory.mktemp("assets")
    torch.manual_seed(0)
    network = wan_vae.build_vae(4)
    vae.initialize_vae(network, torch.Generator().manual_seed(0))
    vae.save_vae(network, folder / VAE_FILE)
    tokenizer = Tokenizer(text.train_vocabulary(num_captions=20), text.TEXT_LEN)
    config = text.umt5_config(1, len(tokenizer))
    text.save_text_encoder(text.build_encoder(config), config, tokenizer, folder / TEXT_FILE)
    small = WanVaceConfig(
        dim=32,
        ffn_dim=64,
        num_heads=2,
        num_layers=2,
        vace_layers=(0,),
        text_dim=128,
        freq_dim=32,
        text_len=64,
    )
    model = WanVace(small)
    model.initialize_weights(torch.Generator().manual_seed(0))
    torch.nn.init.normal_(model.head.head.weight, std=0.1)
    save_network(folder / TRANSFORMER_FILE, model)
    widths = EvaluatorWidths(fine=8, middle=16, coarse=16, slot=16, scene=8, motion=16)
    save_evaluator(Evaluator(widths), folder / "evaluator.safetensors")
    return folder
