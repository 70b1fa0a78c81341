"""What slash commands work with: the session, the screen, who answers, and where the user's things are.

Belongs to the main thread, which has the keyboard; what must be awaited runs on the loop's own thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pensieve.cli.chat.loop import LoopThread
from pensieve.cli.chat.screen import Screen
from pensieve.cli.chat.session import ChatSession
from pensieve.cli.chat.source import Source
from pensieve.config.settings import Folders, Settings
from pensieve.models.registry import Registry
from pensieve.prompts.preset_files import Shelf


@dataclass
class Desk:
    """One chat's things."""

    session: ChatSession
    source: Source
    screen: Screen
    loop: LoopThread
    settings: Settings
    folders: Folders
    is_verbose: bool = False
    """Whether each answer is followed by its figures."""
    is_whole: bool = False
    """Whether answers are shown when they are complete."""
    shelf: Shelf = field(init=False)
    registry: Registry = field(init=False)

    def __post_init__(self) -> None:
        """Find the user's presets and models."""
        self.shelf = Shelf(self.folders.prompts)
        self.registry = Registry(self.folders.models)

    def say(self, text: str) -> None:
        """Say something beside the answers."""
        self.screen.say(text)
