"""Measures a clip's optical flow."""

from __future__ import annotations

import torch

from vdot_core.signals import dis_flow, raft_flow

from .annotate import annotator
from .clip_files import load
from .config import PrepareConfig
from .stage import Row, out_path


def missing(config: PrepareConfig) -> str | None:
    """Why flow cannot be measured here."""
    return annotator("flow", config).missing()


def measure_motion(row: Row, config: PrepareConfig) -> Row:
    """Mean and 95th percentile of the flow's length, in pixels a frame, of RAFT or OpenCV's DIS (fast)."""
    clip = row["trim"]
    frames = load(out_path(config, clip["file"]), config.clips.frame_rate, clip["num_frames"])
    network = annotator("flow", config).network()
    flow = dis_flow(frames, preset="fast") if network is None else raft_flow(frames, network)
    lengths = flow.norm(dim=1)
    means = lengths.flatten(1).mean(1)
    return {
        "mean_px": round(float(means.mean()), 4),
        "peak_px": round(
            float(torch.quantile(lengths.flatten()[:: max(1, lengths.numel() // 1_000_000)], 0.95)), 4
        ),
    }
