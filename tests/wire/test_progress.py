"""How far a prompt is read, as a comment and back; whatever else a comment says is nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.generation import PromptProgress
from pensieve.wire.progress import decode_progress, encode_progress
from pensieve.wire.sse import SseComment, SseDecoder
from wire.strategies import PROPERTY


@PROPERTY
@given(st.integers(0, 2**31), st.integers(0, 2**31))
def test_progress_comes_back(one: int, other: int) -> None:
    """As a comment that is no event to anybody."""
    progress = PromptProgress(min(one, other), max(one, other))
    [comment] = SseDecoder().feed_all(encode_progress(progress))
    assert isinstance(comment, SseComment)
    assert decode_progress(comment.text) == progress
    assert SseDecoder().feed(encode_progress(progress)) == []


def test_it_is_one_line_that_people_can_read() -> None:
    """As the docs write it."""
    assert encode_progress(PromptProgress(2048, 16_000)) == b": prefill 2048/16000\n\n"


@pytest.mark.parametrize(
    "comment",
    [
        "",
        "ping",
        "prefill 5",
        "prefill 6/5",
        "prefill -1/5",
        "prefill 1/5 ",
        "prefill 1.5/5",
        "prefill \N{ARABIC-INDIC DIGIT ONE}/5",
        "prefill 1/99999999999",
        "prefill " + "1" * 9_999,
    ],
)
def test_any_other_comment_says_nothing(comment: str) -> None:
    """Proxies send comments of their own, and a stranger may send anything."""
    assert decode_progress(comment) is None


@PROPERTY
@given(st.text())
def test_no_comment_breaks_the_reader(comment: str) -> None:
    """It is progress or nothing."""
    progress = decode_progress(comment)
    assert progress is None or progress.processed_tokens <= progress.total_tokens
