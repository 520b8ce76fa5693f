"""Flow against known motion, torchvision's color wheel and torchvision's RAFT."""

import builtins

import pytest
import torch
from torchvision.models.optical_flow import raft_large, raft_small
from torchvision.utils import flow_to_image

from vdot_core.signals import dis_flow, flow_to_frames, flow_video, load_raft, raft_flow

from .conftest import textured

pytest.importorskip("cv2")


def moving(shift=(3, 2), size=(96, 128), num_frames=3) -> torch.Tensor:
    """A texture that moves by `shift` (x, y) pixels a frame."""
    x, y = shift
    height, width = size
    margin = 24
    image = textured(height + 2 * margin, width + 2 * margin)
    return torch.stack(
        [
            image[margin - i * y : margin - i * y + height, margin - i * x : margin - i * x + width]
            for i in range(num_frames)
        ]
    )


@pytest.mark.parametrize("shift", [(3, 2), (-4, 1), (0, -3), (0, 0)])
@pytest.mark.parametrize("preset", ["fast", "medium"])
def test_dis_finds_a_translation(shift, preset):
    flow = dis_flow(moving(shift), preset=preset)
    assert flow.shape == (2, 2, 96, 128)
    inside = flow[:, :, 16:-16, 16:-16].flatten(2)
    error = (inside - torch.tensor(shift).view(1, 2, 1)).norm(dim=1).median(dim=1).values
    assert float(error.max()) < 0.5


@pytest.mark.parametrize("scale", ["frame", "clip"])
def test_painting_is_torchvisions(scale):
    """torchvision scales by the longest vector of its batch: one map at a time, or all together."""
    flow = torch.randn(3, 2, 20, 30) * torch.tensor([1.0, 5.0, 0.2]).view(3, 1, 1, 1)
    expected = flow_to_image(flow) if scale == "clip" else torch.stack([flow_to_image(one) for one in flow])
    painted = flow_to_frames(flow, scale=scale)
    assert painted.dtype == torch.float32
    assert torch.equal((painted * 255).round(), expected.permute(0, 2, 3, 1).float())


def test_hue_is_direction_and_white_is_still():
    """Middlebury's wheel: right red, left cyan, down yellow, up blue-violet."""
    flow = torch.zeros(1, 2, 1, 5)
    flow[0, :, 0] = torch.tensor([[1.0, -1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0, 0.0]])
    right, left, down, up, still = flow_to_frames(flow)[0, 0]
    assert right[0] == 1 and right[1:].max() < 0.1
    assert left[0] == 0 and left[1:].min() > 0.7
    assert down[2] < 0.1 and down[:2].min() > 0.7
    assert up[2] == 1 and up[1] < 0.3
    assert torch.equal(still, torch.ones(3))


def test_first_map_is_shown_twice_and_length_is_kept():
    clip = moving(num_frames=4)
    video = flow_video(clip)
    assert video.frames.shape == clip.shape
    assert torch.equal(video.frames[0], video.frames[1])
    assert torch.equal(video.frames[1:], flow_to_frames(dis_flow(clip)))
    assert len(video.peak_px) == 3
    assert video.estimator == "OpenCV DIS (medium)"


def test_clip_scale_keeps_slow_moments_pale():
    clip = torch.cat([moving((6, 0), num_frames=2), moving((1, 0), num_frames=2)])[[0, 1, 2, 3]]
    flows = dis_flow(clip)
    video = flow_video(clip, scale="clip")
    assert torch.equal(video.frames[1:], flow_to_frames(flows, scale="clip"))
    whiteness = video.frames[1:].mean(dim=(1, 2, 3))
    assert whiteness[2] > whiteness[0]


def test_still_px_calms_a_still_shot():
    clip = textured(64, 64).expand(3, -1, -1, -1) + torch.randn(3, 64, 64, 3) * 0.004
    clip = clip.clamp(0, 1)
    loud, calm = flow_video(clip).frames, flow_video(clip, still_px=5.0).frames
    assert float(calm.mean()) > 0.98 > float(loud.mean())
    fast = moving((6, 0))
    assert torch.equal(flow_video(fast, still_px=1.0).frames, flow_video(fast).frames)


@pytest.fixture(scope="module")
def small_raft_file(tmp_path_factory):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = raft_small(weights=None, progress=False)
    path = tmp_path_factory.mktemp("optical_flow") / "raft_small_random.pth"
    torch.save(network.state_dict(), path)
    return path


def test_raft_is_torchvisions(small_raft_file):
    """On a size that needs no padding the result is the network's own, for the same weights."""
    clip = moving(size=(128, 136))
    oracle = raft_small(weights=None, progress=False).eval()
    oracle.load_state_dict(torch.load(small_raft_file, weights_only=True))
    first, second = (frame.permute(2, 0, 1)[None] * 2 - 1 for frame in clip[:2])
    with torch.no_grad():
        expected = oracle(first, second, num_flow_updates=20)[-1]
    torch.testing.assert_close(
        raft_flow(clip[:2], load_raft(small_raft_file)), expected, atol=1e-4, rtol=1e-4
    )


def test_raft_pads_small_and_odd_sizes(small_raft_file):
    """The border is repeated up to 128 x 136, half on each side; the flow of the frame itself is cut out."""
    clip = moving(size=(50, 133), num_frames=2)
    network = load_raft(small_raft_file)
    padded = torch.nn.functional.pad(clip.permute(0, 3, 1, 2) * 2 - 1, (1, 2, 39, 39), mode="replicate")
    with torch.no_grad():
        expected = network(padded[:1], padded[1:], num_flow_updates=20)[-1][:, :, 39:89, 1:134]
    torch.testing.assert_close(raft_flow(clip, network), expected, atol=1e-4, rtol=1e-4)
    assert flow_video(clip, network=network).estimator == "RAFT (small)"


def authors_names(state: dict) -> dict:
    """A torchvision state dict under the names of princeton-vl/RAFT, as raft-things.pth has them."""
    swaps = [
        ("feature_encoder.convnormrelu.0.", "fnet.conv1."),
        ("context_encoder.convnormrelu.0.", "cnet.conv1."),
        ("context_encoder.convnormrelu.1.", "cnet.norm1."),
        ("feature_encoder.conv.", "fnet.conv2."),
        ("context_encoder.conv.", "cnet.conv2."),
        ("feature_encoder.", "fnet."),
        ("context_encoder.", "cnet."),
        ("convnormrelu1.0.", "conv1."),
        ("convnormrelu1.1.", "norm1."),
        ("convnormrelu2.0.", "conv2."),
        ("convnormrelu2.1.", "norm2."),
        ("motion_encoder.convcorr1.0.", "encoder.convc1."),
        ("motion_encoder.convcorr2.0.", "encoder.convc2."),
        ("motion_encoder.convflow1.0.", "encoder.convf1."),
        ("motion_encoder.convflow2.0.", "encoder.convf2."),
        ("motion_encoder.conv.0.", "encoder.conv."),
        *[(f"recurrent_block.convgru{i}.conv{g}.", f"gru.conv{g}{i}.") for i in (1, 2) for g in "zrq"],
        ("mask_predictor.convrelu.0.", "update_block.mask.0."),
        ("mask_predictor.conv.", "update_block.mask.2."),
    ]
    out = {}
    for name, tensor in state.items():
        for ours, theirs in swaps:
            name = name.replace(ours, theirs)
        out["module." + name] = tensor
        if ".downsample.1." in name:
            out["module." + name.replace("downsample.1", "norm3")] = tensor
    return out


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_authors_weights_load_too(tmp_path, suffix):
    from safetensors.torch import save_file

    state = raft_large(weights=None, progress=False).state_dict()
    theirs = {name: tensor.clone() for name, tensor in authors_names(state).items()}
    assert any("fnet.layer2.0.conv1" in name for name in theirs)
    path = tmp_path / f"raft-things{suffix}"
    save_file(theirs, path) if suffix == ".safetensors" else torch.save(theirs, path)
    loaded = load_raft(path).state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


class Payload:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (builtins.exec, ("raise SystemExit('ran')",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"conv.weight": torch.zeros(1)}, "begins with 'conv.weight'"),
        ([1, 2], "begins with list"),
        ({"feature_encoder.convnormrelu.0.weight": torch.zeros(64, 3, 7, 7)}, "does not fit.*download"),
        (Payload(), "tensors alone"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "raft_other.pth")
    with pytest.raises(ValueError, match=message):
        load_raft(tmp_path / "raft_other.pth")


def test_weights_that_are_no_numbers_are_refused(small_raft_file):
    network = load_raft(small_raft_file)
    with torch.no_grad():
        network.feature_encoder.conv.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="RAFT's flow holds NaN or infinite numbers; download"):
        flow_video(torch.rand(2, 128, 128, 3), network=network)


def test_without_opencv_the_cure_is_named(monkeypatch):
    real_import = builtins.__import__

    def no_cv2(name, *args, **kwargs):
        if name == "cv2":
            raise ImportError("No module named 'cv2'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_cv2)
    with pytest.raises(ImportError, match=r"pip install opencv-python-headless.*models/optical_flow"):
        flow_video(moving())


def test_bad_clips_are_refused(bad_clip):
    clip, message = bad_clip
    for function in (flow_video, dis_flow):
        with pytest.raises(ValueError, match=message):
            function(clip)


def test_bad_requests_are_refused():
    clip = moving()
    with pytest.raises(ValueError, match="at least 2"):
        flow_video(clip[:1])
    with pytest.raises(ValueError, match="at least 16 pixels"):
        flow_video(clip[:, :8])
    with pytest.raises(ValueError, match="'frame' or 'clip'"):
        flow_video(clip, scale="video")
    with pytest.raises(ValueError, match="ultrafast, fast, medium"):
        dis_flow(clip, preset="best")
    with pytest.raises(ValueError, match=r"\[N, 2, H, W\]"):
        flow_to_frames(torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match="NaN"):
        flow_to_frames(torch.full((1, 2, 4, 4), float("nan")))
