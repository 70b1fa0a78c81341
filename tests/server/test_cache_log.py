"""Why the prefix cache missed: told from digests and counts, over real requests."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from live_server import Live, serving
from pensieve.generation import Finished, Started, Timings, Usage
from pensieve.inference.script import Say, Script, Turn
from pensieve.server.cache_log import REMEMBERED_MARKS, REMEMBERED_REQUESTS, CacheLine, CacheLog, Watch
from pensieve.server.prompt_marks import MAX_MARKS, mark_prompt
from pensieve.wire.anthropic.requests import decode_request

LOOK = {"name": "look", "input_schema": {"type": "object"}}
LONG = "word " * 200


def said(*texts: str) -> list[dict[str, str]]:
    """A conversation in which both sides take turns."""
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]


class Story:
    """Requests one after the other, each with what the engine says of its prompt."""

    def __init__(self, *, keeps_text: bool = False) -> None:
        self.log = CacheLog(keeps_text=keeps_text)
        self.num_asked = 0

    def ask(
        self, messages: list[Any], prompt: int, cached: int, *, session: str = "s", seconds: float = 0.0, **fields: Any
    ) -> Watch:
        """Ask with a prompt of so many tokens, of which so many were cached."""
        self.num_asked += 1
        body = {"model": "m", "max_tokens": 9, "messages": messages, "system": "s"} | fields
        decoded = decode_request(json.dumps(body).encode(), request_id="r")
        marks = mark_prompt(decoded.request, decoded.positions, model="m", keeps_text=self.log.keeps_text)
        watch = Watch(self.log, marks, f"req_{self.num_asked}", f"msg_{self.num_asked}", session)
        watch.observe(Started(prompt, cached))
        watch.observe(Finished("stop", Usage(prompt, cached, 1), timings=Timings(prefill_seconds=seconds)))
        return watch

    @property
    def last(self) -> CacheLine:
        """What is told of the newest request."""
        return self.log.report(with_text=True).requests[0]


def test_a_conversation_that_goes_on_is_reused() -> None:
    """What it was compared with is told, and that nothing was lost."""
    story = Story()
    story.ask(said("a"), 1000, 0)
    assert (story.last.reason, story.last.lost_tokens) == ("new", 0)
    story.ask(said("a", "b", "c"), 1200, 990, seconds=2.1)
    line = story.last
    assert (line.reason, line.compared_with, line.reusable_tokens) == ("reused", "req_1", 1000)
    assert (line.recomputed_tokens, line.recompute_seconds) == (210, 2.1)


@pytest.mark.parametrize(
    ("changed", "kind", "path"),
    [
        ({"tools": [LOOK | {"description": "x"}]}, "tools", "tools.0"),
        ({"tools": [LOOK, LOOK | {"name": "b"}]}, "tools", "tools.1"),
        ({"tools": []}, "tools", "tools.0"),
        ({"system": "t"}, "system", "system.0"),
        ({"thinking": {"type": "adaptive"}}, "system", "thinking"),
        ({"messages": said("a", f"{LONG}!", LONG, "d")}, "messages", "messages.1.content.0"),
    ],
)
def test_the_first_difference_is_named(changed: dict[str, Any], kind: str, path: str) -> None:
    """With what the cache could have given, and the time that was lost by it."""
    story = Story()
    story.ask(said("a", LONG, LONG), 1000, 0, tools=[LOOK])
    asked: dict[str, Any] = {"messages": said("a", LONG, LONG), "tools": [LOOK]} | changed
    story.ask(prompt=1100, cached=100, **asked)
    line = story.last
    assert line.difference is not None
    assert (line.reason, line.difference.kind, line.difference.path) == ("changed", kind, path)
    assert (line.lost_tokens, line.lost_seconds) == (900, None)


def test_a_miss_without_a_difference_was_evicted() -> None:
    """The lost time is measured by how fast this very prompt was read."""
    story = Story()
    story.ask(said("a"), 1000, 0)
    story.ask(said("a", "b", "c"), 1200, 0, seconds=12.0)
    assert (story.last.reason, story.last.lost_tokens, story.last.lost_seconds) == ("evicted", 1000, 10.0)


def test_another_session_is_not_compared_with() -> None:
    """But a beginning in common should have been reused: about as much as its share of the words."""
    story = Story()
    story.ask(said("first question"), 1000, 0, system=LONG)
    story.ask(said("something else"), 1000, 900, system=LONG, session="t")
    assert (story.last.reason, story.last.compared_with) == ("new", "")
    story.ask(said("a third one"), 1000, 0, system=LONG, session="u")
    assert story.last.reason == "evicted"
    assert 600 < story.last.lost_tokens < 900
    story.ask(said("a fourth one"), 1000, 0, system=LONG, session="v", tools=[LOOK])
    assert (story.last.reason, story.last.lost_tokens) == ("new", 0)


def test_the_same_words_in_two_sessions_are_two_conversations() -> None:
    """Each is compared with its own last turn, though the other's is newer."""
    story = Story()
    for session in ("s", "t"):
        story.ask(said("hello", LONG), 1000, 0, session=session)
    story.ask(said("hello", LONG, "c"), 1100, 1000, session="s")
    assert story.last.compared_with == "req_1"


def test_requests_beside_a_conversation_do_not_confuse_it() -> None:
    """Titles and helpers come in between, under the same session."""
    story = Story()
    story.ask(said("a", LONG), 1000, 0, tools=[LOOK])
    story.ask(said("name this conversation"), 50, 0)
    assert story.last.reason == "new"
    story.ask(said("a", LONG, "c"), 1100, 1000, tools=[LOOK])
    assert (story.last.reason, story.last.compared_with) == ("reused", "req_1")


def test_the_place_is_the_one_that_was_sent() -> None:
    """Dropped messages count."""
    story = Story()
    countdown = {"role": "system", "content": "<total_tokens>5 tokens left</total_tokens>"}
    first, second = said("a", LONG, "b"), said("a", LONG, "c")
    story.ask([*first[:2], countdown, first[2]], 1000, 0)
    story.ask([*second[:2], countdown, second[2]], 1000, 900)
    assert story.last.difference is not None
    assert story.last.difference.path == "messages.3.content.0"


def test_words_are_told_only_where_they_are_kept_and_asked_for() -> None:
    """A few around the first difference."""
    for keeps_text in (False, True):
        story = Story(keeps_text=keeps_text)
        story.ask(said("a", f"{LONG}old{LONG}"), 1000, 0)
        story.ask(said("a", f"{LONG}new{LONG}", "b"), 1000, 0)
        assert story.last.difference is None
        story.ask(said("a", f"{LONG}new{LONG}", "c"), 1000, 0)
    difference = story.last.difference
    assert difference is not None
    assert (difference.before, difference.after) == ("b", "c")
    assert b'"c"' not in msgspec.json.encode(story.log.report())


@pytest.mark.parametrize(
    ("previous", "answer"),
    [
        ("", None),
        ("msg_9", {"type": "previous_message_not_found"}),
        ("msg_1", {"type": "system_changed", "cache_missed_input_tokens": 900}),
        ("msg_2", None),
        ("msg_3", {"type": "unavailable"}),
    ],
)
def test_clients_that_ask_are_answered_in_the_apis_words(previous: str, answer: dict[str, Any] | None) -> None:
    """They name the answer whose request is compared."""
    story = Story()
    story.ask(said("a"), 1000, 0, system="other")
    story.ask(said("a"), 100, 0)
    story.ask(said("a"), 1000, 0)
    told = story.ask(said("a", "b", "c"), 1100, 100).diagnostics(previous)
    assert told == (None if answer is None else {"cache_miss_reason": answer})


def test_the_log_is_bounded() -> None:
    """In requests, and in the parts that they have; what is too much of one conversation counts as one part."""
    story = Story()
    for at in range(REMEMBERED_REQUESTS + 5):
        story.ask(said(f"question {at}"), 10, 0)
    assert len(story.log.report().requests) == REMEMBERED_REQUESTS
    many = said(*map(str, range(MAX_MARKS + 100)))
    for _ in range(REMEMBERED_MARKS // MAX_MARKS + 3):
        watch = story.ask(many, 10, 0)
    assert len(watch.marks.marks) == MAX_MARKS + 1
    assert len(story.log.report().requests) <= REMEMBERED_MARKS // MAX_MARKS
    story.ask([*many[:-1], {"role": "user", "content": "x"}], 10, 0)
    assert story.last.reason == "changed"


SPOKEN = Script(turns=(Turn(steps=(Say("hi"),), prompt_tokens=500, cached_tokens=100),))


async def asked_twice(live: Live, **fields: Any) -> dict[str, Any]:
    """The second answer of a conversation whose system text changed in between."""
    first = (await live.ask(LONG, system="a")).json()
    second = {"diagnostics": {"previous_message_id": first["id"]}, "system": "a secret prompt"} | fields
    response = await live.ask(LONG, **second)
    if not fields.get("stream"):
        return response.json()  # type: ignore[no-any-return]
    data = next(line for line in response.text.splitlines() if "message_start" in line and line.startswith("data"))
    return json.loads(data.removeprefix("data: "))["message"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_the_answer_carries_the_diagnosis(is_stream: bool) -> None:
    """In `message_start`, or in the whole answer."""
    async with serving(SPOKEN) as live:
        answer = await asked_twice(live, stream=is_stream)
    reason = {"type": "system_changed", "cache_missed_input_tokens": 400}
    assert answer["diagnostics"] == {"cache_miss_reason": reason}


@pytest.mark.parametrize(
    ("keep", "query", "has_words"), [("off", "?text=1", False), ("on", "", False), ("on", "?text=1", True)]
)
async def test_the_report_is_a_route_without_words_unless_both_sides_want_them(
    keep: str, query: str, has_words: bool
) -> None:
    """The server keeps them, and the reader asks for them."""
    async with serving(SPOKEN, keep_prompt_text=keep) as live:
        await asked_twice(live)
        response = await live.client.get(f"/v1/pensieve/cache{query}")
    newest, oldest = response.json()["requests"]
    assert (newest["reason"], newest["difference"]["path"], oldest["reason"]) == ("changed", "system.0", "new")
    assert ("secret" in response.text) == has_words


async def test_the_report_needs_the_key() -> None:
    """As every route but the health check."""
    async with serving(SPOKEN, api_key="k" * 20) as live:
        assert (await live.client.get("/v1/pensieve/cache")).status_code == 401
        response = await live.client.get("/v1/pensieve/cache", headers={"x-api-key": "k" * 20})
    assert response.json() == {"requests": [], "keeps_text": False}
