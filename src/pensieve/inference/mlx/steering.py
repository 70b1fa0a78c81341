"""What the next token of one answer may be: thinking first, for as long as it may last, then what a constraint says.

Plain Python over token ids; knows no arrays and no model. Masks are bits, one a token, the lowest first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol

import msgspec

from pensieve.errors import BackendFailure, PensieveError
from pensieve.inference.constraints.constraint import NOT_KEPT

OPENING_TOKENS: Final = 32
"""Thinking that has not begun after so many tokens does not come any more."""


class Matcher(Protocol):
    """Follows an answer through a grammar."""

    def mask(self) -> bytes:
        """The tokens that may come next, those that end the answer included where it may end; empty: it failed."""
        ...

    def accepts(self, token: int) -> bool:
        """Whether it may come next."""
        ...

    def take(self, tokens: Sequence[int]) -> bool:
        """They came next; False: it failed."""
        ...

    def reset(self) -> None:
        """Back to the beginning."""
        ...


class Words(Protocol):
    """What steering must know of a vocabulary."""

    def bytes_of(self, token: int) -> bytes:
        """What the token stands for; a special token for its name."""
        ...

    def only(self, tokens: Sequence[int]) -> bytes:
        """The mask of these."""
        ...

    def without(self, tokens: Sequence[int]) -> bytes:
        """The mask of all others."""
        ...

    def beyond(self, marker: bytes) -> Mapping[int, tuple[int, ...]]:
        """Size of what is written of the marker -> the tokens that would write its rest and go on behind it."""
        ...


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """How one answer is to go, told in token ids."""

    thinking: Literal["none", "may begin", "has begun", "is unwanted"] = "none"
    """`is unwanted`: the prompt has begun it, and it is closed at once."""
    opener: tuple[int, ...] = ()
    opener_text: bytes = b""
    closer: tuple[int, ...] = ()
    closer_text: bytes = b""
    bridge: tuple[int, ...] = ()
    """Comes behind a closer that was forced, where nothing is bound."""
    may_think_again: bool = False
    """After one block there may be another; they share the budget."""
    budget_tokens: int | None = None
    triggers: tuple[tuple[bytes, tuple[int, ...]], ...] = ()
    """Text is free until one of them stands there; the constraint begins with its tokens."""
    stop_tokens: tuple[int, ...] = ()


class _Watch:
    """Waits for a marker in the bytes of an answer."""

    def __init__(self, marker: bytes, words: Words) -> None:
        self._marker, self._tail = marker, b""
        self._beyond = words.beyond(marker)

    def take(self, piece: bytes) -> bool:
        """More of the answer; whether the marker stands there now."""
        written = self._tail + piece
        self._tail = written[-len(self._marker) + 1 :] if len(self._marker) > 1 else b""
        return self._marker in written

    @property
    def beyond(self) -> tuple[int, ...]:
        """Tokens that would write over the end of the marker: what begins there must be a token of its own."""
        if not self._beyond:
            return ()
        sizes = (size for size in self._beyond if self._tail.endswith(self._marker[:size]))
        return tuple(token for size in sizes for token in self._beyond[size])


class Steering:
    """One answer's way. `allowed` before each draw, `take` after it; a failure is kept and steers no more."""

    def __init__(self, course: Course, words: Words, matcher: Matcher | None) -> None:
        self._course, self._words, self._matcher = course, words, matcher
        self.failure: PensieveError | None = None
        self._begin()

    def allowed(self) -> bytes | None:
        """The mask of what may come next; None: anything."""
        if self.failure is not None:
            return None
        if self._forced:
            return self._words.only((self._forced[0],))
        match self._stage:
            case "opening":
                return self._allowed_opening()
            case "thinking" if self._matcher is not None:
                return self._words.without((*self._closing.beyond, *self._course.stop_tokens))
            case "text":
                beyond = tuple(token for watch in self._triggers for token in watch.beyond)
                return self._words.without(beyond) if beyond else None
            case "bound":
                return self._matching()
        return None

    def take(self, token: int) -> None:
        """It came next."""
        self._taken.append(token)
        if self._forced and self._forced[0] == token:
            self._forced.popleft()
        match self._stage:
            case "opening":
                self._take_opening(token)
            case "thinking":
                self._take_thinking(token)
            case "text":
                self._take_text(token)
            case "bound":
                self._follow((token,))

    def restore(self, outputs: Sequence[int]) -> None:
        """Be where the answer is, whatever was taken since."""
        if self._taken != list(outputs):
            self._begin()
            for token in outputs:
                self.take(token)

    def _begin(self) -> None:
        self._taken: list[int] = []
        self._forced: deque[int] = deque()
        self._num_opened = self._num_thought = 0
        self._closing = _Watch(self._course.closer_text, self._words)
        self._opening = _Watch(self._course.opener_text, self._words)
        self._triggers = tuple(_Watch(text, self._words) for text, _ in self._course.triggers)
        self._stage: Literal["opening", "thinking", "text", "bound", "free"] = "free"
        if self._matcher is not None:
            self._matcher.reset()
        match self._course.thinking:
            case "none":
                self._answer()
            case "may begin":
                self._stage = "opening"
            case "has begun":
                self._think()
            case "is unwanted":
                self._think()
                self._forced = deque(self._course.closer)

    # Thinking.

    def _allowed_opening(self) -> bytes | None:
        if self._matcher is None:
            return None
        mask, token = self._matching(), self._course.opener[self._num_opened]
        if mask is None:
            return None
        both = bytearray(mask)
        both[token // 8] |= 1 << token % 8
        return bytes(both)

    def _take_opening(self, token: int) -> None:
        """The opener, or something else: with a matcher both are followed until they part."""
        if self._matcher is None:
            self._num_opened += 1
            if self._opening.take(self._words.bytes_of(token)):
                self._think()
            elif self._num_opened >= OPENING_TOKENS:
                self._stage = "free"
            return
        is_opener = token == self._course.opener[self._num_opened]
        if not is_opener:
            self._stage = "bound"
            self._follow((token,))
            return
        self._num_opened += 1
        rest = self._course.opener[self._num_opened :]
        if not rest:
            self._think()
        elif not self._forced and self._matcher.accepts(token):
            self._follow((token,))
        elif not self._forced:
            self._forced.extend(rest)

    def _think(self) -> None:
        self._stage = "thinking"
        if self._matcher is not None:
            self._matcher.reset()
        self._check_budget()

    def _take_thinking(self, token: int) -> None:
        self._num_thought += 1
        if self._closing.take(self._words.bytes_of(token)):
            self._end_thinking()
        else:
            self._check_budget()

    def _check_budget(self) -> None:
        budget = self._course.budget_tokens
        if budget is not None and self._num_thought >= budget and not self._forced:
            self._forced.extend(self._course.closer)
            if self._matcher is None:
                self._forced.extend(self._course.bridge)

    def _end_thinking(self) -> None:
        self._closing = _Watch(self._course.closer_text, self._words)
        if self._matcher is None and self._course.may_think_again and not self._forced:
            self._opening = _Watch(self._course.opener_text, self._words)
            self._stage, self._num_opened = "opening", 0
        else:
            self._answer()

    # The answer.

    def _answer(self) -> None:
        if self._matcher is None:
            self._stage = "free"
        else:
            self._stage = "text" if self._triggers else "bound"

    def _take_text(self, token: int) -> None:
        piece = self._words.bytes_of(token)
        for watch, (_, tokens) in zip(self._triggers, self._course.triggers, strict=True):
            if watch.take(piece):
                self._stage = "bound"
                self._follow(tokens)
                return

    def _follow(self, tokens: Sequence[int]) -> None:
        assert self._matcher is not None, "something binds"
        if not self._matcher.take(tokens):
            self._fail()

    def _matching(self) -> bytes | None:
        assert self._matcher is not None, "something binds"
        mask = self._matcher.mask()
        if not mask:
            self._fail()
        return mask or None

    def _fail(self) -> None:
        self.failure = BackendFailure(NOT_KEPT)
