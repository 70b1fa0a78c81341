"""Commands that write this conversation to a file and read conversations from one; nothing is overwritten unasked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pensieve.cli.chat.commands.asking import tell_choices
from pensieve.cli.chat.commands.table import Candidate, Command, Outcome
from pensieve.cli.chat.commands.words import among, count_of, files, needed, path_of
from pensieve.cli.chat.desk import Desk
from pensieve.cli.chat.session import NOTHING_SAID
from pensieve.cli.saving import is_there, read_plain
from pensieve.cli.saving import save as save_file
from pensieve.conversation.conversation import Conversation
from pensieve.conversation.export import FORMS, export
from pensieve.conversation.importing import read_conversations
from pensieve.conversation.sameness import Taken
from pensieve.errors import UsageError
from pensieve.models.sizes import in_words

EXPORT_USAGE = f"/export FORM FILE, where FORM is {', '.join(FORMS)}; /export FILE goes by the file's ending"
MAX_LOADED_BYTES = 256 * 2**20
"""`pensieve history import` takes larger ones."""
NAME_CHARACTERS = 40


def save(desk: Desk, argument: str) -> Outcome:
    """Write the conversation, with all its branches, to a file that /load reads."""
    here = _here(desk)
    path = path_of(argument) if argument else Path(f"{_slug(here)}.json")
    _write(desk, path if path.suffix or is_there(path) else path.with_name(f"{path.name}.json"), export(here, "json"))
    return None


def export_to(desk: Desk, argument: str) -> Outcome:
    """Write the conversation as people read it."""
    here = _here(desk)
    form, _, rest = needed(argument, EXPORT_USAGE).partition(" ")
    path = path_of(rest.strip() or form)
    chosen = form.lower() if rest.strip() else path.suffix.removeprefix(".").lower()
    known = next((each for each in FORMS if each == chosen), None)
    if known is None or (not rest.strip() and not path.stem):
        raise UsageError(f"{chosen or argument} is not a form: {EXPORT_USAGE}")
    _write(desk, path, export(here, known))
    return None


def load(desk: Desk, argument: str) -> Outcome:
    """Take the conversations of a file over that are not here yet, and go on with the last of them."""
    path = path_of(needed(argument, "/load FILE, as /save wrote it, or an export of ChatGPT's or Claude's"))
    found = read_conversations(
        read_plain(path, MAX_LOADED_BYTES, instead="`pensieve history import` takes it"), path.name
    )
    if not found:
        raise UsageError(f"{path} holds no conversation")
    *others, last = desk.loop.run(desk.session.archive.do(lambda store: store.take(found)))
    opened = desk.loop.run(desk.session.open(last.id))
    if last.head is not None and last.head != opened.head:  # it has gone on since: that stays a branch
        desk.loop.run(desk.session.go(last.head))
    title, num_turns = opened.title or path.name, count_of(len(desk.session.turns), "turn")
    desk.say(f"{_told(last, title, num_turns)}{_told_others(others)}")
    if len(desk.session.turns) < len(opened.path()):
        desk.say("(it went on here since: /fork shows how, and leads there)")
    tell_choices(desk)
    return None


def _told(taken: Taken, title: str, num_turns: str) -> str:
    match taken.outcome:
        case "new":
            return f"loaded {title} ({num_turns})"
        case "known":
            return f"{title} is here already, as {taken.id}: going on with it ({num_turns})"
        case "changed":
            return f"loaded {title} ({num_turns}) as {taken.id}, a new one: another state of it is here already"


def _told_others(others: Sequence[Taken]) -> str:
    num_known = sum(each.outcome == "known" for each in others)
    num_added = len(others) - num_known
    added = f", and {count_of(num_added, 'other')} into the list" if num_added else ""
    return f"{added}, {count_of(num_known, 'other')} here already" if num_known else added


def _here(desk: Desk) -> Conversation:
    here = desk.session.conversation
    if here is None or not here.turns:
        raise UsageError(NOTHING_SAID)
    return here


def _slug(conversation: Conversation) -> str:
    words = re.sub(r"[^\w]+", "-", conversation.title.lower()).strip("-_")[:NAME_CHARACTERS].strip("-")
    return words or f"conversation-{conversation.id}"


def _write(desk: Desk, path: Path, content: bytes) -> None:
    is_replacing = is_there(path) and not path.is_dir()
    if is_replacing and not desk.screen.confirm(f"{path} is there already. Overwrite it?"):
        desk.say(f"nothing was written: {path} is there already")
        return
    save_file(path, content, is_replacing=is_replacing)
    desk.say(f"wrote {path} ({in_words(len(content))})")


def complete_saved(desk: Desk, typed: str) -> list[Candidate]:
    """Files that may hold conversations."""
    del desk
    return list(files(typed, (".json", ".zip")))


def complete_export(desk: Desk, typed: str) -> list[Candidate]:
    """The forms, then files."""
    del desk
    return list(_export_candidates(typed))


def _export_candidates(typed: str) -> Iterator[Candidate]:
    form, separator, rest = typed.partition(" ")
    if separator and form in FORMS:
        yield from files(rest.lstrip())
    elif not separator:
        yield from among(FORMS, typed)


COMMANDS = (
    Command[Desk]("save", save, "Write this conversation to a file.", "[FILE]", (), complete_saved, "Keep"),
    Command[Desk]("load", load, "Take over the conversations of a file.", "FILE", ("import",), complete_saved, "Keep"),
    Command[Desk](
        "export", export_to, "Write it as people read it.", "md|json|html|txt FILE", (), complete_export, "Keep"
    ),
)
