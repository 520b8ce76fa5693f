"""The Wan-VACE transformer: one network for generating, scoring and serving."""

from .adapters import NetworkRole, add_adapter
from .attention import AttentionFunction, sdpa_attention
from .config import PRESETS, WanVaceConfig, vdot_tiny, wan_vace_1_3b, wan_vace_14b
from .context_scale import ContextScale
from .discriminator import Discriminator, default_taps, reference_token_mask
from .hooks import Hooks
from .nag import normalized_attention_guidance
from .rope import RotaryTable, apply_rotary, rotary_table
from .wan_vace import WanVace, expected_shapes

__all__ = [
    "PRESETS",
    "AttentionFunction",
    "ContextScale",
    "Discriminator",
    "Hooks",
    "NetworkRole",
    "RotaryTable",
    "WanVace",
    "WanVaceConfig",
    "add_adapter",
    "apply_rotary",
    "default_taps",
    "expected_shapes",
    "normalized_attention_guidance",
    "reference_token_mask",
    "rotary_table",
    "sdpa_attention",
    "vdot_tiny",
    "wan_vace_1_3b",
    "wan_vace_14b",
]
