"""`pensieve chat`: chooses who answers, offers to pull a model that is missing, and runs the chat."""

from __future__ import annotations

import sys

import click
import msgspec

from pensieve.cli.ask import read_question
from pensieve.cli.backend import Place, check_quantization, choose, connect, open_chat_backend
from pensieve.cli.chat.archive import Archive
from pensieve.cli.chat.commands.all import TABLE
from pensieve.cli.chat.commands.asking import tell_system, use_preset
from pensieve.cli.chat.commands.keeping import show_list, show_opened
from pensieve.cli.chat.commands.words import number
from pensieve.cli.chat.desk import Desk
from pensieve.cli.chat.loop import LoopThread
from pensieve.cli.chat.meter import Meter
from pensieve.cli.chat.options import CHOOSE, SETTINGS, Options, options
from pensieve.cli.chat.repl import Repl
from pensieve.cli.chat.session import ChatSession
from pensieve.cli.chat.source import Source
from pensieve.cli.chat.terminal import Views, open_terminal
from pensieve.cli.context import load_settings
from pensieve.cli.progress import Progress
from pensieve.cli.recipe import Recipe
from pensieve.config.sources import LoadedSettings
from pensieve.conversation.conversation import Conversation
from pensieve.errors import ModelNotFound, UsageError
from pensieve.inference.server_client import AT_ONCE
from pensieve.prompts.preset_files import split


@click.command()
@options
def chat(words: tuple[str, ...], **flags: str | bool | None) -> int:
    """Talk with a model; WORDS are the first question.

    In a pipe each line of standard input is a question; with --print all of it is one, after the WORDS.
    """
    loaded = load_settings({key: flags[name] for name, key in SETTINGS.items()})
    others = {name: value for name, value in flags.items() if name not in SETTINGS}
    given = [name for name in SETTINGS if flags[name] is not None]
    asked = msgspec.convert({**others, "words": words, "given": given}, Options)
    question = read_question(words) if asked.is_printed else " ".join(words)
    place = _place(asked, loaded, flags["model"])
    check_quantization(loaded.settings.mlx.quantization if flags["quantization"] else None, place)
    with LoopThread() as loop:
        return _talk(loop, place, loaded, asked, question)


def _place(asked: Options, loaded: LoadedSettings, model: str | bool | None) -> Place:
    if asked.connect is None:
        return _choose_or_pull(loaded)
    return connect(asked.connect, str(model) if model else None, loaded.settings, loaded.folders)


def _choose_or_pull(loaded: LoadedSettings) -> Place:
    try:
        return _choose(loaded)
    except ModelNotFound as missing:
        is_offered = missing.is_known and sys.stdin.isatty()
        if not is_offered or not click.confirm(f"{missing.what} is not here yet. Fetch it now?", err=True):
            raise
        _pull(missing.what)
        return _choose(loaded)


def _choose(loaded: LoadedSettings) -> Place:
    with Progress() as progress:
        return choose(loaded.settings, loaded.folders, progress.tell)


def _pull(model: str) -> None:
    from pensieve.cli.pull import pull  # noqa: PLC0415 - brings an HTTP client, and is needed once

    pull.main([model], prog_name="pensieve pull", standalone_mode=False)


def _talk(loop: LoopThread, place: Place, loaded: LoadedSettings, asked: Options, question: str) -> int:
    recipe = Recipe.of(loaded.settings.generation, place.model)
    source = source_at(place, unwritten(loaded) if asked.is_private else loaded)
    archive = Archive(loaded.folders.conversations, is_private=asked.is_private)
    try:
        opening = loop.start(archive.open())
        session = ChatSession(loop.run(source.open()), recipe, archive, given=recipe.chosen(asked.given))
        meter = Meter(source, session)
        views = Views(lambda line: TABLE.complete(desk, line), lambda: meter.status, lambda: meter.loading)
        terminal = open_terminal(views, loaded.folders.state, is_printed=asked.is_printed, is_private=asked.is_private)
        desk = Desk(session, source, terminal.screen, loop, loaded.settings, loaded.folders)
        desk.is_verbose, desk.is_whole = asked.is_verbose, asked.is_whole
        opening.result()
        opened = _prepare(desk, asked)
        repl = Repl(desk, TABLE, meter, is_interactive=terminal.is_interactive, keyboard=terminal.keyboard)
        if asked.is_printed:
            return repl.answer(question)
        if terminal.is_interactive:
            _greet(desk, meter)
        if opened is not None:
            show_opened(desk, opened)
        return repl.run(question)
    finally:
        loop.run(source.aclose())
        loop.run(archive.aclose())


def unwritten(loaded: LoadedSettings) -> LoadedSettings:
    """The settings, but with no cache on the disk, not even for a moment: what is said would be in it."""
    settings = loaded.settings
    mlx = msgspec.structs.replace(settings.mlx, disk_cache_mib=0)
    # llama.cpp gives one slot what another has read through a file: one slot needs none.
    llamacpp = msgspec.structs.replace(settings.llamacpp, prompt_cache_mib=0, parallel=1)
    return msgspec.structs.replace(loaded, settings=msgspec.structs.replace(settings, mlx=mlx, llamacpp=llamacpp))


def source_at(place: Place, loaded: LoadedSettings) -> Source:
    """Who answers, there or wherever another model is."""
    settings, folders = loaded.settings, loaded.folders

    def choose_named(name: str) -> Place:
        if place.is_connected and place.server is not None:
            return connect(place.server.url, name, settings, folders)
        named = msgspec.structs.replace(settings.model, name=name)
        # The chat goes on meanwhile, and a wait that nobody can end would hold its end up.
        return choose(msgspec.structs.replace(settings, model=named), folders, lambda _: None, AT_ONCE)

    return Source(place, lambda place: open_chat_backend(place, settings, folders), choose_named)


def _prepare(desk: Desk, asked: Options) -> Conversation | None:
    """Open the conversation to go on with, if one is wanted, and the preset; say if nothing can be kept."""
    if (problem := desk.session.archive.problem) is not None:
        if asked.is_continued or asked.resume is not None:
            raise problem
        desk.screen.warn(f"{problem}. Until then nothing of this chat is kept: /save FILE writes it to a file")
    opened = _resume(desk, asked)
    if asked.preset is not None:
        name, given = split(asked.preset)
        preset = desk.shelf.find(name)
        use_preset(desk, preset, preset.render(given), desk.session.given)
    return opened


def _resume(desk: Desk, asked: Options) -> Conversation | None:
    """Open the conversation to go on with, if one is wanted; the command line's system text takes the place of its."""
    wanted = _wanted(desk, asked)
    if wanted is None:
        return None
    if asked.is_private:
        wanted = _copy(desk, wanted)
    opened = desk.loop.run(desk.session.open(wanted))
    system = desk.session.base.system
    if "system" in asked.given and system != desk.session.recipe.system:
        tell_system(desk, system)
    return opened


def _copy(desk: Desk, wanted: int) -> int:
    archive = desk.session.archive
    kept = desk.loop.run(archive.kept(lambda store: store.open(wanted)))
    return desk.loop.run(archive.do(lambda store: store.add(kept))).id


def _wanted(desk: Desk, asked: Options) -> int | None:
    if asked.is_continued:
        archive = desk.session.archive
        look = archive.kept if asked.is_private else archive.do
        latest = desk.loop.run(look(lambda store: store.latest()))
        if latest is None:
            raise UsageError("there is no conversation to go on with: `pensieve chat` begins one")
        return latest
    if asked.resume is None:
        return None
    chosen = _chosen(desk) if asked.resume == CHOOSE else asked.resume
    return number(chosen, "`pensieve history list` shows the conversations")


def _chosen(desk: Desk) -> str:
    show_list(desk, "")
    wanted = desk.screen.ask("Which one? ID")
    if not wanted:
        raise UsageError("no conversation was chosen: `pensieve chat --resume ID`, or `--continue` for the last one")
    return wanted


def _greet(desk: Desk, meter: Meter) -> None:
    """Say who answers; the model is loaded while the first question is typed."""
    place = desk.source.place
    meter.load(desk.loop.start(_load(desk, meter)))
    desk.say(f"{place.model}, {place.description}. /help shows the commands, Ctrl-D leaves.")
    if desk.session.archive.is_private:
        desk.say("Private: nothing of this chat is kept. /save and /export write it to a file if you want it.")


async def _load(desk: Desk, meter: Meter) -> None:
    if desk.source.place.server is None:
        await desk.source.load()
    await meter.look()
