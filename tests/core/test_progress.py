"""Long loops report progress, and end when the callback raises."""

import pytest
import torch

from vdot_core import signals, vcu
from vdot_core.progress import reporting, steps

CLIP, MASK = torch.rand(9, 32, 48, 3), torch.zeros(9, 32, 48)
MASK[:, 8:20, 8:30] = 1
PERSON = {"people": [{"pose_keypoints_2d": [0.5, 0.5, 1.0] * 18}], "canvas_width": 64, "canvas_height": 64}
UNIT = vcu.inpaint(CLIP, MASK)


def vae(video):
    return torch.zeros(
        len(video), 16, (video.shape[1] - 1) // 4 + 1, *(side // 8 for side in video.shape[2:4])
    )


LOOPS = {
    "coarsening masks": lambda: vcu.inpaint(CLIP, MASK, mask_shape="hull"),
    "scaling": lambda: vcu.inpaint(CLIP, MASK, width=64),
    "boxes": lambda: vcu.layout([4, 4, 20, 20], width=64, height=64, num_frames=9),
    "contours": lambda: vcu.layout_masks(MASK),
    "detected boxes": lambda: vcu.box_masks([], width=32, height=32, num_frames=9),
    "pasting": lambda: vcu.paste_back(CLIP, UNIT),
    "references": lambda: vcu.reference(CLIP, width=64, height=64, num_frames=5),
    "preview": lambda: vcu.preview(UNIT),
    "encoding": lambda: vcu.encode(UNIT, vae),
    "gray": lambda: signals.to_gray(CLIP),
    "lines": lambda: signals.draw_lines(CLIP),
    "flow": lambda: signals.flow_video(CLIP),
    "depth": lambda: signals.normalize_depth(CLIP[..., 0], mode="stable"),
    "flicker": lambda: signals.flicker(CLIP[..., 0]),
    "pose": lambda: signals.draw_pose([PERSON] * 3, width=64, height=64),
}


@pytest.mark.parametrize("name", LOOPS)
def test_every_long_loop_reports_and_can_be_canceled(name):
    if name == "flow":
        pytest.importorskip("cv2")
    calls = []
    with reporting(lambda count, total: calls.append((count, total))):
        LOOPS[name]()
    assert calls and all(1 <= count <= total for count, total in calls) and calls[-1][0] == calls[-1][1]

    def cancel(count, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), reporting(cancel):
        LOOPS[name]()


def test_nothing_is_reported_where_no_one_listens():
    assert list(steps(range(3))) == [0, 1, 2]
