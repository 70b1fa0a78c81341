"""In whose words a route speaks: errors come in the envelope that its clients know.

Decides by path, and by headers where two APIs share a path. Knows no route's work.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Scope

from pensieve.errors import PensieveError
from pensieve.messages import Json
from pensieve.wire.anthropic.responses import encode_error as encode_anthropic_error
from pensieve.wire.openai.errors import encode_error as encode_openai_error

OPENAI_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
SHARED_PATHS = ("/v1/models",)
ANTHROPIC_HEADERS = frozenset({b"anthropic-version", b"x-api-key"})
"""Of clients of the Messages API: one of them is always there."""

EncodeError = Callable[[PensieveError, str], dict[str, Json]]


def is_openai(scope: Scope) -> bool:
    """Whether the request is one of OpenAI's APIs."""
    path = scope["path"]
    if _is_under(path, SHARED_PATHS):
        return ANTHROPIC_HEADERS.isdisjoint(name for name, _ in scope["headers"])
    return _is_under(path, OPENAI_PATHS)


def error_encoder(scope: Scope) -> EncodeError:
    """What makes the body of the request's error: of the error and the request's id."""
    return encode_openai_error if is_openai(scope) else encode_anthropic_error


def _is_under(path: str, parents: tuple[str, ...]) -> bool:
    return any(path == parent or path.startswith(f"{parent}/") for parent in parents)
