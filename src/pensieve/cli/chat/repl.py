"""The chat: one line in, one answer out, in a terminal or a pipe. Knows no backend.

On a terminal Ctrl-C stops the answer or clears the line, and never ends the program; in a pipe it does end it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import nullcontext

from pensieve.cli.chat.commands.table import Answer, Command, Invocation, Leave, Outcome, Table, Text, Unknown
from pensieve.cli.chat.commands.words import count_of
from pensieve.cli.chat.desk import Desk
from pensieve.cli.chat.keyboard import Keyboard, LineKeyboard, quiet_terminal
from pensieve.cli.chat.manner import figures, whole
from pensieve.cli.chat.meter import Meter
from pensieve.cli.chat.retries import problem_of
from pensieve.cli.chat.session import Event, Retrying
from pensieve.cli.chat.window import Forgot
from pensieve.cli.failures import INTERRUPTED_STATUS
from pensieve.errors import ConversationNotFound, PensieveError, WorkerCrashed
from pensieve.generation import Finished, GenerationEvent

LATE = "An answer could not be kept: copy it from above if you want it"


class Repl:
    """Reads lines until the end of input; `run` returns the exit status."""

    def __init__(
        self, desk: Desk, table: Table[Desk], meter: Meter, *, is_interactive: bool, keyboard: Keyboard | None = None
    ) -> None:
        self._desk = desk
        self._meter = meter
        self._keyboard = keyboard or LineKeyboard()
        self._table = table
        self._screen = desk.screen
        self._is_interactive = is_interactive
        self._has_failed = False
        self._is_asking = False
        """Whether what was typed asks the model."""
        self.has_left = False

    def answer(self, question: str) -> int:
        """Answer one question, whatever it begins with; the exit status."""
        try:
            self._attempt(lambda: self._draw(self._desk.session.submit(question)))
        except KeyboardInterrupt:
            return INTERRUPTED_STATUS
        return 1 if self._has_failed else 0

    def run(self, first: str = "") -> int:
        """Talk until the person leaves, `first` of all. In a pipe, a question that failed makes the status 1."""
        if first:
            self.take(first)
        try:
            return self._talk()
        finally:
            self._part()

    def _talk(self) -> int:
        while not self.has_left:
            try:
                self.take(self._next_line())
            except EOFError:
                self.has_left = True
            except KeyboardInterrupt:
                if not self._is_interactive:
                    return INTERRUPTED_STATUS
                self._screen.say("(Ctrl-D or /exit leaves)")
        return 1 if self._has_failed and not self._is_interactive else 0

    def _next_line(self) -> str:
        self._desk.loop.start(self._meter.look())
        try:
            return self._keyboard.read()
        finally:
            self._desk.loop.listen()

    def _part(self) -> None:
        """Let the archive take what it did not take yet; what it does not take now is shown once more."""
        session = self._desk.session
        try:
            self._desk.loop.run(session.keep_rest())
        except PensieveError as error:
            num_waiting = len(session.waiting)
            lost = f"{count_of(num_waiting, 'question')} could not be kept:" if num_waiting else LATE
            self._screen.warn(f"{error}. {lost}")
            for question in session.waiting:
                self._screen.say(question.text)

    def take(self, line: str) -> None:
        """Do what one line says."""
        self._is_asking = False
        match self._table.read(line):
            case Text(text) if text:
                self._attempt(lambda: self._ask(text))
            case Unknown() as unknown:
                self._screen.say(str(unknown))
            case Invocation(command, argument):
                self._attempt(lambda: self._obey(command, argument))

    def _ask(self, text: str) -> None:
        self._draw(self._desk.session.submit(text))
        self._remind()

    def _remind(self) -> None:
        """Say what still waits, after another question was answered."""
        if (num_waiting := len(self._desk.session.waiting)) and self._is_interactive:
            self._screen.say(f"({wait(num_waiting)})")

    def _obey(self, command: Command[Desk], argument: str) -> None:
        self._follow(command.run(self._desk, argument))

    def _follow(self, outcome: Outcome) -> None:
        session = self._desk.session
        match outcome:
            case Leave():
                self.has_left = True
            case Answer(is_summary):
                self._draw(session.compact() if is_summary else session.answer())
                self._remind()
            case None:
                pass

    def _attempt(self, act: Callable[[], None]) -> None:
        try:
            act()
        except KeyboardInterrupt:
            self._screen.end()
            if not self._is_interactive:
                raise
            self._screen.say("(stopped; /retry asks again)" if self._can_retry else "(stopped)")
        except PensieveError as error:
            self._fail(error)
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 - the top of the chat: a bug costs one answer, not the conversation
            self._fail(f"{type(error).__name__}: {error} (a bug in Pensieve: please report it)")

    def _draw(self, events: AsyncGenerator[Event, None]) -> None:
        """Draw an answer; whatever ends it, all that had come until then is drawn."""
        self._is_asking = True
        shown = whole(events) if self._desk.is_whole else events
        with (
            quiet_terminal() if self._is_interactive else nullcontext(),
            self._desk.loop.stream(shown) as stream,
        ):
            self._begin()
            try:
                for batch in stream:
                    self._show(batch)
            finally:
                stream.end()
                self._show(stream.rest())
                self._screen.end()

    def _begin(self) -> None:
        self._meter.begin()
        self._screen.begin()

    def _show(self, batch: Sequence[Event]) -> None:
        for event in batch:
            match event:
                case Forgot():
                    self._screen.say(told(event))
                case Retrying():
                    self._screen.end()
                    self._screen.warn(told(event))
                    self._begin()
                case _:
                    self._show_event(event)
        self._screen.refresh()

    def _show_event(self, event: GenerationEvent) -> None:
        self._meter.add(event)
        self._screen.draw(event)
        if isinstance(event, Finished) and self._desk.is_verbose:
            self._screen.say(figures(self._meter.speed, event.usage))

    def _fail(self, error: PensieveError | str) -> None:
        self._has_failed = True
        hint = self._hint(str(error))
        self._screen.fail(f"{explained(error, is_hinted=bool(hint))}{hint}")

    def _hint(self, problem: str) -> str:
        session = self._desk.session
        num_waiting = len(session.waiting)
        if num_waiting > 1 or (num_waiting and session.failed):  # /retry asks what waits, not what failed
            return f" ({wait(num_waiting)})"
        is_told = "/retry" in problem
        return (
            " (/retry asks again)"
            if self._is_asking and self._is_interactive and self._can_retry and not is_told
            else ""
        )

    @property
    def _can_retry(self) -> bool:
        """Whether the last question has no whole answer."""
        session = self._desk.session
        return bool(session.waiting) or session.unanswered is not None or bool(session.failed)


def explained(error: PensieveError | str, *, is_hinted: bool) -> str:
    """The error with what to do in the chat; what a hint behind it says is left out."""
    match error:
        case ConversationNotFound(what):
            return f"{what} is not here: /list shows what is"
        case WorkerCrashed() if is_hinted:
            return f"{problem_of(error)}; it restarts by itself"
        case _:
            return str(error)


def wait(num_waiting: int) -> str:
    """What a person is told of questions that could not be kept yet."""
    if num_waiting == 1:
        return "1 question waits that could not be kept: /retry asks it, /undo takes it back"
    return (
        f"{num_waiting} questions wait that could not be kept: /retry asks the first of them, /undo takes the last back"
    )


def told(event: Forgot | Retrying) -> str:
    """What a person is told of it."""
    match event:
        case Forgot(num_turns):
            left = "oldest turn has" if num_turns == 1 else f"{num_turns} oldest turns have"
            return f"the context is full: the {left} left it; /compact lets a summary stand for what was said instead"
        case Retrying(problem, delay_seconds):
            when = f" in {delay_seconds:.0f} s" if delay_seconds >= 1 else ""
            return f"{problem}: trying once more{when}"
