"""Configs name what is wrong with them; the presets are the released checkpoints, key for key."""

import json

import pytest

from vdot_core.networks import PRESETS, WanVaceConfig, expected_shapes

# As published with the checkpoints: (config.json's sizes, blocks that get a hint, parameters).
PUBLISHED = {
    "wan_vace_14b": (5120, 13824, 40, list(range(0, 40, 5)), 17_337_592_896),
    "wan_vace_1_3b": (1536, 8960, 30, list(range(0, 30, 2)), 2_153_972_032),
}


def _block(prefix: str, dim: int, ffn_dim: int) -> dict[str, tuple]:
    shapes = {f"{prefix}.modulation": (1, 6, dim)}
    for attention in ("self_attn", "cross_attn"):
        for layer in "qkvo":
            shapes[f"{prefix}.{attention}.{layer}.weight"] = (dim, dim)
            shapes[f"{prefix}.{attention}.{layer}.bias"] = (dim,)
        for norm in ("norm_q", "norm_k"):
            shapes[f"{prefix}.{attention}.{norm}.weight"] = (dim,)
    shapes[f"{prefix}.norm3.weight"] = shapes[f"{prefix}.norm3.bias"] = (dim,)
    shapes[f"{prefix}.ffn.0.weight"], shapes[f"{prefix}.ffn.0.bias"] = (ffn_dim, dim), (ffn_dim,)
    shapes[f"{prefix}.ffn.2.weight"], shapes[f"{prefix}.ffn.2.bias"] = (dim, ffn_dim), (dim,)
    return shapes


def released_shapes(dim: int, ffn_dim: int, num_layers: int, vace_layers: list[int]) -> dict[str, tuple]:
    """The released files' keys, spelled out from the published sizes alone."""
    shapes = {
        "patch_embedding.weight": (dim, 16, 1, 2, 2),
        "patch_embedding.bias": (dim,),
        "vace_patch_embedding.weight": (dim, 96, 1, 2, 2),
        "vace_patch_embedding.bias": (dim,),
        "text_embedding.0.weight": (dim, 4096),
        "text_embedding.0.bias": (dim,),
        "text_embedding.2.weight": (dim, dim),
        "text_embedding.2.bias": (dim,),
        "time_embedding.0.weight": (dim, 256),
        "time_embedding.0.bias": (dim,),
        "time_embedding.2.weight": (dim, dim),
        "time_embedding.2.bias": (dim,),
        "time_projection.1.weight": (6 * dim, dim),
        "time_projection.1.bias": (6 * dim,),
        "head.modulation": (1, 2, dim),
        "head.head.weight": (64, dim),
        "head.head.bias": (64,),
        "vace_blocks.0.before_proj.weight": (dim, dim),
        "vace_blocks.0.before_proj.bias": (dim,),
    }
    for n in range(num_layers):
        shapes |= _block(f"blocks.{n}", dim, ffn_dim)
    for n in range(len(vace_layers)):
        shapes |= _block(f"vace_blocks.{n}", dim, ffn_dim)
        shapes[f"vace_blocks.{n}.after_proj.weight"] = (dim, dim)
        shapes[f"vace_blocks.{n}.after_proj.bias"] = (dim,)
    return shapes


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_are_the_released_checkpoints(name):
    dim, ffn_dim, num_layers, vace_layers, num_parameters = PUBLISHED[name]
    config = PRESETS[name]()
    assert list(config.vace_layers) == vace_layers and config.head_dim == 128
    shapes = expected_shapes(config)
    assert shapes == released_shapes(dim, ffn_dim, num_layers, vace_layers)
    total = 0
    for shape in shapes.values():
        size = 1
        for length in shape:
            size *= length
        total += size
    assert total == num_parameters


ABSURD = {
    "huge": 10**9,
    "beyond 64 bits": 2**64,
    "400 digits": 10**400,
    "zero": 0,
    "negative": -1,
    "true": True,
    "float": 24.0,
    "infinity": float("inf"),
    "nan": float("nan"),
    "text": "9" * 100_000,
    "none": None,
    "list": list(range(100_000)),
    "object": {"a": 1},
    "deep": json.loads("[" * 900 + "]" * 900),
}


@pytest.mark.parametrize("field", WanVaceConfig(24, 40, 2, 4).to_dict())
@pytest.mark.parametrize("kind", ABSURD)
def test_absurd_values_are_refused_in_a_short_sentence(field, kind):
    values = {**PRESETS["vdot_tiny"]().to_dict(), field: ABSURD[kind]}
    if kind == "true" and field in ("qk_norm", "cross_attn_norm"):
        return
    with pytest.raises(ValueError, match=field) as error:
        WanVaceConfig.from_dict(values)
    assert len(str(error.value)) <= 200 and str(error.value).isprintable()


def test_the_largest_sizes_can_be_described():
    """No product of sizes that are let through overflows."""
    large = WanVaceConfig(
        dim=2**20, ffn_dim=2**20, num_heads=2**12, num_layers=2, vace_layers=(0, 1), text_dim=2**20,
        freq_dim=2**20, in_channels=2**16, out_channels=2**16, vace_in_channels=2**16,
        patch_size=(64, 64, 64), eps=1.0,
    )  # fmt: skip
    shapes = expected_shapes(large)
    assert shapes["patch_embedding.weight"] == (2**20, 2**16, 64, 64, 64)


def test_text_only_network_is_the_backbone_alone():
    config = PRESETS["vdot_tiny"]()
    with_branch = expected_shapes(config)
    alone = expected_shapes(WanVaceConfig.from_dict({**config.to_dict(), "vace_layers": []}))
    assert alone == {name: shape for name, shape in with_branch.items() if not name.startswith("vace_")}


@pytest.mark.parametrize("name", PRESETS)
def test_config_survives_json(name):
    config = PRESETS[name]()
    assert WanVaceConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"dim": 64.0}, "dim is 64.0"),
        ({"num_heads": 3}, "num_heads is 3; dim 64"),
        ({"num_heads": 16}, "at least 6"),
        ({"freq_dim": 33}, "freq_dim is 33"),
        ({"vace_layers": (1, 3)}, r"vace_layers is \(1, 3\)"),
        ({"vace_layers": (0, 2, 2)}, "rising"),
        ({"vace_layers": (0, 4)}, "num_layers is 4"),
        ({"vace_layers": 2}, "sequence of integers"),
        ({"patch_size": (2, 2)}, r"patch_size is \(2, 2\)"),
        ({"eps": 0.0}, "eps is 0.0"),
    ],
)
def test_a_wrong_field_is_named(change, message):
    sizes = {"dim": 64, "ffn_dim": 96, "num_heads": 2, "num_layers": 4}
    WanVaceConfig(**sizes)
    with pytest.raises(ValueError, match=message):
        WanVaceConfig(**{**sizes, **change})


def test_from_dict_names_unknown_and_missing_fields():
    with pytest.raises(ValueError, match=r"unknown .* fields heads; remove"):
        WanVaceConfig.from_dict({"dim": 64, "ffn_dim": 96, "num_heads": 2, "num_layers": 4, "heads": 1})
    with pytest.raises(ValueError, match=r"lacks \['num_layers'\]"):
        WanVaceConfig.from_dict({"dim": 64, "ffn_dim": 96, "num_heads": 2})
