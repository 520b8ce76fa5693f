"""LoRA files: extracted from two networks, measured, and read in every usual form."""

from .evaluate import OutputErrors, output_errors
from .extract import LoraOptions, extract_lora
from .factors import Factors, load_factors, save_factors
from .read import Lora, read_lora
from .report import Change, LoraReport

__all__ = [
    "Change",
    "Factors",
    "Lora",
    "LoraOptions",
    "LoraReport",
    "OutputErrors",
    "extract_lora",
    "load_factors",
    "output_errors",
    "read_lora",
    "save_factors",
]
