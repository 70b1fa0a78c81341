"""`pensieve history`: the conversations on this machine. Works on the store alone: no model, no server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from pensieve.cli import history_pages as pages
from pensieve.cli.context import load_settings
from pensieve.cli.saving import is_there, read, save
from pensieve.cli.text import one_line, printable_json
from pensieve.conversation import document
from pensieve.conversation.conversation import Conversation
from pensieve.conversation.export import FORMS, Form, export
from pensieve.conversation.importing import MAX_BYTES, read_conversations
from pensieve.conversation.store import ConversationStore
from pensieve.errors import UsageError
from pensieve.messages import Json

NUMBER = click.IntRange(min=1, max=2**63 - 1)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
limit = click.option("--limit", type=NUMBER, default=20, show_default=True, help="So many at most.")


@click.group()
def history() -> None:
    """Find, read, export, import and delete conversations."""


@history.command("list")
@limit
@click.option("--all", "is_all", is_flag=True, help="However many there are.")
@as_json
def list_conversations(limit: int, is_all: bool, as_json: bool) -> None:
    """List the conversations, the one that changed last first."""
    with _store() as store:
        found = store.list(-1 if is_all else limit)
        num_more = 0 if is_all else store.stats().num_conversations - len(found)
    if as_json:
        _print_json(found)
    elif not found:
        click.echo("no conversation is kept yet: `pensieve chat` begins one", err=True)
    else:
        pages.show_table(pages.SUMMARY_HEAD, list(map(pages.summary_row, found)))
        if num_more > 0:
            click.echo(f"and {num_more:,} more: --all shows them", err=True)


@history.command()
@click.argument("words", nargs=-1, required=True)
@limit
@as_json
def search(words: Sequence[str], limit: int, as_json: bool) -> int:
    """Find where all these WORDS were said, newest first; the last one may be a beginning."""
    with _store() as store:
        found = store.search(" ".join(f'"{word}"' if " " in word else word for word in words), limit)
    if as_json:
        _print_json([_hit_facts(hit) for hit in found])
    elif found:
        pages.show_table(pages.HIT_HEAD, list(map(pages.hit_row, found)))
    else:
        click.echo("nothing was found: try fewer words, or the beginning of one", err=True)
    return 0 if found else 1


@history.command()
@click.argument("number", type=NUMBER)
@as_json
def show(number: int, as_json: bool) -> None:
    """Show a conversation by its NUMBER."""
    with _store() as store:
        conversation = store.open(number)
    if as_json:
        click.echo(printable_json(document.write([conversation])), nl=False)
    else:
        pages.show_conversation(conversation)


@history.command("export")
@click.argument("numbers", type=NUMBER, nargs=-1)
@click.option("--all", "is_all", is_flag=True, help="Every conversation, as JSON.")
@click.option("--format", "form", type=click.Choice(FORMS), help="By default what --out's name ends with, else md.")
@click.option("--out", type=click.Path(path_type=Path), help="The file to write; by default it is printed.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
def export_conversations(
    numbers: Sequence[int], is_all: bool, form: Form | None, out: Path | None, force: bool
) -> None:
    """Write conversations to a file, for people (md, html, txt) or for `history import` (json).

    The file holds the branch that is spoken now; json holds all branches.
    """
    if not numbers and not is_all:
        raise UsageError("say which conversation by its number (`pensieve history list` shows them), or --all")
    with _store() as store:
        chosen = [each.id for each in reversed(store.list())] if is_all else numbers
        conversations = [store.open(number) for number in chosen]
    chosen_form = form or _form_of(out, "json" if is_all else "md")
    data = _exported(conversations, chosen_form)
    if out is None:
        click.echo(printable_json(data) if chosen_form == "json" else data, nl=False)
        return
    is_replacing = force or (
        is_there(out) and not out.is_dir() and _is_confirmed(f"Replace {one_line(str(out))}?", "say --force")
    )
    save(out, data, is_replacing=is_replacing)
    click.echo(f"{one_line(str(out))} is written", err=True)


@history.command("import")
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--again", is_flag=True, help="Take conversations that are here already too, as copies.")
def import_conversations(files: Sequence[Path], again: bool) -> None:
    """Take conversations out of FILES: our JSON, or the export of ChatGPT or Claude (conversations.json or the ZIP).

    All of a file is taken, or nothing where something in it is not understood. What is here already is left out; a
    conversation that is here in another state is taken beside that.
    """
    with _store() as store:
        for file in files:
            found = read_conversations(read(file, MAX_BYTES), str(file))
            taken = [] if again else [each.outcome for each in store.take(found)]
            num_taken = len(store.add_all(found)) if again else len(taken) - taken.count("known")
            known = f", {taken.count('known'):,} here already" if "known" in taken else ""
            changed = f" ({taken.count('changed'):,} beside an older or newer state)" if "changed" in taken else ""
            click.echo(f"{one_line(str(file))}: {pages.count_of(num_taken, 'conversation')} taken{changed}{known}")


@history.command()
@click.argument("numbers", type=NUMBER, nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
def rm(numbers: Sequence[int], yes: bool) -> int:
    """Delete conversations for good, out of the search and off the disk too."""
    with _store() as store:
        titles = [one_line(store.open(number).title) or f"conversation {number}" for number in numbers]
        question = f"Delete {', '.join(titles)}?"
        if not yes and not _is_confirmed(question, "say --yes"):
            click.echo("nothing was deleted", err=True)
            return 1
        store.delete(*dict.fromkeys(numbers))
    click.echo(f"{pages.count_of(len(set(numbers)), 'conversation')} deleted")
    return 0


@history.command()
@as_json
def stats(as_json: bool) -> None:
    """Show how much was said, by which models."""
    with _store() as store:
        found, path = store.stats(), str(store.path)
    if as_json:
        _print_json(found)
        return
    for line in pages.stats_lines(found, path):
        click.echo(line)
    if found.models:
        click.echo()
        pages.show_table(pages.MODEL_HEAD, pages.model_rows(found))


def _store() -> ConversationStore:
    return ConversationStore(load_settings().folders.conversations)


def _exported(conversations: Sequence[Conversation], form: Form) -> bytes:
    if form == "json":
        return document.write(conversations)
    if len(conversations) != 1:
        raise UsageError(f"{form} holds one conversation: name one, or say --format json")
    return export(conversations[0], form)


def _form_of(out: Path | None, otherwise: Form) -> Form:
    ending = "" if out is None else out.suffix.lower().lstrip(".")
    return next((form for form in FORMS if form == ending), otherwise)


def _is_confirmed(question: str, otherwise: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody is at a terminal to answer: {otherwise}")
    return click.confirm(question, err=True)


def _hit_facts(hit: msgspec.Struct) -> Json:
    facts: dict[str, Json] = msgspec.to_builtins(hit)
    facts["snippet"] = "".join(piece for piece, _ in facts["snippet"])
    return facts


def _print_json(value: object) -> None:
    click.echo(printable_json(msgspec.json.format(msgspec.json.encode(value))))
