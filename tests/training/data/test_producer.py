"""Producers by name: only classes of this repository are imported for a configuration."""

import sys

import pytest
import torch

from training import cache as program
from training.data import build_source
from training.data.cache import Cache
from training.data.config import DataConfig
from training.data.fill_cache import build_producer
from training.data.producer import make_producer

NAME = f"{__name__}.Numbered"


class Numbered:
    """Samples whose latents are their number, as many as `producer_args` says."""

    def __init__(self, config):
        self.num_shards = config.producer_args["count"]

    def largest_clip(self):
        return 32, 32, 5

    def header(self):
        return {"source": "numbered", "text_len": 4}

    def empty_text(self):
        return torch.ones(1, 8)

    def encode(self, shard):
        from training.data.encoded import EncodedSample

        latents = torch.full((16, 2, 4, 4), float(shard)).half()
        contexts = torch.zeros(1, 96, 2, 4, 4, dtype=torch.half)
        return [EncodedSample(str(shard), "depth", latents, contexts, (torch.ones(2, 8),))], []


def config(tmp_path, producer=NAME, **changes):
    settings = {"source": "producer", "producer": producer, "producer_args": {"count": 3}, "vae": "v"}
    settings |= {"text_encoder": "t", "cache_dir": str(tmp_path / "cache"), "batch_size": 1}
    return DataConfig(**{**settings, "accumulation": 1, **changes})


def test_a_named_class_fills_the_cache(tmp_path):
    assert program.encode(config(tmp_path))
    assert [info.id for _, info in Cache(tmp_path / "cache").samples] == ["0", "1", "2"]
    (batch,) = build_source(config(tmp_path), seed=0).batches(0)
    assert (batch.latents == int(batch.ids[0])).all()


ELSEWHERE = ("os.path.join", "json.JSONDecoder", "torch.nn.Linear", "nowhere.at.All", "dev.main")
SHAPELESS = ("tiny", ".", "..x", "__main__.x", "tiny/producer.ShapesProducer")


@pytest.mark.parametrize("name", ELSEWHERE + SHAPELESS)
def test_code_from_elsewhere_is_not_imported(tmp_path, name):
    before = set(sys.modules)
    with pytest.raises(ValueError, match=r"data\.producer is .*such as tiny") as caught:
        build_producer(config(tmp_path, name))
    assert "\n" not in str(caught.value) and set(sys.modules) - before <= {"nowhere"}


@pytest.mark.parametrize("name", ["tiny.producer.Shapes", "tiny.nothing.Shapes", "tiny.producer.x.y"])
def test_a_class_that_is_not_there_is_named(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name!r} cannot be imported .*; try tiny\.producer"):
        build_producer(config(tmp_path, name))


def test_settings_that_encoding_needs(tmp_path):
    for missing in ("producer", "vae", "text_encoder"):
        with pytest.raises(ValueError, match=r"set data\.producer, data\.vae and data\.text_encoder"):
            config(tmp_path, **{missing: None})


def test_a_producer_leaves_its_configuration_as_it_was(tmp_path):
    """Settings are saved with a run, and compared at a resume."""
    group = {"width": 16, "height": 16, "num_frames": 1, "num_clips": 1, "tasks": ["text"]}
    config = DataConfig(
        source="producer",
        producer="tiny.producer.ShapesProducer",
        producer_args={"groups": [group]},
        vae="assets/vdot_tiny_vae.safetensors",
        text_encoder="assets/vdot_tiny_text.safetensors",
    )
    make_producer(config)
    assert config.producer_args == {"groups": [group]} and type(config.producer_args["groups"][0]) is dict
