"""The browser tests can run on another frontend than the one that ComfyUI installs."""

import pytest

from tests.browser.page import frontend_arguments


def test_the_folder_of_another_frontend(tmp_path, monkeypatch):
    monkeypatch.delenv("VDOT_FRONTEND", raising=False)
    assert frontend_arguments() == []
    static = tmp_path / "static"
    static.mkdir()
    monkeypatch.setenv("VDOT_FRONTEND", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no index"):
        frontend_arguments()
    (static / "index.html").write_text("")
    assert frontend_arguments() == ["--front-end-root", str(static)]
    monkeypatch.setenv("VDOT_FRONTEND", str(static))
    assert frontend_arguments() == ["--front-end-root", str(static)]
