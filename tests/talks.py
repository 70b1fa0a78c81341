"""A chat over a scripted backend without a process: text in, text out. Shared by the tests of sessions and commands."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from pensieve.cli.backend import Place
from pensieve.cli.chat.archive import Archive
from pensieve.cli.chat.commands.all import TABLE
from pensieve.cli.chat.desk import Desk
from pensieve.cli.chat.loop import LoopThread
from pensieve.cli.chat.meter import Meter
from pensieve.cli.chat.plain import PlainScreen
from pensieve.cli.chat.repl import Repl
from pensieve.cli.chat.session import ChatSession
from pensieve.cli.chat.source import Source
from pensieve.cli.recipe import Recipe
from pensieve.config.settings import Folders, Settings
from pensieve.errors import ModelNotFound
from pensieve.inference.backend import Backend
from pensieve.inference.router import Router
from pensieve.inference.script import Script
from pensieve.inference.scripted import ScriptedBackend
from pensieve.models.spec import ModelSpec


class AnsweringScreen(PlainScreen):
    """A plain screen with somebody there, who gives these answers to questions, and keeps what is copied."""

    def __init__(self, shown: io.StringIO, replies: list[str]) -> None:
        super().__init__(shown, shown)
        self.replies = replies
        self.copied: list[str] = []

    def confirm(self, question: str, *, default: bool = False) -> bool:
        """Say the question and the reply."""
        reply = self.replies.pop(0) if self.replies else ""
        self.say(f"{question} {reply}")
        return reply == "y" if reply else default

    def edit(self, text: str) -> str | None:
        """Put the reply in place of the text."""
        self.say(f"(editing {text})")
        return self.replies.pop(0) if self.replies else None

    def copy(self, text: str) -> bool:
        """Keep the text."""
        self.copied.append(text)
        return True


class Library:
    """The scripts' models."""

    def __init__(self, specs: Iterable[ModelSpec]) -> None:
        self._specs = {spec.name: spec for spec in specs}

    def all(self) -> tuple[ModelSpec, ...]:
        """Each of them."""
        return tuple(self._specs.values())

    def find(self, name_or_path: str) -> ModelSpec:
        """The one of that name."""
        if name_or_path not in self._specs:
            raise ModelNotFound(name_or_path)
        return self._specs[name_or_path]

    def stored_name(self, name: str) -> str:
        """As it is."""
        return name


class Talk:
    """One chat: `say` gives all that is shown until the next line is read."""

    def __init__(self, folder: Path, loop: LoopThread, *scripts: Script, system: str = "") -> None:
        self.folders = Folders(config=folder, data=folder / "data", state=folder / "state")
        self.backends = {script.model: ScriptedBackend(script) for script in scripts}
        self.loop = loop
        self.replies: list[str] = []
        self._shown = io.StringIO()
        self.screen = AnsweringScreen(self._shown, self.replies)
        recipe = Recipe(scripts[0].model, system)
        self.library = Library(script.spec for script in scripts)
        self.source = Source(self._place(recipe.model), self._open, self._place)
        self.archive = Archive(self.folders.conversations)
        self.session = ChatSession(loop.run(self.source.open()), recipe, self.archive)
        self.desk = Desk(self.session, self.source, self.screen, loop, Settings(), self.folders)
        self.meter = Meter(self.source, self.session)
        self._repl = Repl(self.desk, TABLE, self.meter, is_interactive=True)

    @property
    def backend(self) -> ScriptedBackend:
        """The first script's."""
        return next(iter(self.backends.values()))

    def say(self, *lines: str) -> str:
        """Type lines; what is shown, without the last line's end."""
        self._shown.seek(0)
        self._shown.truncate()
        for line in lines:
            self._repl.take(line)
        return self._shown.getvalue().rstrip("\n")

    def leave(self) -> str:
        """Read no further line, as after the end of input; what is shown."""
        self._shown.seek(0)
        self._shown.truncate()
        self._repl.has_left = True
        self._repl.run()
        return self._shown.getvalue().rstrip("\n")

    @property
    def has_left(self) -> bool:
        """Whether the chat has ended."""
        return self._repl.has_left

    def close(self) -> None:
        """Give everything back."""
        self.loop.run(self.source.aclose())
        self.loop.run(self.archive.aclose())

    def _place(self, name: str) -> Place:
        return Place(name, spec=self.library.find(name))

    @asynccontextmanager
    async def _open(self, place: Place) -> AsyncIterator[Backend]:
        router = Router(self.library.find(place.model), lambda spec: self.backends[spec.name], self.library)
        yield router
        await router.aclose()


@contextmanager
def talking(folder: Path, *scripts: Script, system: str = "") -> Iterator[Talk]:
    """A chat in that folder, closed at the end; what is kept there stays."""
    with LoopThread() as loop:
        talk = Talk(folder, loop, *(scripts or (Script.saying("One.", "Two.", "Three."),)), system=system)
        try:
            yield talk
        finally:
            talk.close()
