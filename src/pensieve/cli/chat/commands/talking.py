"""Commands about what was said last: see it, take it back, say it otherwise, go on elsewhere."""

from __future__ import annotations

from pensieve.cli.chat.commands.attaching import names_of
from pensieve.cli.chat.commands.table import Answer, Candidate, Command, Outcome
from pensieve.cli.chat.commands.words import count_of, number
from pensieve.cli.chat.desk import Desk
from pensieve.cli.chat.screen import Table
from pensieve.cli.chat.session import NOTHING_SAID, SUMMARY_LAST
from pensieve.conversation.conversation import TITLE_CHARACTERS, Conversation, Turn, shortened
from pensieve.errors import UsageError
from pensieve.messages import Message, TextPart


def clear(desk: Desk, argument: str) -> Outcome:
    """Begin a new conversation on a clear screen."""
    _begin_anew(desk, argument, is_cleared=True)
    return None


def new(desk: Desk, argument: str) -> Outcome:
    """Begin a new conversation below the old one."""
    _begin_anew(desk, argument, is_cleared=False)
    return None


def _begin_anew(desk: Desk, argument: str, *, is_cleared: bool) -> None:
    if argument:
        raise UsageError("/new and /clear take nothing more: say your question after them, /rename TITLE for a title")
    old = desk.session.conversation
    desk.session.new()
    if is_cleared:
        desk.screen.clear()
    is_private = desk.session.archive.is_private
    kept = (
        f"; the old one is {'here until you leave' if is_private else 'kept'}, /open {old.id} goes back to it"
        if old is not None and old.turns
        else ""
    )
    desk.say(f"a new conversation{kept}")


def history(desk: Desk, argument: str) -> Outcome:
    """Show the conversation, or its last turns."""
    turns = desk.session.turns
    if not turns:
        raise UsageError("nothing was said yet in this conversation; /list shows older ones")
    wanted = number(argument, "/history 5 shows the last five turns", len(turns))
    if wanted < 1:
        raise UsageError("/history takes a number above 0")
    if wanted < len(turns):
        desk.say(f"({count_of(len(turns) - wanted, 'older turn')})")
    for turn in turns[-wanted:]:
        _show(desk, turn)
    return None


def _show(desk: Desk, turn: Turn) -> None:
    if turn.is_summary:
        desk.say("(from here on a summary stands for what is above it)")
    for message in turn.messages[-1:] if turn.is_summary else turn.messages:
        show_message(desk, message)
    if turn.answer is None and not turn.is_summary:
        desk.say("(not answered)")
    elif turn.is_interrupted:
        desk.say("(stopped)")


def show_message(desk: Desk, message: Message) -> None:
    """Draw a message as it was said, and name what was attached to it."""
    desk.screen.show(message)
    if names := names_of(message.parts):
        desk.say(f"(with {names})")


def undo(desk: Desk, argument: str) -> Outcome:
    """Take back the last question and its answer."""
    wanted = number(argument, "/undo 2 takes back two turns", 1)
    if wanted < 1:
        raise UsageError("/undo takes a number above 0")
    for _ in range(wanted):
        if desk.session.waiting:
            withdrawn = desk.session.withdraw()
            names = names_of(withdrawn.parts)
            desk.say(f"taken back: {withdrawn.text}{names and f', with {names}'} (it was not kept)")
            continue
        turn = desk.loop.run(desk.session.undo())
        desk.say(f"taken back: {title_of(turn)} (/fork {turn.id} brings it back)")
    return None


def retry(desk: Desk, argument: str) -> Outcome:
    """Have the last question answered again."""
    if argument:
        raise UsageError("/retry takes nothing more: /edit changes the question")
    desk.loop.run(desk.session.again())
    return Answer()


def edit(desk: Desk, argument: str) -> Outcome:
    """Put the last question in other words and have it answered."""
    waiting, turns = desk.session.waiting, desk.session.turns
    if not waiting and not turns:
        raise UsageError(NOTHING_SAID)
    if not waiting and turns[-1].is_summary:  # before somebody writes what nothing can take
        raise UsageError(SUMMARY_LAST)
    question = waiting[0] if waiting else turns[-1].question
    before = question.text if question is not None else ""
    text = argument or desk.screen.edit(before)
    if text is None or not text.strip() or text.strip() == before.strip():
        desk.say("the question was left as it was")
        return None
    desk.loop.run(desk.session.again(text.strip()))
    return Answer()


def fork(desk: Desk, argument: str) -> Outcome:
    """Go on after another turn; without a number, show where one can."""
    here = desk.session.conversation
    if here is None or not here.turns:
        raise UsageError(NOTHING_SAID)
    if not argument:
        desk.screen.show(_branches(here))
        return None
    turn = here.turn(number(argument, "/fork shows the turns, /fork 12 goes on after the turn 12"))
    if turn is None:
        raise UsageError(f"this conversation has no turn {argument}: /fork shows them")
    desk.loop.run(desk.session.go(turn.id))
    desk.say(f"going on after: {title_of(turn)}")
    return None


def compact(desk: Desk, argument: str) -> Outcome:
    """Have the model summarise the conversation; the summary then stands for it in the prompt."""
    del desk
    if argument:
        raise UsageError("/compact takes nothing more")
    return Answer(is_summary=True)


def copy(desk: Desk, argument: str) -> Outcome:
    """Put the last answer, or its last block of code, on the clipboard."""
    answer = next((turn.answer for turn in reversed(desk.session.turns) if turn.answer is not None), None)
    if answer is None:
        raise UsageError("there is no answer to copy yet")
    if argument not in ("", "code"):
        raise UsageError("/copy takes the answer, /copy code its last block of code")
    text = _last_code(answer.text) if argument else answer.text
    if not desk.screen.copy(text):
        raise UsageError("nothing here can reach a clipboard: /save FILE or /export txt FILE writes it to a file")
    desk.say(f"copied {count_of(len(text), 'character')}")
    return None


def _last_code(text: str) -> str:
    blocks = text.split("```")[1::2]
    if not blocks:
        raise UsageError("the last answer has no block of code: /copy takes all of it")
    return blocks[-1].partition("\n")[2]


def _branches(conversation: Conversation) -> Table:
    path = {turn.id for turn in conversation.path()}
    ends = {turn.id for turn in conversation.leaves()}
    rows = tuple(
        (
            str(turn.id),
            "here" if turn.id == conversation.head else "this branch" if turn.id in path else "another branch",
            "end" if turn.id in ends else "",
            title_of(turn),
        )
        for turn in conversation.turns
    )
    return Table(rows, ("TURN", "WHERE", "", "QUESTION"))


def title_of(turn: Turn) -> str:
    """The beginning of a turn's question, on one line."""
    parts = turn.question.parts if turn.question is not None else ()
    words = " ".join(part.text for part in parts if isinstance(part, TextPart)).split()
    text = "(a summary)" if turn.is_summary else " ".join(words)
    return shortened(text, TITLE_CHARACTERS)


def complete_turns(desk: Desk, typed: str) -> list[Candidate]:
    """The turns of the conversation, by number."""
    here = desk.session.conversation
    turns = () if here is None else here.turns
    return [Candidate(str(turn.id), title_of(turn)) for turn in turns if str(turn.id).startswith(typed)]


COMMANDS = (
    Command[Desk]("clear", clear, "Begin a new conversation on a clear screen; the old one is kept.", group="Talk"),
    Command("history", history, "Show what was said, or the last turns.", "[NUMBER]", group="Talk"),
    Command("new", new, "Begin a new conversation; the old one is kept.", group="Talk"),
    Command("undo", undo, "Take back the last question and its answer.", "[NUMBER]", group="Talk"),
    Command("retry", retry, "Have the last question answered again.", aliases=("again",), group="Talk"),
    Command("edit", edit, "Change the last question and ask it anew.", "[TEXT]", group="Talk"),
    Command(
        "fork",
        fork,
        "Go on after another turn; without a number, show them.",
        "[TURN]",
        ("branch",),
        complete_turns,
        group="Talk",
    ),
    Command("compact", compact, "Let a summary by the model stand for what was said.", group="Talk"),
    Command(
        "copy",
        copy,
        "Put the last answer on the clipboard, or its code.",
        "[code]",
        complete=lambda _desk, typed: [Candidate("code")] if "code".startswith(typed) else [],
        group="Talk",
    ),
)
