"""The screen for pipes and simple terminals."""

from __future__ import annotations

import io

import pytest

from pensieve.cli.chat.plain import PlainScreen
from pensieve.errors import UsageError


def test_an_editor_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what says which one is used."""
    monkeypatch.setenv("VISUAL", "no-editor-of-this-name")
    with pytest.raises(UsageError, match="EDITOR says which one"):
        PlainScreen(io.StringIO(), io.StringIO(), is_interactive=True).edit("a question")
