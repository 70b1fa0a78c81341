"""`pensieve doctor cache`: the real command against the scripted server, and its page for reports of any kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.cli.doctor_cache import NARROW, page
from pensieve.cli.main import main
from pensieve.cli.text import printable
from pensieve.server.cache_log import CacheLine, CacheReport, Difference

CHANGED = CacheLine(
    *("req_2", 1_700_000_100.0, "s", "changed", 12_500, 1_200, 12_000, 31.05, 29.7, "req_1"),
    Difference("tools", "tools.3", "look at \x1b[31m this", "look at that"),
)
NEW = CacheLine("req_1", 1_700_000_000.0, "s", "new", 12_000, 0, 0, None, None)
EVICTED = CacheLine("req_3", 1_700_000_200.0, "s", "evicted", 12_500, 0, 12_500, 10.0, 10.0, "req_2")


def shown(*lines: CacheLine, width: int = 60, with_text: bool = False, keeps_text: bool = True) -> str:
    """The page for these requests, newest first as a server tells them."""
    return "\n".join(page(CacheReport(lines, keeps_text), width, with_text=with_text))


def test_each_request_says_what_was_reused_and_why_not_more() -> None:
    """Oldest first, so that the newest stands above the next prompt of the shell."""
    text = " ".join(shown(EVICTED, CHANGED, NEW).split())
    assert text.index("0 of 12,000 tokens reused") < text.index("1,200 of 12,500 tokens reused, 11,300 read in 31.1 s")
    assert "a new conversation" in text
    assert "first difference from" in text
    assert ": tools.3" in text
    assert "10,800 more could have been reused: 29.7 s lost" in text
    assert "nothing changed" in text
    assert "Last 3 requests: 4.9% of the tokens that could be reused were; 39.7 s lost." in text


def test_words_are_shown_without_what_could_move_a_terminals_cursor() -> None:
    """They come from prompts, and those from anywhere."""
    assert "- look at [31m this" in shown(CHANGED, with_text=True)
    assert "+ look at that" in shown(CHANGED, with_text=True)
    assert "keep_prompt_text" in shown(CHANGED, with_text=True, keeps_text=False).replace("\n", " ")


def test_an_empty_log_says_so() -> None:
    """And not that all was well."""
    assert "no prompt yet" in shown()


names = st.text(max_size=30)
differences = st.builds(Difference, st.sampled_from(["tools", "messages"]), names, names, names)
counts = st.integers(0, 2**40)
seconds = st.none() | st.floats(0, 1e6)
reasons = st.sampled_from(["reused", "changed", "evicted", "new"])
lines = st.builds(
    CacheLine,
    names,
    st.floats(allow_nan=False),
    names,
    reasons,
    *[counts] * 3,
    *[seconds] * 2,
    names,
    st.none() | differences,
)


@given(st.lists(lines, max_size=4), st.integers(NARROW, 100))
def test_the_page_fits_a_narrow_window(found: list[CacheLine], width: int) -> None:
    """Whatever a server says."""
    text = shown(*found, width=width, with_text=True)
    assert max(map(len, text.splitlines()), default=0) <= width
    assert printable(text) == text


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """What the command prints as JSON."""
    assert main(["doctor", "cache", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_running_server_is_asked(served_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its last requests, without their words."""
    url = json.loads((served_home / "state" / "server.json").read_bytes())["url"]
    question = {"role": "user", "content": "What is the capital of France?"}
    sent = {"model": "any", "max_tokens": 9, "messages": [question]}
    assert httpx.post(f"{url}/v1/messages", json=sent, trust_env=False).is_success
    newest = ask(capsys)["requests"][0]
    assert newest["prompt_tokens"] > 0
    assert main(["doctor", "cache", "--text"]) == 0
    printed = capsys.readouterr().out
    assert "tokens reused" in printed
    assert "capital" not in printed


def test_a_server_can_be_named(served_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the address that its run file has."""
    url = json.loads((served_home / "state" / "server.json").read_bytes())["url"]
    assert "requests" in ask(capsys, "--url", f"{url}/")


@pytest.mark.usefixtures("pensieve_home")
@pytest.mark.parametrize("words", [[], ["--url", "http://127.0.0.1:9"], ["--url", "nonsense"]])
def test_where_no_server_is_the_next_step_is_named(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """In one line."""
    assert main(["doctor", "cache", *words]) == 1
    assert "pensieve serve" in capsys.readouterr().err
