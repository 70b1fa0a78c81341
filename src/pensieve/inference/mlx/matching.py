"""A model's vocabulary as llguidance wants it, and matchers over it.

Works without arrays, on any thread; one matcher belongs to one answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from pensieve.errors import BackendFailure
from pensieve.inference.constraints.following import Matchers
from pensieve.inference.mlx.tokenizer import MlxTokenizer

_WORD_BITS: Final = 32


class GrammarMatcher:
    """A `steering.Matcher`."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def mask(self) -> bytes:
        """See `Matcher.mask`."""
        mask = bytes(self._matcher.compute_bitmask())
        return b"" if self._matcher.is_error() else mask

    def accepts(self, token: int) -> bool:
        """See `Matcher.accepts`."""
        return bool(self._matcher.validate_tokens([token]))

    def take(self, tokens: Sequence[int]) -> bool:
        """See `Matcher.take`."""
        has_ended = self._matcher.is_stopped() and not self._matcher.is_error()
        return has_ended or bool(self._matcher.consume_tokens(list(tokens)))

    def reset(self) -> None:
        """See `Matcher.reset`."""
        self._matcher.reset()


class Vocabulary:
    """A model's tokens, for steering. Making one takes up to a second for a large vocabulary."""

    def __init__(self, tokenizer: MlxTokenizer, num_columns: int, stop_tokens: Sequence[int]) -> None:
        """`num_columns` of the model's logits; `stop_tokens` end an answer; at least one."""
        self._bytes = [tokenizer.bytes_of(token) for token in range(num_columns)]
        known = ((text, tokenizer.id_of(text)) for text in tokenizer.markers() if text.strip())
        self.markers = {text: token for text, token in known if token is not None and token < num_columns}
        """Texts that are one token each."""
        self._num_mask_bytes = -(-len(self._bytes) // _WORD_BITS) * _WORD_BITS // 8
        self._beyond: dict[bytes, Mapping[int, tuple[int, ...]]] = {}
        special = {token for text, token in self.markers.items() if tokenizer.markers()[text]}
        words = _Words(self._bytes, sorted(special | set(stop_tokens)), stop_tokens[0], tokenizer.copy())
        try:
            self._matchers = Matchers(LLTokenizer(TokenizerWrapper(words), eos_token=list(stop_tokens)))
        except (ValueError, RuntimeError) as error:
            raise BackendFailure(f"this model's vocabulary cannot be bound to a schema: {str(error)[:200]}") from error

    def matcher(self, grammar: str) -> GrammarMatcher:
        """A matcher at the beginning of the grammar; raises `InvalidRequest` where it is too large."""
        return GrammarMatcher(self._matchers.matcher(grammar))

    def bytes_of(self, token: int) -> bytes:
        """See `Words.bytes_of`."""
        return self._bytes[token] if token < len(self._bytes) else b""

    def only(self, tokens: Sequence[int]) -> bytes:
        """See `Words.only`."""
        mask = bytearray(self._num_mask_bytes)
        for token in tokens:
            mask[token // 8] |= 1 << token % 8
        return bytes(mask)

    def without(self, tokens: Sequence[int]) -> bytes:
        """See `Words.without`."""
        mask = bytearray(b"\xff" * self._num_mask_bytes)
        for token in tokens:
            mask[token // 8] &= ~(1 << token % 8)
        return bytes(mask)

    def beyond(self, marker: bytes) -> Mapping[int, tuple[int, ...]]:
        """See `Words.beyond`; slow the first time for a marker."""
        if marker not in self._beyond:
            self._beyond[marker] = _beyond(self._bytes, marker)
        return self._beyond[marker]


class _Words:
    """What `TokenizerWrapper` asks for."""

    def __init__(self, words: list[bytes], special: list[int], end: int, tokenizer: MlxTokenizer) -> None:
        self.tokens, self.special_token_ids, self.eos_token_id = words, special, end
        self.bos_token_id = None
        self._tokenizer = tokenizer

    def __call__(self, text: bytes | str) -> list[int]:
        """The tokens that the model's own tokenizer makes of it; of none of them more or other bytes than it has."""
        whole = text.encode() if isinstance(text, str) else text
        for start in ("", "\n"):  # some put a space before whatever begins a text
            before = self._tokenizer.encode(start, adds_special=False) if start else []
            made = self._tokenizer.encode(start + whole.decode("utf-8", "replace"), adds_special=False)[len(before) :]
            if b"".join(self.tokens[token] for token in made) == whole:
                return made
        return [token for byte in whole if (token := self._byte_token(byte)) is not None]

    def _byte_token(self, byte: int) -> int | None:
        return next((token for token, word in enumerate(self.tokens) if word == bytes([byte])), None)


def _beyond(words: list[bytes], marker: bytes) -> Mapping[int, tuple[int, ...]]:
    found: dict[int, list[int]] = {}
    last = marker[-1:]
    for token, word in enumerate(words):
        if not marker or last not in word[:-1]:
            continue
        for size in range(1, len(marker)):
            if word.startswith(marker[size:]) and len(word) > len(marker) - size:
                found.setdefault(size, []).append(token)
        if marker in word[:-1]:
            found.setdefault(0, []).append(token)
    return {size: tuple(tokens) for size, tokens in found.items()}
