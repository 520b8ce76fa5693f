"""Where ComfyUI is absent its tests are skipped, except in continuous integration, which must have it."""

import pytest

from tests.support.comfy import comfyui_path, unavailable


@pytest.fixture
def absent(monkeypatch):
    """A machine without ComfyUI; set CI and COMFYUI_PATH on it."""
    import dev

    monkeypatch.setattr(dev, "find_comfyui", lambda: None)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    return monkeypatch


def test_absent_comfyui_is_a_skip_at_home_and_a_failure_in_ci(absent):
    with pytest.raises(pytest.skip.Exception, match="not installed"):
        comfyui_path()
    absent.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="not installed"):
        comfyui_path()
    with pytest.raises(pytest.fail.Exception, match="no browser"):
        unavailable("no browser")


def test_ci_may_leave_comfyui_out_on_purpose(absent):
    absent.setenv("CI", "true")
    absent.setenv("COMFYUI_PATH", "")
    with pytest.raises(pytest.skip.Exception, match="COMFYUI_PATH is empty"):
        comfyui_path()
