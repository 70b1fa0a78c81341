"""docs/chat.md names every command and every option as they are."""

from __future__ import annotations

from pathlib import Path

import click

from pensieve.cli.chat.command import chat
from pensieve.cli.chat.commands.all import TABLE
from pensieve.prompts.presets import BUILT_IN

PAGE = (Path(__file__).parents[4] / "docs" / "chat.md").read_text(encoding="utf-8")


def test_every_command_stands_in_the_page() -> None:
    """With its usage, its summary and its other names."""
    for command in TABLE.commands:
        usage = f"/{command.name} {command.usage}".rstrip().replace("|", "\\|")
        also = f" Also {', '.join(f'`/{alias}`' for alias in command.aliases)}." if command.aliases else ""
        assert f"| `{usage}` | {command.summary}{also} |" in PAGE


def test_every_option_and_preset_stands_in_the_page() -> None:
    """By its name."""
    options = [parameter.opts[0] for parameter in chat.params if isinstance(parameter, click.Option)]
    assert [option for option in options if f"`{option}" not in PAGE] == []
    assert [name for name in BUILT_IN if f"`{name}`" not in PAGE] == []
