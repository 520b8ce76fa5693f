"""Checkpoints: recognize published layouts, read strictly, convert, split and merge, extract LoRAs."""

from .acc_wan_init import acc_wan_init
from .convert import convert
from .gguf_write import convert_to_gguf
from .info import CheckpointInfo
from .lora import LoraOptions, LoraReport, extract_lora, output_errors
from .merge import merge
from .open_tensors import read_tensors
from .read import NetworkWeights, inspect, load_network, read_weights
from .split import split
from .stored import StoredWeights, open_weights
from .verify import Check, verify
from .write import save_network, save_weights

__all__ = [
    "Check",
    "CheckpointInfo",
    "LoraOptions",
    "LoraReport",
    "NetworkWeights",
    "StoredWeights",
    "acc_wan_init",
    "convert",
    "convert_to_gguf",
    "extract_lora",
    "inspect",
    "load_network",
    "merge",
    "open_weights",
    "output_errors",
    "read_tensors",
    "read_weights",
    "save_network",
    "save_weights",
    "split",
    "verify",
]
