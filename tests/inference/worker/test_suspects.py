"""Requests under which workers died."""

from __future__ import annotations

import msgspec

from pensieve.generation import GenerationRequest
from pensieve.inference.worker.suspects import MEMORY_SECONDS, MOST_SUSPECTS, Suspects
from pensieve.messages import say


def asking(text: str, request_id: str = "req_1") -> GenerationRequest:
    """A request."""
    return GenerationRequest(id=request_id, model="m", messages=(say("user", text),))


def test_the_second_crash_is_one_too_many() -> None:
    """Whatever id the same request came under; another request is none of that."""
    suspects = Suspects()
    suspects.crashed(asking("boom", "req_1"), 0.0)
    assert not suspects.is_refused(asking("boom"), 1.0)
    suspects.crashed(asking("boom", "req_2"), 2.0)
    assert suspects.is_refused(asking("boom", "req_3"), 3.0)
    assert not suspects.is_refused(asking("hello"), 3.0)
    assert not suspects.is_refused(msgspec.structs.replace(asking("boom"), max_tokens=5), 3.0)


def test_an_answer_or_time_or_a_command_clears_a_request() -> None:
    """Nothing sticks."""
    for clear in ("answer", "time", "command"):
        suspects = Suspects()
        for seconds in (0.0, 1.0):
            suspects.crashed(asking("boom"), seconds)
        if clear == "answer":
            suspects.answered(asking("boom"))
        if clear == "command":
            suspects.clear()
        now = MEMORY_SECONDS if clear == "time" else 2.0
        assert not suspects.is_refused(asking("boom"), now)


def test_only_so_many_are_remembered() -> None:
    """The oldest are forgotten first."""
    suspects = Suspects()
    for seconds in (0.0, 1.0):
        suspects.crashed(asking("first"), seconds)
    for place in range(MOST_SUSPECTS):
        suspects.crashed(asking(f"request {place}"), 2.0)
    assert not suspects.is_refused(asking("first"), 3.0)
