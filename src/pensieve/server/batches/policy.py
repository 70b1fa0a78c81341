"""How much of a batch may run now: values in, a decision out. Knows no request, no clock and no machine."""

from __future__ import annotations

import msgspec

from pensieve.devices.levels import Level

QUIET_SECONDS = 0.5
"""After the last live answer nothing new begins for so long: the next turn of a tool loop is on its way."""
ALONE_SECONDS = 120.0
"""So long after the last live request the machine belongs to batches. Until then they take a part of it, so that what
sessions have in the prefix cache stays."""
SHARE = 4
"""That part: one place in four."""
PATIENCE = 3
"""A request that made way so often is let run beside live ones where a place is left: else it would never end."""
HUNGRY_SECONDS = 10.0
"""Where clients never pause, one request may begin beside them after so long without any: a batch must end."""
MOST_PLACES = 16


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be known for it."""

    num_places: int
    """Requests that the engine answers at once."""
    num_live: int
    num_live_lately: int = 0
    """The most live requests at once in the last `ALONE_SECONDS`."""
    num_running: int
    """Requests of batches that are under way."""
    quiet_seconds: float
    """Since the last live answer ended; large where there was none."""
    waited_seconds: float = 0.0
    """Since a request of a batch was under way."""
    level: Level = "Safe"
    is_paused: bool = False
    """The engine had no room lately, or is coming back."""


class Room(msgspec.Struct, frozen=True):
    """So many may run: what runs beyond makes way, what is missing may begin."""

    num_runs: int
    is_for_patient: bool = False
    """What runs stays, and what begins may begin, only if it made way `PATIENCE` times."""
    is_hungry: bool = False
    """One that made way less often may begin all the same, and counts as patient from then on."""
    may_begin: bool = True


def room(view: View) -> Room:
    """What batches may take, from what live requests and memory leave."""
    if view.level in {"Critical", "Emergency"}:
        return Room(0, may_begin=False)
    is_crowded = view.num_live_lately >= view.num_places
    if view.num_live or (is_crowded and view.quiet_seconds < ALONE_SECONDS):
        return _beside(view, is_crowded=is_crowded)
    if view.quiet_seconds >= ALONE_SECONDS:
        return Room(min(view.num_places, MOST_PLACES), may_begin=_may_begin(view))
    share = max(1, min(view.num_places, MOST_PLACES) // SHARE)
    return Room(share, may_begin=_may_begin(view) and view.quiet_seconds >= QUIET_SECONDS)


def may_change_model(view: View) -> bool:
    """Whether a batch may have another model loaded than the one that people use."""
    return not view.num_live and view.quiet_seconds >= ALONE_SECONDS


def _beside(view: View, *, is_crowded: bool) -> Room:
    has_place = view.num_live < view.num_places
    is_hungry = has_place and view.waited_seconds >= HUNGRY_SECONDS
    may_begin = has_place and _may_begin(view) and (is_hungry or not is_crowded)
    return Room(int(has_place), is_for_patient=True, is_hungry=is_hungry, may_begin=may_begin)


def _may_begin(view: View) -> bool:
    return not view.is_paused and view.level in {"Safe", "Unknown"}
