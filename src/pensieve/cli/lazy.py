"""A click group that imports a command when it is used, so that starting stays quick. Knows no command."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

import click
import msgspec


class Entry(msgspec.Struct, frozen=True):
    """Where a command is, and the line that the group's help shows for it."""

    target: str
    """`module:attribute`."""
    summary: str

    def load(self) -> click.Command:
        """Import the command."""
        module, _, attribute = self.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command), self.target
        return command


class LazyGroup(click.Group):
    """Commands by name, imported on use; arguments that name no command are the default command's."""

    def __init__(self, *, entries: Mapping[str, Entry], default: str, **rest: Any) -> None:
        super().__init__(**rest)
        self._entries = entries
        self._default = default

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        del ctx
        return list(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None if there is no such name."""
        del ctx
        entry = self._entries.get(cmd_name)
        return entry.load() if entry else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command's name before options that are not the group's, or before nothing."""
        own = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        if not args or (args[0].startswith("-") and args[0] not in own):
            args = [self._default, *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See click; an unknown name is refused with the nearest one."""
        if args[0] not in self._entries and not ctx.resilient_parsing:
            nearest = difflib.get_close_matches(args[0], self._entries, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"the commands are {', '.join(self._entries)}"
            raise click.UsageError(f"no command {args[0]!r}: {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by the table alone: help imports none of them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in self._entries.items()])
