"""Which models stay in memory: decisions as values, from what a model needs and what there is. Acts on nothing.

Knows no backend and no machine; all sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pensieve.models.sizes import gigabytes


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is asked for; None: nobody knows what it takes."""

    name: str
    wanted_bytes: int | None
    """With the context it is meant to have; 0 for one that is in memory already."""
    smallest_bytes: int | None
    """With the least context that is worth it."""


class Occupant(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is in memory."""

    name: str
    frees_bytes: int = 0
    """What comes back when it goes."""
    used_seconds: float = 0.0
    """When it was asked last, on the monotonic clock."""
    num_running: int = 0


class Load(msgspec.Struct, frozen=True, tag=True):
    """There is room: load it beside what is there."""

    name: str


class Swap(msgspec.Struct, frozen=True, tag=True):
    """Load it, and let these go: afterwards, or first where memory does not hold both."""

    name: str
    leaving: tuple[str, ...]
    is_loaded_first: bool
    reason: str = ""
    """Why not both at once."""


class Wait(msgspec.Struct, frozen=True, tag=True):
    """Answers of models that must go first are under way; ask again when they have ended."""

    name: str
    leaving: tuple[str, ...]
    num_running: int
    reason: str


class Refuse(msgspec.Struct, frozen=True, tag=True):
    """It does not fit even with all others gone."""

    name: str
    reason: str
    needed_bytes: int
    available_bytes: int


Decision = Load | Swap | Wait | Refuse


def decide(
    candidate: Candidate,
    occupants: Sequence[Occupant],
    spare_bytes: int | None,
    *,
    most_models: int,
    may_end_answers: bool,
) -> Decision:
    """What to do so that the candidate can answer; of the others, those used longest ago go first.

    Both models are held at once only where the new one has room for its whole context: one that is loaded into a gap
    would keep a short context for good. Where nobody knows sizes, the old one goes first.
    """
    others = sorted((o for o in occupants if o.name != candidate.name), key=lambda o: o.used_seconds)
    num_over = max(0, len(others) + 1 - most_models)
    wanted = candidate.wanted_bytes
    if wanted == 0 or (wanted is not None and spare_bytes is not None and wanted <= spare_bytes):
        return _beside(candidate, others[:num_over])
    if wanted is None or spare_bytes is None:
        leaving = others[:num_over]
        return _instead(candidate, leaving, "nobody knows what it takes", may_end_answers=may_end_answers)
    leaving = others[:num_over]
    while _room(spare_bytes, leaving) < wanted and len(leaving) < len(others):
        leaving = others[: len(leaving) + 1]
    reachable = _room(spare_bytes, leaving)
    smallest = wanted if candidate.smallest_bytes is None else candidate.smallest_bytes
    if reachable < smallest:
        return _refuse(candidate, smallest, leaving, reachable)
    reason = f"it needs {gigabytes(wanted)}, and {gigabytes(max(0, spare_bytes))} can be had beside what is loaded"
    return _instead(candidate, leaving, reason, may_end_answers=may_end_answers)


def _beside(candidate: Candidate, leaving: Sequence[Occupant]) -> Decision:
    return Swap(candidate.name, _names(leaving), is_loaded_first=True) if leaving else Load(candidate.name)


def _instead(candidate: Candidate, leaving: Sequence[Occupant], reason: str, *, may_end_answers: bool) -> Decision:
    if not leaving:
        return Load(candidate.name)
    num_running = sum(occupant.num_running for occupant in leaving)
    if num_running and not may_end_answers:
        return Wait(candidate.name, _names(leaving), num_running, reason)
    return Swap(candidate.name, _names(leaving), is_loaded_first=False, reason=reason)


def _refuse(candidate: Candidate, needed: int, leaving: Sequence[Occupant], reachable_bytes: int) -> Refuse:
    without = f" even without {', '.join(_names(leaving))}" if leaving else ""
    reason = f"it needs {gigabytes(needed)} of memory, and {gigabytes(max(0, reachable_bytes))} can be had{without}"
    return Refuse(candidate.name, reason, needed, max(0, reachable_bytes))


def _room(spare_bytes: int, leaving: Sequence[Occupant]) -> int:
    return spare_bytes + sum(occupant.frees_bytes for occupant in leaving)


def _names(occupants: Sequence[Occupant]) -> tuple[str, ...]:
    return tuple(occupant.name for occupant in occupants)


class Loading(msgspec.Struct, frozen=True, tag=True):
    """A model is being loaded, beside those."""

    name: str
    beside: tuple[str, ...] = ()


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """It can answer now."""

    name: str
    seconds: float


class Draining(msgspec.Struct, frozen=True, tag=True):
    """A model that must go ends its answers first."""

    name: str
    num_running: int
    limit_seconds: float


class Ended(msgspec.Struct, frozen=True, tag=True):
    """A model has left memory, and why."""

    name: str
    reason: str = ""


class Restoring(msgspec.Struct, frozen=True, tag=True):
    """The new model could not be loaded, so the old one comes back."""

    name: str
    problem: str


Change = Loading | Loaded | Draining | Ended | Restoring


def describe(change: Change) -> str:
    """The change in words, for the chat and the log."""
    match change:
        case Loading(name, beside):
            return f"loading {name}" + (f" while {', '.join(beside)} stays" if beside else "")
        case Loaded(name, seconds):
            return f"{name} is there after {seconds:.1f} s"
        case Draining(name, num_running, limit_seconds):
            return f"{name} ends {num_running} answers first, within {limit_seconds:.0f} s"
        case Ended(name, reason):
            return f"{name} has left memory" + (f": {reason}" if reason else "")
        case Restoring(name, problem):
            return f"{problem}; {name} comes back"
