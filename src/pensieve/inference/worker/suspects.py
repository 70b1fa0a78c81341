"""Requests that were running when a worker died: one that saw two of them die is not tried again.

Keeps digests, never the words of a request.
"""

from __future__ import annotations

import hashlib

import msgspec

from pensieve.generation import GenerationRequest

MOST_CRASHES = 2
MEMORY_SECONDS = 600.0
"""So long a crash is held against a request."""
MOST_SUSPECTS = 64

_encoder = msgspec.msgpack.Encoder()


def fingerprint(request: GenerationRequest) -> bytes:
    """What two sendings of the same request have in common: all but the id that each gets here."""
    content = _encoder.encode(msgspec.structs.replace(request, id="", affinity_key="", deadline_seconds=None))
    return hashlib.blake2b(content, digest_size=16).digest()


class Suspects:
    """Counts crashes by request; costs nothing while there are none."""

    def __init__(self) -> None:
        self._crashes: dict[bytes, list[float]] = {}

    def crashed(self, request: GenerationRequest, now_seconds: float) -> None:
        """The worker died while this request was running."""
        key = fingerprint(request)
        self._crashes[key] = [*self._crashes.pop(key, []), now_seconds]
        while len(self._crashes) > MOST_SUSPECTS:
            del self._crashes[next(iter(self._crashes))]

    def answered(self, request: GenerationRequest) -> None:
        """It was answered to its end: it was not to blame."""
        if self._crashes:
            self._crashes.pop(fingerprint(request), None)

    def is_refused(self, request: GenerationRequest, now_seconds: float) -> bool:
        """Whether it saw too many workers die of late."""
        if not self._crashes:
            return False
        crashes = self._crashes.get(fingerprint(request), [])
        return sum(now_seconds - crash < MEMORY_SECONDS for crash in crashes) >= MOST_CRASHES

    def clear(self) -> None:
        """Somebody says that the cause is gone."""
        self._crashes.clear()
