"""The one table of all commands, in the order of help. Knows nothing else."""

from __future__ import annotations

from pensieve.cli.chat.commands import asking, attaching, filing, keeping, talking, telling
from pensieve.cli.chat.commands.table import Command, Table
from pensieve.cli.chat.desk import Desk


def _table() -> Table[Desk]:
    return TABLE


HELP = Command[Desk](
    "help",
    telling.help_with(_table),
    "Show the commands, or what one of them does.",
    "[COMMAND]",
    ("h", "?"),
    telling.complete_help(_table),
    "Talk",
)
TABLE = Table(
    (
        HELP,
        *talking.COMMANDS,
        *asking.COMMANDS,
        *attaching.COMMANDS,
        *filing.COMMANDS,
        *keeping.COMMANDS,
        *telling.COMMANDS,
    )
)
