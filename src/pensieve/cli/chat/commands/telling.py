"""Commands that tell about the chat itself, and the ones that leave it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from pensieve.cli.chat.archive import Archive
from pensieve.cli.chat.commands.table import Candidate, Command, Leave, Outcome, Unknown
from pensieve.cli.chat.commands.table import Table as Commands
from pensieve.cli.chat.commands.words import among, count_of
from pensieve.cli.chat.desk import Desk
from pensieve.cli.chat.meter import last_usage
from pensieve.cli.chat.screen import Table
from pensieve.cli.doctor_memory import examine, page
from pensieve.conversation.conversation import Turn, shortened
from pensieve.devices.cuda import read_devices
from pensieve.errors import UsageError
from pensieve.inference.backend import Limits
from pensieve.messages import Json
from pensieve.models.sizes import in_words

KEYS = (
    ("Alt+Enter", "begin a line; Enter sends"),
    ("Tab", "complete a command, a name, a file"),
    ("Up, Ctrl-R", "what was typed before, also in other chats; Ctrl-R searches it"),
    ("Ctrl-X Ctrl-E", "write the question in your editor"),
    ("Ctrl-T", "show the model's thinking, or fold it"),
    ("Ctrl-C", "stop the answer, or clear the line; in an empty line it says how to leave"),
    ("Ctrl-D", "leave"),
    ('"""', "begin and end a text of several lines"),
    ("//", "at the beginning of a line: send it as text, though it begins with a slash"),
)
SHOWN_CHARACTERS = 60
"""Of a file, in a request as /debug shows it."""
TOLD_CHARACTERS = 200
Run = Callable[[Desk, str], Outcome]


def help_with(commands: Callable[[], Commands[Desk]]) -> Run:
    """The `/help` of this table; it is asked for when help is, so that help may stand in the table itself."""
    return functools.partial(_help, commands)


def complete_help(commands: Callable[[], Commands[Desk]]) -> Callable[[Desk, str], Sequence[Candidate]]:
    """The names of all commands."""

    def complete(desk: Desk, typed: str) -> Sequence[Candidate]:
        del desk
        return [Candidate(each.name, each.summary) for each in commands().commands if each.name.startswith(typed)]

    return complete


def _help(commands: Callable[[], Commands[Desk]], desk: Desk, argument: str) -> Outcome:
    if argument:
        _explain(desk, commands().find(argument.partition(" ")[0]))
        return None
    groups: dict[str, list[Command[Desk]]] = {}
    for command in commands().commands:
        groups.setdefault(command.group, []).append(command)
    for group, members in groups.items():
        rows = tuple((f"/{each.name} {each.usage}".rstrip(), each.summary) for each in members)
        desk.screen.show(Table(rows, title=group))
    desk.screen.show(Table(KEYS, title="Keys"))
    return None


def _explain(desk: Desk, found: Command[Desk] | Unknown) -> None:
    if isinstance(found, Unknown):
        raise UsageError(str(found))
    desk.say(f"/{found.name} {found.usage}".rstrip())
    desk.say(found.summary)
    if found.aliases:
        desk.say(f"also: {', '.join(f'/{alias}' for alias in found.aliases)}")


def leave(desk: Desk, argument: str) -> Outcome:
    """Leave the chat."""
    del desk, argument
    return Leave()


def info(desk: Desk, argument: str) -> Outcome:
    """Show what this chat is: model, place, conversation, context, preset."""
    del argument
    limits, session = desk.loop.run(desk.source.backend.limits()), desk.session
    here = session.conversation
    rows = [
        ("model", desk.source.place.model),
        ("where", desk.source.place.description),
        ("engine", limits.engine),
        ("context", _context(session.turns, limits)),
        ("can", ", ".join(limits.capabilities)),
        ("conversation", "new" if here is None else f"{here.id}: {here.title}"),
        ("turns", str(len(session.turns))),
        ("left out", f"{count_of(session.window.num_left, 'oldest turn')}" if session.window.num_left else ""),
        ("attached", count_of(len(session.attachments), "part") if session.attachments else ""),
        ("waiting", count_of(len(session.waiting), "question") if session.waiting else ""),
        ("preset", desk.session.choices.preset),
        ("told first", shortened(" ".join(session.recipe.system.split()), TOLD_CHARACTERS)),
        ("kept in", _kept_in(session.archive)),
    ]
    desk.screen.show(Table(tuple(row for row in rows if row[1])))
    return None


def is_kept(archive: Archive) -> bool:
    """Whether what is said goes to a file."""
    return archive.problem is None and not archive.is_private


def _kept_in(archive: Archive) -> str:
    if archive.is_private:
        return "nothing: this chat is private; /save and /export write it to a file"
    return str(archive.path) if is_kept(archive) else "nothing: it ends with the chat"


def _context(turns: Sequence[Turn], limits: Limits) -> str:
    usage = last_usage(turns)
    used = usage.prompt_tokens + usage.completion_tokens if usage is not None else 0
    planned = ", planned" if limits.is_planned else ""
    return f"{used:,} of {limits.context_tokens:,} tokens{planned}"


def tokens(desk: Desk, argument: str) -> Outcome:
    """Count the tokens of the next prompt, or of a text, with the model's own tokenizer."""
    session = desk.session
    if argument:
        desk.say(f"{count_of(desk.loop.run(session.count_text(argument)), 'token')}")
        return None
    used, limits = desk.loop.run(session.count()), desk.loop.run(desk.source.backend.limits())
    system = desk.loop.run(session.count_text(session.recipe.system)) if session.recipe.system else 0
    left = max(0, limits.context_tokens - used)
    rows = [
        ("told first", f"{system:,}"),
        ("prompt so far", f"{used:,}"),
        ("context", f"{limits.context_tokens:,}"),
        ("left", f"{left:,} ({left / max(1, limits.context_tokens):.0%})"),
    ]
    desk.screen.show(Table(tuple(rows), ("TOKENS", "")))
    return None


def stats(desk: Desk, argument: str) -> Outcome:
    """Show sums over this conversation and over all that are kept."""
    del argument
    turns = desk.session.turns
    everything = desk.loop.run(desk.session.archive.do(lambda store: store.stats()))
    prompt, cached = sum(t.usage.prompt_tokens for t in turns), sum(t.usage.cached_tokens for t in turns)
    rows = [
        ("turns", f"{len(turns):,}", f"{everything.num_turns:,}"),
        ("conversations", "", f"{everything.num_conversations:,}"),
        ("prompt tokens", f"{prompt:,}", f"{everything.prompt_tokens:,}"),
        ("of them cached", f"{cached:,}", f"{everything.cached_tokens:,}"),
        ("answer tokens", f"{sum(t.usage.completion_tokens for t in turns):,}", f"{everything.completion_tokens:,}"),
        *((("tokens a second", rate, ""),) if (rate := _rate(turns)) else ()),
    ]
    if is_kept(desk.session.archive):
        rows.append(("size on disk", "", in_words(everything.size_bytes)))
    desk.screen.show(Table(tuple(rows), ("", "HERE", "ALL")))
    return None


def _rate(turns: Sequence[Turn]) -> str:
    measured = [(t.usage.completion_tokens, t.timings.decode_seconds) for t in turns if t.timings is not None]
    seconds = sum(each for _, each in measured)
    return f"{sum(each for each, _ in measured) / seconds:.1f}" if seconds > 0 else ""


def memory(desk: Desk, argument: str) -> Outcome:
    """Show the memory of this machine and the level it is at."""
    del argument
    report = examine(desk.settings.memory, read_devices(), desk.source.health())
    desk.say("\n".join(page(report)))
    return None


@runtime_checkable
class Themed(Protocol):
    """A screen with colours to choose from."""

    theme: str

    @property
    def themes(self) -> Sequence[str]:
        """Their names."""
        ...


def theme(desk: Desk, argument: str) -> Outcome:
    """Choose the colours; without a name, show which there are."""
    screen = desk.screen
    if not isinstance(screen, Themed):
        raise UsageError("there are no colours here: not in a pipe, and not on a dumb terminal")
    if not argument:
        desk.screen.show(Table(tuple(("*" if name == screen.theme else "", name) for name in screen.themes)))
        return None
    if argument not in screen.themes:
        raise UsageError(f"there is no theme {argument}: there are {', '.join(screen.themes)}")
    screen.theme = argument
    desk.say(f"the theme is {argument}")
    return None


def complete_themes(desk: Desk, typed: str) -> list[Candidate]:
    """The themes."""
    return list(among(desk.screen.themes, typed)) if isinstance(desk.screen, Themed) else []


def debug(desk: Desk, argument: str) -> Outcome:
    """Show the last request as it was sent."""
    if argument:
        raise UsageError("/debug takes nothing more")
    request = desk.session.last_request
    if request is None:
        raise UsageError("nothing was sent yet")
    shown = _without_files(msgspec.json.decode(msgspec.json.encode(request)))
    desk.screen.page(msgspec.json.format(msgspec.json.encode(shown)).decode())
    return None


def _without_files(value: Json) -> Json:
    """The same with a note in the place of what attached files hold, which nobody can read as base64."""
    match value:
        case dict():
            return {
                key: f"({count_of(len(each), 'character')} of base64)"
                if key == "data" and isinstance(each, str) and len(each) > SHOWN_CHARACTERS
                else _without_files(each)
                for key, each in value.items()
            }
        case list():
            return [_without_files(each) for each in value]
        case _:
            return value


COMMANDS = (
    Command[Desk]("info", info, "Show model, conversation, context and preset.", group="Tell"),
    Command[Desk]("stats", stats, "Show sums over this conversation and all of them.", group="Tell"),
    Command[Desk]("tokens", tokens, "Count the tokens of the prompt, or of a text.", "[TEXT]", group="Tell"),
    Command[Desk]("memory", memory, "Show the machine's memory and its level.", aliases=("mem",), group="Tell"),
    Command[Desk]("theme", theme, "Choose the colours.", "[NAME]", (), complete_themes, "Tell"),
    Command[Desk]("debug", debug, "Show the last request as it was sent.", group="Tell"),
    Command[Desk]("exit", leave, "Leave; the conversation is kept.", aliases=("quit", "q", "bye"), group="Tell"),
)
