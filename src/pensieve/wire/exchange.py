"""What every API is to the server: a request decoded, and a way to tell its answer. Routes that answer share the rest.

The folders beside this file hold an API each. Knows no field of any of them, and no server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from pensieve.errors import PensieveError
from pensieve.generation import Answer, GenerationEvent, GenerationRequest
from pensieve.messages import Json


class Label(NamedTuple):
    """What stands on an answer beside what the model says."""

    answer_id: str
    model: str
    request_id: str = ""
    created_seconds: int = 0
    """Unix time."""
    diagnose: Callable[[str], Json] = lambda _previous_id: None
    """Why the prefix cache missed, as compared with the request that the answer of that id was for."""


class Settled(NamedTuple):
    """An answer for which no model is asked."""

    whole: Json
    frames: bytes
    """The same as a whole stream."""


class Encoder(Protocol):
    """Tells one answer: `encode` and its companions make a stream of it, `whole` one piece."""

    def encode(self, event: GenerationEvent) -> bytes:
        """All frames that this event causes; empty if none."""
        ...

    def ping(self) -> bytes:
        """A sign of life, fit for any place between frames."""
        ...

    def error(self, error: PensieveError) -> bytes:
        """The last frame of a stream that failed."""
        ...

    def whole(self, answer: Answer) -> Json:
        """The same answer in one piece."""
        ...


class Exchange(Protocol):
    """One request as an API has it, and how its answer is wanted."""

    @property
    def request(self) -> GenerationRequest:
        """In our words."""
        ...

    @property
    def is_stream(self) -> bool:
        """Whether the answer comes in pieces."""
        ...

    @property
    def unknown_fields(self) -> tuple[str, ...]:
        """Names of what was sent, nobody knows, and changes nothing."""
        ...

    @property
    def positions(self) -> tuple[int, ...]:
        """For each message of the request, its index among those sent; -1 for system text that stood elsewhere."""
        ...

    @property
    def id_prefix(self) -> str:
        """How the ids of the API's answers begin."""
        ...

    def sent_path(self, path: str) -> str:
        """Where the client sent what stands at `path` in the request (`messages.1.content.0`)."""
        ...

    def settled(self, label: Label) -> Settled | None:
        """The answer, where the request is such that no model can give one."""
        ...

    def encoder(self, label: Label) -> Encoder:
        """Tells the answer."""
        ...


class Decode(Protocol):
    """Reads the body of a request; raises `InvalidRequest`. The one function that an API is to its route."""

    def __call__(self, body: bytes, *, request_id: str, affinity_key: str = "") -> Exchange:
        """The request in it; `affinity_key` is what the headers say of the session, "" if nothing."""
        ...
