"""The prompt of a real terminal, on prompt-toolkit: many lines, completion, history, and a status below.

Enter sends, Alt+Enter begins a line. Knows no session; commands come as candidates for a line.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition, has_completions, is_done
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.styles import Style

from pensieve.cli.chat.drawing.spans import Row
from pensieve.cli.chat.input_history import InputHistory
from pensieve.cli.chat.keyboard import PROMPT, is_open_block, unquoted
from pensieve.cli.text import one_line, printable

CONTINUATION = "  "
REFRESH_SECONDS = 1.0
MAX_CANDIDATES = 500
COLOURS = {
    "prompt": "bold ansigreen",
    "bottom-toolbar": "noreverse",
    "status.warning": "ansiyellow",
    "status.bad": "bold ansired",
    "status.dim": "",
    "status.model": "bold",
    "hint": "italic",
}
PLAIN = {"prompt": "bold", "bottom-toolbar": "noreverse", "status.model": "bold", "status.bad": "bold"}

Candidates = Callable[[str], Sequence[tuple[str, str]]]
"""Words that may stand in the place of a line's last one, each with a note; for lines that begin with a slash."""


class EditorKeyboard:
    """See `Keyboard`."""

    def __init__(
        self,
        candidates: Candidates,
        status: Callable[[int], Row],
        history: InputHistory,
        *,
        has_colour: bool = True,
        unfold: Callable[[], None] | None = None,
    ) -> None:
        """`status` gives the row below the prompt, in at most so many columns; `unfold` is what Ctrl-T does."""
        self._status = status
        self._unfold = unfold
        self._hint = ""
        self._session: PromptSession[str] = PromptSession(
            message=[("class:prompt", PROMPT)],
            multiline=True,
            prompt_continuation=CONTINUATION,
            completer=_LineCompleter(candidates),
            complete_while_typing=Condition(lambda: get_app().current_buffer.text.startswith("/")),
            history=_History(history),
            key_bindings=self._bindings(),
            bottom_toolbar=self._toolbar,
            style=Style.from_dict(COLOURS if has_colour else PLAIN),
            color_depth=None if has_colour else ColorDepth.DEPTH_1_BIT,
            refresh_interval=REFRESH_SECONDS,
            reserve_space_for_menu=6,
            enable_open_in_editor=True,
            tempfile_suffix=".md",
        )

    def read(self, typed: str = "") -> str:
        """See `Keyboard.read`."""
        self._hint = ""
        text = self._session.prompt(default=typed)
        return unquoted(printable(text))

    def _toolbar(self) -> StyleAndTextTuples:
        columns = get_app().output.get_size().columns
        if self._hint:
            return [("class:hint", self._hint[: columns - 1])]
        return [(f"class:status.{span.style or 'dim'}", span.text) for span in self._status(columns - 1)]

    def _bindings(self) -> KeyBindings:
        bindings = KeyBindings()
        is_choosing = Condition(_is_choosing)

        @bindings.add("enter", filter=~is_choosing)
        @bindings.add("c-j", filter=~is_choosing)  # Enter, if it was pressed before there was a prompt
        def _(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if is_open_block(buffer.text):
                buffer.insert_text("\n")
            elif buffer.text.strip():
                buffer.validate_and_handle()

        @bindings.add("enter", filter=is_choosing)
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.complete_state = None

        @bindings.add("escape", "enter")
        @bindings.add("escape", "c-j")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @bindings.add("c-c")
        def _(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            self._hint = "" if buffer.text else "Ctrl-D or /exit leaves"
            if buffer.text:
                buffer.append_to_history()
            buffer.reset()

        @bindings.add("<any>", eager=False)
        def _(event: KeyPressEvent) -> None:
            self._hint = ""
            event.current_buffer.insert_text(event.data)

        if self._unfold is not None:
            bindings.add("c-t")(self._show_thinking)
        return bindings

    def _show_thinking(self, event: KeyPressEvent) -> None:
        from prompt_toolkit.application import run_in_terminal  # noqa: PLC0415 - here alone

        assert self._unfold is not None
        del event
        run_in_terminal(self._unfold)


def _is_choosing() -> bool:
    """Whether a candidate of the menu was chosen, which Enter then takes."""
    state = get_app().current_buffer.complete_state
    return has_completions() and not is_done() and state is not None and state.current_completion is not None


class _LineCompleter(Completer):
    """Completes the only line there is, if it begins with a slash."""

    def __init__(self, candidates: Candidates) -> None:
        self._candidates = candidates

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """See prompt-toolkit."""
        del complete_event
        line = document.text_before_cursor
        if not line.startswith("/") or "\n" in line:
            return
        last_word = line.rsplit(" ", 1)[-1]
        for text, note in self._candidates(line)[:MAX_CANDIDATES]:
            yield Completion(printable(text), -len(last_word), display_meta=one_line(note))


class _History(History):
    """Reads and adds to the file; what is long ago is loaded with the first prompt, a few milliseconds."""

    def __init__(self, kept: InputHistory) -> None:
        super().__init__()
        self._kept = kept

    async def load(self) -> AsyncGenerator[str, None]:
        """See prompt-toolkit: newest first."""
        if not self._loaded:
            self._loaded_strings = self._kept.load()[::-1]
            self._loaded = True
        for text in self._loaded_strings:
            yield text

    def load_history_strings(self) -> Iterable[str]:
        """See prompt-toolkit."""
        return self._kept.load()[::-1]

    def store_string(self, string: str) -> None:
        """See prompt-toolkit."""
        self._kept.add(string)
