"""Commands about kept conversations: list, open, name, delete and search them."""

from __future__ import annotations

from datetime import UTC, datetime

from pensieve.cli.chat.commands.asking import tell_choices
from pensieve.cli.chat.commands.table import Candidate, Command, Outcome
from pensieve.cli.chat.commands.talking import show_message
from pensieve.cli.chat.commands.words import ago, count_of, needed, number
from pensieve.cli.chat.desk import Desk
from pensieve.cli.chat.screen import Table
from pensieve.conversation.conversation import Conversation, shortened
from pensieve.errors import ConversationNotFound, UsageError

LISTED = 20
PRIVATE = (
    "this chat is private and shows nothing of what is kept elsewhere: `pensieve history` does, and "
    "`pensieve --no-save --resume ID` goes on with a copy"
)
SNIPPET_CHARACTERS = 100


def show_list(desk: Desk, argument: str) -> Outcome:
    """Show the conversations that changed last."""
    limit = number(argument, "/list 50 shows fifty", LISTED)
    found = desk.loop.run(desk.session.archive.do(lambda store: store.list(max(1, limit))))
    if not found:
        private = f"; {PRIVATE}" if desk.session.archive.is_private else ""
        raise UsageError(f"no conversation is kept yet: say something first{private}")
    here, now = desk.session.conversation, datetime.now(UTC)
    rows = tuple(
        (
            "*" if here is not None and each.id == here.id else "",
            str(each.id),
            each.title or "(no title)",
            count_of(each.num_turns, "turn"),
            each.model,
            ago(each.updated, now),
        )
        for each in found
    )
    desk.screen.show(Table(rows, ("", "ID", "TITLE", "TURNS", "MODEL", "CHANGED")))
    return None


def open_conversation(desk: Desk, argument: str) -> Outcome:
    """Go on with a kept conversation."""
    wanted = number(argument, "/list shows the conversations, /open 12 goes on with number 12")
    try:
        opened = desk.loop.run(desk.session.open(wanted))
    except ConversationNotFound as error:
        if desk.session.archive.is_private:
            raise UsageError(f"{error.what} is not here; {PRIVATE}") from error
        raise
    show_opened(desk, opened)
    return None


def show_opened(desk: Desk, conversation: Conversation) -> None:
    """Say what is gone on with, and show the last of it."""
    what = "a copy that is not kept" if desk.session.archive.is_private else str(conversation.id)
    desk.say(f"going on with {what}: {conversation.title} ({count_of(len(desk.session.turns), 'turn')})")
    if conversation.model not in ("", desk.session.recipe.model):
        desk.say(f"({conversation.model} answered there, {desk.session.recipe.model} does now; /model changes that)")
    tell_choices(desk)
    if conversation.turns:
        for message in desk.session.turns[-1].messages:
            show_message(desk, message)
    if desk.session.unanswered is not None:
        desk.say("(not answered: /retry asks again)")


def rename(desk: Desk, argument: str) -> Outcome:
    """Give this conversation a title."""
    title = " ".join(needed(argument, "/rename TITLE").split())
    desk.loop.run(desk.session.rename(title))
    desk.say(f"this conversation is called {title}")
    return None


def delete(desk: Desk, argument: str) -> Outcome:
    """Delete a kept conversation, for good, after asking."""
    here = desk.session.conversation
    wanted = number(argument, "/delete 12 deletes number 12, /list shows them", here.id if here is not None else None)
    doomed = desk.loop.run(desk.session.archive.do(lambda store: store.open(wanted)))
    question = f"Delete {doomed.title or wanted} with {count_of(len(doomed.turns), 'turn')}? It cannot be brought back."
    if not desk.screen.confirm(question):
        desk.say("nothing was deleted")
        return None
    desk.loop.run(desk.session.archive.do(lambda store: store.delete(wanted)))
    if here is not None and wanted == here.id:
        desk.session.new()
    desk.say("deleted")
    return None


def search(desk: Desk, argument: str) -> Outcome:
    """Find words in all conversations."""
    words = needed(argument, "/search WORDS looks for turns with all of them")
    hits = desk.loop.run(desk.session.archive.do(lambda store: store.search(words, LISTED)))
    if not hits:
        private = f"; {PRIVATE}" if desk.session.archive.is_private else ""
        raise UsageError(f"nothing was found: fewer or other words may help{private}")
    now = datetime.now(UTC)
    rows = tuple(
        (str(hit.conversation), ago(hit.created, now), hit.title, shortened(hit.text, SNIPPET_CHARACTERS))
        for hit in hits
    )
    desk.screen.show(Table(rows, ("ID", "SAID", "TITLE", "WORDS")))
    desk.say("/open ID goes on with one of them")
    return None


def complete_conversations(desk: Desk, typed: str) -> list[Candidate]:
    """The conversations that changed last, by number or by a word of their titles."""
    if " " in typed:
        return []  # a number would stand in the place of the last word alone
    found = desk.loop.run(desk.session.archive.do(lambda store: store.list(LISTED)))
    return [
        Candidate(str(each.id), each.title)
        for each in found
        if str(each.id).startswith(typed) or typed.lower() in each.title.lower()
    ]


COMMANDS = (
    Command[Desk]("list", show_list, "Show the kept conversations, newest first.", "[NUMBER]", ("ls",), group="Keep"),
    Command[Desk](
        "open",
        open_conversation,
        "Go on with a kept conversation.",
        "ID",
        ("resume",),
        complete_conversations,
        group="Keep",
    ),
    Command[Desk]("search", search, "Find words in all kept conversations.", "TEXT", ("find",), group="Keep"),
    Command[Desk]("rename", rename, "Give this conversation a title.", "TITLE", ("title",), group="Keep"),
    Command[Desk](
        "delete",
        delete,
        "Delete this or another conversation; asks first.",
        "[ID]",
        (),
        complete_conversations,
        group="Keep",
    ),
)
