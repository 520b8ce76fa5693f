"""Estimates the GPU memory and time of a distillation run, without a GPU."""
