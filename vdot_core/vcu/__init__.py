"""Video condition units: what to generate, what to keep, what to show; and their encoding for the network."""

from ..choices import MASK_SHAPES, NORMALIZATIONS
from .boxes import box_masks, boxes_per_frame, track_boxes
from .canvas import rounded_length, rounding_named, snap_length, snap_size
from .compose import compose
from .crop import Crop, crop_region
from .encode import CONTEXT_CHANNELS, LATENT_CHANNELS, VCUContext, encode, latent_shape
from .extension import extend, keyframes
from .latent_cache import GrayCache, LatentCache
from .layout import layout, layout_masks, move
from .masks import EXPAND_RATIO, augment
from .outpaint import outpaint, widened_shape
from .paste import find_nothing_kept, paste_back, stitch
from .preview import preview
from .references import reference
from .repaint import inpaint
from .scaling import cover, letterbox
from .sizes import SIZES, VideoSize
from .strip import Strip, strip, window_strip
from .tasks import control, depth, text
from .tracks import path_boxes
from .unit import SIZE_MULTIPLE, VAE_STRIDE, VCU, num_latent_frames, strength_curve

__all__ = [
    "CONTEXT_CHANNELS",
    "EXPAND_RATIO",
    "LATENT_CHANNELS",
    "MASK_SHAPES",
    "NORMALIZATIONS",
    "SIZES",
    "SIZE_MULTIPLE",
    "VAE_STRIDE",
    "VCU",
    "Crop",
    "GrayCache",
    "LatentCache",
    "Strip",
    "VCUContext",
    "VideoSize",
    "augment",
    "box_masks",
    "boxes_per_frame",
    "compose",
    "control",
    "cover",
    "crop_region",
    "depth",
    "encode",
    "extend",
    "find_nothing_kept",
    "inpaint",
    "keyframes",
    "latent_shape",
    "layout",
    "layout_masks",
    "letterbox",
    "move",
    "num_latent_frames",
    "outpaint",
    "paste_back",
    "path_boxes",
    "preview",
    "reference",
    "rounded_length",
    "rounding_named",
    "snap_length",
    "snap_size",
    "stitch",
    "strength_curve",
    "strip",
    "text",
    "track_boxes",
    "widened_shape",
    "window_strip",
]
