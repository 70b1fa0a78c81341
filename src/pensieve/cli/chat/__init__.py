"""`pensieve chat`: the command that opens a backend and talks. The rest of the folder is what it is made of."""

from pensieve.cli.chat.command import chat

__all__ = ["chat"]
