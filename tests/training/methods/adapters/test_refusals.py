"""LoRAs and targets that no run can use are refused at its start."""

import pytest
import torch

from tests.support.distill import tiny_config
from tests.training.methods.adapters.runs import ADAPTERS, CHANGES, stage_one_lora
from training.methods.vdot import Vdot
from vdot_core.checkpoints import load_network
from vdot_core.checkpoints.lora import save_factors
from vdot_core.networks.adapters import target_layers


def test_a_lora_as_stage_one_of_full_weights_is_refused(tmp_path, teacher):
    path, _ = stage_one_lora(tmp_path, teacher)
    config = tiny_config(tmp_path, teacher, model__acc_wan_init=str(path))
    with pytest.raises(ValueError, match="merge it into the base first"):
        Vdot.check(config)


@pytest.mark.parametrize("key", ["real_score", "fake_score"])
def test_a_lora_in_place_of_a_network_is_a_sentence(tmp_path, teacher, key):
    lora = str(stage_one_lora(tmp_path, teacher)[0])
    adapters = {**ADAPTERS, "roles": ["generator"]}
    config = tiny_config(tmp_path, teacher, **{"model__adapters": adapters, f"model__{key}": lora})
    with pytest.raises(ValueError, match=rf"model\.{key}: .* is no network \(it holds a LoRA\)"):
        Vdot.check(config)


def test_a_stage_one_lora_that_cannot_be_stacked_is_refused_at_the_start(tmp_path, teacher):
    path = tmp_path / "lora.safetensors"
    config = tiny_config(tmp_path, teacher, **CHANGES, model__acc_wan_init=str(path))
    save_factors(path, {"patch_embedding.weight": (torch.ones(12, 2), torch.ones(2, 64))})
    with pytest.raises(ValueError, match=r"patch_embedding\.weight, which is no linear layer; merge it"):
        Vdot.check(config)
    save_factors(path, {"blocks.0.ffn.0.weight": (torch.full((16, 2), torch.nan), torch.ones(2, 12))})
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        Vdot.check(config)


def test_a_number_is_no_target(teacher):
    with pytest.raises(ValueError, match="no layer is named '0'"):
        target_layers(load_network(teacher), ["0"])
