"""Control videos from plain video, as the network was trained on them: luma, lines, flow, depth, pose.

Every function is pure: frames `[F, H, W, 3]` float in [0, 1] (or depth, or keypoints) in, frames of the same
length out.
"""

from .depth import cut_frames, flicker, normalize_depth
from .flow import FlowVideo, dis_flow, flow_to_frames, flow_video, raft_flow
from .gray import luma, to_gray
from .keypoints import parse_keypoints
from .lines import draw_lines
from .pose import draw_pose
from .raft_weights import load_raft

__all__ = [
    "FlowVideo",
    "cut_frames",
    "dis_flow",
    "draw_lines",
    "draw_pose",
    "flicker",
    "flow_to_frames",
    "flow_video",
    "load_raft",
    "luma",
    "normalize_depth",
    "parse_keypoints",
    "raft_flow",
    "to_gray",
]
