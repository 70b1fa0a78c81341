"""Commands that write this conversation to a file and read conversations from one; nothing is overwritten unasked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pensieve.cli.chat.commands.asking import tell_choices
from pensieve.cli.chat.commands.table import Candidate, Command, Outcome
from pensieve.cli.chat.commands.words import among, count_of, files, needed, path_of
from pensieve.cli.chat.desk import Desk
from pensieve.cli.saving import is_there, read_plain, size_of
from pensieve.cli.saving import save as save_file
from pensieve.conversation.conversation import Conversation
from pensieve.conversation.export import FORMS, export
from pensieve.conversation.importing import read_conversations
from pensieve.errors import UsageError

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
    """Take the conversations of a file over, and go on with the last of them."""
    path = path_of(needed(argument, "/load FILE, as /save wrote it, or an export of ChatGPT's or Claude's"))
    found = read_conversations(
        read_plain(path, MAX_LOADED_BYTES, instead="`pensieve history import` takes it"), path.name
    )
    if not found:
        raise UsageError(f"{path} holds no conversation")
    desk.loop.run(desk.session.archive.do(lambda store: store.add_all(found[:-1])))
    opened = desk.loop.run(desk.session.add(found[-1]))
    others = f", and {count_of(len(found) - 1, 'other')} into the list" if len(found) > 1 else ""
    desk.say(f"loaded {opened.title or path.name} ({count_of(len(desk.session.turns), 'turn')}){others}")
    tell_choices(desk)
    return None


def _here(desk: Desk) -> Conversation:
    here = desk.session.conversation
    if here is None or not here.turns:
        raise UsageError("nothing was said yet in this conversation")
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
    desk.say(f"wrote {path} ({size_of(len(content))})")


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
