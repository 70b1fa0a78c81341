"""Which turns a prompt still holds when the context is full: a plain decision about numbers of tokens.

The system prompt, a summary that stands at the beginning, and the question always stay; turns leave whole, oldest
first, and many at a time: the beginning of the prompt then stays as it is for many turns, and with it what the engine
has cached. Knows no tokenizer: it says which prompt to count next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from pensieve.conversation.conversation import Turn

FILL_AFTER_LEAVING = 0.5
"""Share of the room that a prompt may take once turns had to leave: the smaller, the longer until the next leave."""
ANSWER_SHARE = 0.25
"""Share of the context that is kept free for the answer, at most."""


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to decide about."""

    num_turns: int
    """That may be in the prompt; those that always stay are not counted here."""
    start: int = 0
    """How many of them have left already."""
    limit_tokens: int
    """The whole context."""
    reserved_tokens: int
    """Of it, for the answer."""

    @property
    def prompt_tokens(self) -> int:
        """The longest prompt that leaves the answer its room."""
        return max(0, self.limit_tokens - self.reserved_tokens)


class Count(msgspec.Struct, frozen=True):
    """Count the tokens of the prompt with the turns from `start` on, and ask again."""

    start: int


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The prompt holds the turns from `start` on."""

    start: int
    prompt_tokens: int
    num_left: int = 0
    """How many turns left by this decision."""


class TooLong(msgspec.Struct, frozen=True, kw_only=True):
    """The question does not fit, not even alone."""

    prompt_tokens: int
    limit_tokens: int


def reserved_for_answer(limit_tokens: int, max_tokens: int | None) -> int:
    """What to keep free: the longest answer that is asked for, at most `ANSWER_SHARE` of the context."""
    share = int(limit_tokens * ANSWER_SHARE)
    return share if max_tokens is None else min(share, max_tokens)


def decide(room: Room, counted: Mapping[int, int]) -> Count | Window | TooLong:
    """The window, or what must be counted first; `counted` has the tokens of prompts by their start.

    Counts about log2(turns) prompts when turns must leave, and one when not.
    """
    start = min(room.start, room.num_turns)
    if start not in counted:
        return Count(start)
    if counted[start] <= room.prompt_tokens:
        return Window(start=start, prompt_tokens=counted[start])
    match _first_that_fits(room, start, counted):
        case Count() as missing:
            return missing
        case found:
            return _settled(room, start, found, counted)


def _first_that_fits(room: Room, start: int, counted: Mapping[int, int]) -> Count | int:
    """By halving: where the fewest turns have left and the prompt is small enough; all of them, if none is."""
    target = int(room.prompt_tokens * FILL_AFTER_LEAVING)
    too_long, small = start, room.num_turns
    while small - too_long > 1:
        middle = (too_long + small) // 2
        if middle not in counted:
            return Count(middle)
        if counted[middle] <= target:
            small = middle
        else:
            too_long = middle
    return small


def _settled(room: Room, start: int, found: int, counted: Mapping[int, int]) -> Count | Window | TooLong:
    last = room.num_turns - 1
    if found == room.num_turns and start < last:  # the newest turn stays if there is room at all
        if last not in counted:
            return Count(last)
        if counted[last] <= room.prompt_tokens:
            found = last
    if found not in counted:
        return Count(found)
    if counted[found] > room.limit_tokens:
        return TooLong(prompt_tokens=counted[found], limit_tokens=room.limit_tokens)
    return Window(start=found, prompt_tokens=counted[found], num_left=found - start)


def split(turns: Sequence[Turn]) -> tuple[tuple[Turn, ...], tuple[Turn, ...]]:
    """Turns that always stay (a summary at the beginning), and those that may leave."""
    num_staying = 1 if turns and turns[0].is_summary else 0
    return tuple(turns[:num_staying]), tuple(turns[num_staying:])
