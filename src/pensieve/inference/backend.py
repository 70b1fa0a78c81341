"""The one door: everything that can answer a `GenerationRequest`, at message level.

The chat and the HTTP server are two callers of it. Contract of `generate`: it yields `Started` first, before any
prefill, and `Finished` last and once; or it raises one `PensieveError`. Closing the generator cancels the work.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import NamedTuple, Protocol, runtime_checkable

import msgspec

from pensieve.errors import PensieveError
from pensieve.generation import GenerationEvent, GenerationRequest
from pensieve.models.spec import Capability


class Limits(msgspec.Struct, frozen=True):
    """What a backend can take: the context really loaded, or, while nothing is loaded, the one planned."""

    model: str
    context_tokens: int
    max_output_tokens: int
    capabilities: tuple[Capability, ...] = ()
    is_planned: bool = False
    engine: str = ""
    """Which engine answers and in which form the weights are held, in words for people."""


class Backend(Protocol):
    """Answers requests for one model."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """Answer once. Raises `InvalidRequest`, `ContextOverflow`, `Overloaded` or `BackendFailure`."""
        ...

    async def count_tokens(self, request: GenerationRequest) -> int:
        """Tokens of the prompt the request renders to, through the same path as `generate`."""
        ...

    async def limits(self) -> Limits:
        """What this backend can take now."""
        ...

    async def aclose(self) -> None:
        """End all work and give everything back; safe to call twice."""
        ...


@runtime_checkable
class Relievable(Protocol):
    """A backend that can make do with less memory while it runs; not every one can."""

    @property
    def growth_bytes(self) -> int:
        """What it will come to hold beyond what loading took, with nothing running: caches that fill, at most."""
        ...

    def relieve(self, *, cache_share: float, is_frugal: bool) -> None:
        """Let caches fill only that part of their budget, at once, and take small steps; 1.0 and False undo it."""
        ...


@runtime_checkable
class Replaceable(Protocol):
    """A backend that may take another's place: loaded before it is asked, and told to make an end."""

    async def load(self) -> None:
        """Load the model now, if it is not loaded; raises what a request would."""
        ...

    def end_requests(self, error: PensieveError) -> None:
        """End all that it answers with that error; what is asked later it answers."""
        ...


class Embeddings(msgspec.Struct, frozen=True):
    """What some texts mean to a model: one vector each, of length 1."""

    vectors: tuple[bytes, ...]
    """Each as 32-bit floats, the lowest byte first."""
    prompt_tokens: int
    """Of all texts."""


@runtime_checkable
class Embeds(Protocol):
    """A backend that can tell how near texts are to each other; not every one can."""

    async def embed(self, texts: tuple[str, ...]) -> Embeddings:
        """A vector for each text. Raises `ContextOverflow` for one that is too long."""
        ...


class CacheFigures(NamedTuple):
    """What cached prompts hold in memory, and what has been evicted since the model was loaded; in bytes."""

    num_bytes: int = 0
    evicted_bytes: int = 0


@runtime_checkable
class Caching(Protocol):
    """A backend that keeps prompts in a cache of its own."""

    @property
    def cached(self) -> CacheFigures:
        """Its figures now."""
        ...
