"""Signatures that carry hidden thinking."""

from __future__ import annotations

import base64
import zlib

import pytest
from hypothesis import given

from pensieve.messages import ThinkingPart
from pensieve.wire.anthropic.signature import MARK, MAX_THINKING_BYTES, Unsealer, sealed
from wire.strategies import PROPERTY, texts


@PROPERTY
@given(texts)
def test_what_is_sealed_comes_back(thinking: str) -> None:
    """The two directions are inverse, and the words are not to be read in it."""
    signature = sealed(thinking)
    assert Unsealer().read("", signature) == ThinkingPart(thinking)
    assert signature.startswith(MARK)


@pytest.mark.parametrize("signature", ["", "theirs", "pens"])
def test_a_foreign_signature_is_kept(signature: str) -> None:
    """It is its producer's to read."""
    assert Unsealer().read("hm", signature) == ThinkingPart("hm", signature)


def test_thinking_that_is_there_wins_over_the_signature() -> None:
    """A client that shows it says what it echoes."""
    assert Unsealer().read("hm", sealed("other")).text == "hm"


BOMB = base64.b64encode(zlib.compress(b"a" * (MAX_THINKING_BYTES + 1))).decode()
CUT = base64.b64encode(zlib.compress(b"a" * 1000)[:-5]).decode()


@pytest.mark.parametrize("packed", ["", "?", "aGk=", "ä", BOMB, CUT, base64.b64encode(zlib.compress(b"\xff")).decode()])
def test_a_signature_that_was_tampered_with_carries_nothing(packed: str) -> None:
    """It comes from outside: no nonsense, no text beyond measure, and never an error."""
    assert Unsealer().read("", f"{MARK}:{packed}") == ThinkingPart("")


def test_all_signatures_of_a_request_have_one_bound() -> None:
    """Else a body of a megabyte would unfold to a thousand; later ones carry nothing, and cost nothing."""
    unsealer, half = Unsealer(), "a" * (MAX_THINKING_BYTES // 2)
    found = [unsealer.read("", sealed(words)).text for words in (half, half + "a", "b", half)]
    assert [len(text) for text in found] == [len(half), 0, 0, 0]
