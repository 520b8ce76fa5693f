"""The nodes that the bundled workflows use, as a workflow file keeps them: sockets, widgets in order, height.

`tests/workflows/test_workflows.py` holds this against a running server's /object_info.
"""

from dataclasses import dataclass, field
from typing import Any

ROW, WIDGET_ROW, EDGE = 24, 30, 20
TEXT_BELOW, STRIP_BELOW = 80, 120  # what our nodes show after a run
UPLOAD = "image"  # what the page saves for an upload button


@dataclass(frozen=True)
class Socket:
    """An input: optional ones are drawn hollow; a growing one shows what is connected and one more.

    Attributes:
        name: of the input; of a growing input the name of the group.
        type: what it takes.
        optional: whether it may stay open.
        grows: the prefix of its entries where it grows ('image' for images.image0 ..), else ''.
        least: how many entries of a growing input are always there.
    """

    name: str
    type: str
    optional: bool = False
    grows: str = ""
    least: int = 1


@dataclass(frozen=True)
class NodeKind:
    """The description of a node type.

    Attributes:
        inputs: sockets in order.
        outputs: (name, type) in order.
        widgets: default by name, in the order in which the node shows them.
        uploads: number of upload buttons, which are saved after the widgets.
        height: in pixels, where rows do not tell it.
        editor: height of a picture to draw on, or of a window's picture.
    """

    inputs: tuple[Socket, ...] = ()
    outputs: tuple[tuple[str, str], ...] = ()
    widgets: dict[str, Any] = field(default_factory=dict)
    uploads: int = 0
    height: int = 0
    editor: int = 0

    def height_of(self, num_inputs: int) -> int:
        """Pixels from the title to the lower edge."""
        rows = ROW * max(num_inputs, len(self.outputs)) + WIDGET_ROW * len(self.widgets) + EDGE
        below = STRIP_BELOW if ("unit", "VDOT_VCU") in self.outputs else 0
        return (
            (self.height or rows + (TEXT_BELOW if "size_class" in self.widgets else 0)) + below + self.editor
        )


def _sockets(text: str) -> tuple[Socket, ...]:
    """'frames:IMAGE region:MASK?' as sockets."""
    pairs = (part.partition(":")[::2] for part in text.split())
    return tuple(Socket(name, kind.removesuffix("?"), kind.endswith("?")) for name, kind in pairs)


def _outputs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple(tuple(part.split(":")) for part in text.split())


def _task(inputs: str | tuple[Socket, ...], editor: int = 0, **widgets: Any) -> NodeKind:
    sockets = _sockets(inputs) if isinstance(inputs, str) else inputs
    return NodeKind(sockets, (("unit", "VDOT_VCU"),), widgets, editor=editor)


def _grow(name: str, prefix: str, kind: str, least: int = 1) -> Socket:
    return Socket(name, kind, optional=least == 0, grows=prefix, least=least)


DEMO = "bundled demo"
FIT = {"width": 0, "height": 0, "length": 0}
SHAPE = {"width": 64, "height": 64}  # of the size that VDOT Load gives: a square
LENGTH = {"length": 81}  # at most, where the model was made for less
CANVAS = {**SHAPE, **LENGTH}
GUIDE = {"strength": 1.0, "start_frame": 0, "end_frame": 0}
BOXES = {"colors": "", "box_width": 16, "box_height": 16}
MARGINS = {"left": 0, "right": 0, "top": 0, "bottom": 0}
SHAPING = {"mode": "pixels", "aspect": "16:9", "anchor_x": 0.5, "anchor_y": 0.5, "feather_px": 0}
SAMPLING_PARTS = {
    **{"denoise": 1.0, "start_step": 0, "end_step": 0, "add_noise": True, "leftover_noise": True},
    **{"switch_step": 0, "switch_sigma": 0.875, "nag_scale": 0.0, "nag_tau": 2.5, "nag_alpha": 0.25},
}
LAST_PARTS = ("switch_step", "switch_sigma", "nag_scale", "nag_tau", "nag_alpha")
SAMPLING = {"seed": 1, "after": "fixed", "preset": "auto", "steps": 4, "shift": 16.0, "solver": "unipc"}

SPAN = 150  # the bar of the frames that a control guides
SIZE = Socket("size", "VDOT_SIZE", optional=True)

KINDS = {
    "VDOTLoad": NodeKind(
        (),
        _outputs("model:MODEL clip:CLIP vae:VAE size:VDOT_SIZE"),
        {
            **dict.fromkeys(("model", "text_encoder", "vae"), DEMO),
            "size_class": "auto",
            "weight_dtype": "default",
        },
    ),
    "VDOTLoadClip": NodeKind(
        _sockets("video:VIDEO? size:VDOT_SIZE?"),
        _outputs("frames:IMAGE audio:AUDIO fps:FLOAT video:VIDEO"),
        {"file": "", "start": 0.0, "length": 0, "resolution": "auto", "fps": 16.0},
        uploads=1,
        height=540,
    ),
    "CheckpointLoaderSimple": NodeKind((), _outputs("MODEL:MODEL CLIP:CLIP VAE:VAE"), {"ckpt_name": ""}),
    "UNETLoader": NodeKind((), _outputs("MODEL:MODEL"), {"unet_name": "", "weight_dtype": "default"}),
    "CLIPTextEncode": NodeKind(
        _sockets("clip:CLIP"), _outputs("CONDITIONING:CONDITIONING"), {"text": ""}, height=170
    ),
    "LoadImage": NodeKind((), _outputs("IMAGE:IMAGE MASK:MASK"), {"image": ""}, uploads=1, height=300),
    "LoadImageMask": NodeKind(
        (), _outputs("MASK:MASK"), {"image": "", "channel": "red"}, uploads=1, height=300
    ),
    "ImageToMask": NodeKind(_sockets("image:IMAGE"), _outputs("MASK:MASK"), {"channel": "red"}),
    "LoadDA3Model": NodeKind(
        (), _outputs("DA3_MODEL:DA3_MODEL"), {"model_name": "", "weight_dtype": "default"}
    ),
    "DA3Inference": NodeKind(
        _sockets("da3_model:DA3_MODEL image:IMAGE"),
        _outputs("da3_geometry:DA3_GEOMETRY"),
        {"resolution": 504, "resize_method": "upper_bound_resize", "mode": "mono"},
    ),
    "DA3Render": NodeKind(
        _sockets("da3_geometry:DA3_GEOMETRY"),
        _outputs("IMAGE:IMAGE"),
        {"output": "depth", "output.normalization": "raw", "output.apply_sky_clip": True},
    ),
    "RTDETR_detect": NodeKind(
        _sockets("model:MODEL image:IMAGE"),
        _outputs("bboxes:BOUNDING_BOX"),
        {"threshold": 0.5, "class_name": "all", "max_detections": 100},
    ),
    "SDPoseKeypointExtractor": NodeKind(
        _sockets("model:MODEL vae:VAE image:IMAGE bboxes:BOUNDING_BOX?"),
        _outputs("keypoints:POSE_KEYPOINT"),
        {"batch_size": 16},
    ),
    "SDPoseFaceBBoxes": NodeKind(
        _sockets("keypoints:POSE_KEYPOINT"),
        _outputs("bboxes:BOUNDING_BOX"),
        {"scale": 1.5, "force_square": True},
    ),
    "SAM3_VideoTrack": NodeKind(
        _sockets("images:IMAGE model:MODEL initial_mask:MASK? conditioning:CONDITIONING?"),
        _outputs("track_data:SAM3_TRACK_DATA"),
        {"detection_threshold": 0.5, "max_objects": 4, "detect_interval": 1},
    ),
    "SAM3_TrackToMask": NodeKind(
        _sockets("track_data:SAM3_TRACK_DATA"), _outputs("masks:MASK"), {"object_indices": ""}
    ),
    "PrimitiveBoundingBox": NodeKind(
        (), _outputs("BOUNDING_BOX:BOUNDING_BOX"), {"x": 0, "y": 0, "width": 512, "height": 512}
    ),
    "VDOTNormalizeDepth": NodeKind(
        _sockets("depth:IMAGE"),
        _outputs("control:IMAGE report:STRING"),
        {"mode": "stable", "values": "metric", "clip_percent": 1.0, "window": 6.0},
    ),
    "VDOTPose": NodeKind(
        _sockets("frames:IMAGE"),
        _outputs("control:IMAGE keypoints:POSE_KEYPOINT"),
        {"face": True, "people": 8, "threshold": 0.3, "colors": "vace", "pen": 0.0},
    ),
    "VDOTDrawPose": NodeKind(
        _sockets("keypoints:POSE_KEYPOINT"),
        _outputs("control:IMAGE"),
        {
            **{"width": 0, "height": 0, "face": True, "hands": False, "threshold": 0.3},
            **{"colors": "vace", "pen": 1.0},
        },
    ),
    "VDOTBoxMask": NodeKind(
        _sockets("image:IMAGE bboxes:BOUNDING_BOX?"),
        _outputs("mask:MASK"),
        {"which": "all", "boxes": ""},
        editor=270,
    ),
    "VDOTCrop": NodeKind(
        _sockets("frames:IMAGE mask:MASK size:VDOT_SIZE?"),
        _outputs("frames:IMAGE mask:MASK crop:VDOT_CROP"),
        {"margin": 0.5, "width": 0, "height": 0},
        editor=190,
    ),
    "VDOTPasteBack": NodeKind(
        _sockets("images:IMAGE unit:VDOT_VCU"),
        _outputs("images:IMAGE"),
        {"feather_px": 8, "match_colors": False},
    ),
    "VDOTStitch": NodeKind(
        _sockets("original:IMAGE images:IMAGE unit:VDOT_VCU crop:VDOT_CROP"),
        _outputs("images:IMAGE"),
        {"feather_px": 8, "match_colors": False},
    ),
    "VDOTGray": NodeKind(
        _sockets("frames:IMAGE size:VDOT_SIZE?"), _outputs("control:IMAGE"), {"weights": "auto"}
    ),
    "VDOTLines": NodeKind(
        _sockets("frames:IMAGE"),
        _outputs("control:IMAGE"),
        {"threshold": 0.25, "thickness": 1.5, "softness": 0.5, "blur": 1.4, "dark_on_white": True},
    ),
    "VDOTText": _task("size:VDOT_SIZE?", **CANVAS),
    "VDOTControl": _task("frames:IMAGE region:MASK?", editor=SPAN, **FIT, **GUIDE),
    "VDOTDepth": _task(
        "depth:IMAGE region:MASK?", editor=SPAN, normalization="frame", invert=False, **FIT, **GUIDE
    ),
    "VDOTLayout": NodeKind(
        (_grow("masks", "mask", "MASK", 0), SIZE, Socket("picture", "IMAGE", optional=True)),
        (("unit", "VDOT_VCU"),),
        {"boxes": "", **CANVAS, **BOXES, "mask_shape": "original", "line_width": 0, **GUIDE},
        height=470,
        editor=450 + SPAN,
    ),
    "VDOTMask": _task(
        "frames:IMAGE mask:MASK",
        **{"mask_shape": "original", "expand": 0.0, **FIT, "still": False, "grow_px": 0, "blur_px": 0.0},
    ),
    "VDOTOutpaint": _task("frames:IMAGE size:VDOT_SIZE?", editor=270, **MARGINS, **FIT, **SHAPING),
    "VDOTExtend": _task("first:IMAGE? last:IMAGE? size:VDOT_SIZE?", editor=130, **LENGTH, width=0, height=0),
    "VDOTKeyframes": _task(
        (_grow("images", "image", "IMAGE"), SIZE),
        editor=150,
        **{"positions": "0, -1", **LENGTH, "width": 0, "height": 0, "clips": False},
    ),
    "VDOTMove": NodeKind(
        _sockets("image:IMAGE size:VDOT_SIZE?"),
        (("unit", "VDOT_VCU"),),
        {"boxes": "", **LENGTH, "width": 0, "height": 0, **BOXES, "strength": 1.0},
        height=360,
        editor=410,
    ),
    "VDOTReference": _task(
        (
            _grow("images", "image", "IMAGE"),
            _grow("masks", "mask", "MASK", 0),
            Socket("unit", "VDOT_VCU", optional=True),
            SIZE,
        ),
        **{**CANVAS, "cut_out": "auto", "margin": 0.1, "mask_is": "subject"},
    ),
    "VDOTCompose": _task((_grow("units", "unit", "VDOT_VCU", 2),)),
    "VDOTEncode": NodeKind(
        _sockets(
            "positive:CONDITIONING vae:VAE unit:VDOT_VCU negative:CONDITIONING? unit_2:VDOT_VCU? "
            "unit_3:VDOT_VCU?"
        ),
        _outputs("positive:CONDITIONING negative:CONDITIONING latent:LATENT trim_latent:INT"),
        {"strength": 1.0, "strength_2": 1.0, "strength_3": 1.0},
    ),
    "VDOTSampler": NodeKind(
        _sockets(
            "model:MODEL positive:CONDITIONING latent:LATENT negative:CONDITIONING? second_model:MODEL?"
        ),
        _outputs("latent:LATENT"),
        {**SAMPLING, "cfg": 1.0, "preview": True, **SAMPLING_PARTS},
        height=640,
    ),
    "VDOTLongVideo": NodeKind(
        _sockets(
            "model:MODEL positive:CONDITIONING vae:VAE unit:VDOT_VCU schedule:VDOT_SCHEDULE? audio:AUDIO? "
            "negative:CONDITIONING? second_model:MODEL? size:VDOT_SIZE?"
        ),
        _outputs("images:IMAGE video:VIDEO"),
        {
            **{"chunk": 81, "overlap": 17, **SAMPLING, "drift": True, "fade": True, "fps": 16.0},
            **{"filename_prefix": "", "resume": False, "all_frames": True, "cfg": 1.0, "preview": True},
            **{name: SAMPLING_PARTS[name] for name in LAST_PARTS},
            "loop": False,
            "paste_back": True,
            "match_colors": False,
        },
        height=620,
    ),
    "VAEDecode": NodeKind(_sockets("samples:LATENT vae:VAE"), _outputs("IMAGE:IMAGE"), height=80),
    "CreateVideo": NodeKind(
        _sockets("images:IMAGE audio:AUDIO?"), _outputs("VIDEO:VIDEO"), {"fps": 16.0, "bit_depth": 8}
    ),
    "SaveVideo": NodeKind(
        _sockets("video:VIDEO"),
        _outputs("video:VIDEO"),
        {"filename_prefix": "", "format": "auto", "codec": "auto"},
        height=340,
    ),
}
