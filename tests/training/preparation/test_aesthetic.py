"""The aesthetic score of a tiny CLIP with random weights and heads in LAION's two layouts."""

import json
import shutil

import pytest
import torch

from training.preparation import quality
from training.preparation.aesthetic import aesthetic_score
from training.preparation.config import PrepareConfig, QualityConfig
from training.preparation.stage import StopError


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Folder of a CLIP with embeddings of 8 numbers."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    path = tmp_path_factory.mktemp("clip")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=CLIPTextConfig(**sizes, vocab_size=20),
        vision_config=CLIPVisionConfig(**sizes, image_size=16, patch_size=8),
        projection_dim=8,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(path)
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(
        path
    )
    return path


def settings_of(folder, head, **limits):
    """With a model and a head."""
    return QualityConfig(aesthetic_model=str(folder), aesthetic_head=str(head), **limits)


def test_the_score_is_the_heads_value_of_the_normalized_embedding(clip, tmp_path):
    from transformers import CLIPImageProcessor, CLIPModel

    frame = torch.rand(20, 24, 3)
    inputs = CLIPImageProcessor.from_pretrained(clip)(
        images=[(255 * frame).round().byte().numpy()], return_tensors="pt"
    )
    with torch.no_grad():
        features = CLIPModel.from_pretrained(clip).eval().get_image_features(**inputs)
    features = getattr(features, "pooler_output", features)
    features = features / features.norm()
    linear = torch.nn.Linear(8, 1)
    torch.save(linear.state_dict(), tmp_path / "linear.pth")
    score = aesthetic_score(frame.expand(5, -1, -1, -1), settings_of(clip, tmp_path / "linear.pth"))
    assert score == pytest.approx(linear(features).item(), abs=1e-4)
    layers = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Dropout(0.2), torch.nn.Linear(4, 1)).eval()
    state = {f"layers.{name}": value for name, value in layers.state_dict().items()}
    torch.save(state, tmp_path / "layers.pth")
    score = aesthetic_score(frame[None], settings_of(clip, tmp_path / "layers.pth"))
    assert score == pytest.approx(layers(features).item(), abs=1e-4)


def test_what_does_not_fit_is_named(clip, tmp_path):
    torch.save(torch.nn.Linear(12, 1).state_dict(), tmp_path / "wide.pth")
    with pytest.raises(StopError, match=r"wide\.pth holds no layers from CLIP's embedding to one number"):
        aesthetic_score(torch.rand(1, 16, 16, 3), settings_of(clip, tmp_path / "wide.pth"))
    weight, bias = torch.zeros(1, 8), torch.zeros(1)
    for content, words in (
        ({"0.weight": weight}, "holds no layers"),
        ({"0.weight": weight, "0.bias": torch.zeros(3)}, "holds no layers"),
        ({"0.weight": 1, 2: bias}, "holds no layers"),
        ({"0.weight": weight, "0.bias": bias * float("nan")}, "not finite"),
    ):
        torch.save(content, tmp_path / "odd.pth")
        with pytest.raises(StopError, match=words):
            aesthetic_score(torch.rand(1, 16, 16, 3), settings_of(clip, tmp_path / "odd.pth"))
    for folder, head, words in (
        (tmp_path, tmp_path / "wide.pth", "holds no config.json"),
        (clip, tmp_path / "gone.pth", "gone.pth does not exist"),
    ):
        config = PrepareConfig(input=["x"], quality=settings_of(folder, head))
        assert words in quality.missing(config)
    with pytest.raises(ValueError, match="go together"):
        QualityConfig(aesthetic_model="x")
    with pytest.raises(ValueError, match="needs a score"):
        QualityConfig(min_aesthetic=4.0)
    with pytest.raises(ValueError, match="min_aesthetic is nan; expected a number"):
        settings_of(clip, tmp_path / "odd.pth", min_aesthetic=float("nan"))


def test_plain_clips_are_rejected_by_the_limit(clip, tmp_path):
    torch.save(torch.nn.Linear(8, 1).state_dict(), tmp_path / "linear.pth")
    measures = {"brightness": 0.5, "border": 0, "contrast": 0.2, "sharpness": 100, "change": 0.1}
    limits = settings_of(clip, tmp_path / "linear.pth", min_aesthetic=5.0)
    assert quality.reject({**measures, "aesthetic": 5.5}, limits) == []
    assert quality.reject({**measures, "aesthetic": 4.5}, limits) == ["aesthetic score 4.50, min_aesthetic 5"]


def test_a_broken_preprocessor_ends_the_run(clip, tmp_path):
    """And rejects no clip for it."""
    copy = tmp_path / "clip"
    shutil.copytree(clip, copy)
    path = copy / "preprocessor_config.json"
    values = json.loads(path.read_text()) | {"crop_size": {"height": 24, "width": 24}}
    path.write_text(json.dumps(values))
    torch.save(torch.nn.Linear(8, 1).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(StopError, match=r"transformers cannot load .* as a CLIP"):
        aesthetic_score(torch.rand(5, 20, 24, 3), settings_of(copy, tmp_path / "linear.pth"))
