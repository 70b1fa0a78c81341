"""Answers followed through their grammars by llguidance: can a grammar be used at all, and does a text obey it?

For workers only: importing llguidance takes time. Blocks while a grammar is read, up to a second for a large one.
"""

from __future__ import annotations

from typing import Any, Final

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from pensieve.errors import InvalidRequest

MAX_GRAMMARS: Final = 8
NUM_BYTES: Final = 256
_LIMITS: Final[dict[str, Any]] = {"verbose_errors": False}
"""Errors must not hold what was said."""


class Matchers:
    """Matchers over one vocabulary. The newest grammars stay ready: agents send the same tools every turn."""

    def __init__(self, tokenizer: LLTokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, LLMatcher] = {}
        """The most recent last."""

    def matcher(self, grammar: str) -> LLMatcher:
        """A matcher of one's own at the beginning of the grammar; raises `InvalidRequest` where it is too large."""
        matcher = self._known.pop(grammar, None)
        if matcher is None:
            matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=LLParserLimits(**_LIMITS))
        if matcher.is_error():
            raise InvalidRequest("the schemas of this request are too complex together: make them smaller")
        self._known[grammar] = matcher
        if len(self._known) > MAX_GRAMMARS:
            del self._known[next(iter(self._known))]
        return matcher.deep_copy()


class Follower:
    """Follows one answer's text through its grammar, wherever the text is cut."""

    def __init__(self, matcher: LLMatcher) -> None:
        """`matcher`: one of `byte_matchers`."""
        self._matcher = matcher

    def take(self, text: str) -> bool:
        """This was said next; False, from then on: it is not what the grammar allows."""
        return bool(self._matcher.consume_tokens(list(text.encode("utf-8", "replace"))))

    @property
    def is_whole(self) -> bool:
        """Whether the answer may end here."""
        return bool(self._matcher.is_accepting())


def byte_matchers() -> Matchers:
    """Matchers over bytes, for grammars that name no token."""
    return Matchers(LLTokenizer(TokenizerWrapper(_Bytes())))


class _Bytes:
    """A vocabulary of bytes and an end, as `TokenizerWrapper` asks for it."""

    eos_token_id = NUM_BYTES
    bos_token_id = None
    tokens: Final = [*(bytes([value]) for value in range(NUM_BYTES)), b"<end>"]
    special_token_ids: Final = [NUM_BYTES]

    def __call__(self, text: bytes | str) -> list[int]:
        """One token a byte."""
        return list(text.encode() if isinstance(text, str) else text)
