"""What one line of the input asks, and the line of the output that answers it. Reads no file and asks no model."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable

import msgspec

from pensieve.cli.recipe import Recipe
from pensieve.errors import InvalidRequest, PensieveError
from pensieve.generation import Answer, GenerationRequest
from pensieve.messages import Json, say
from pensieve.wire.anthropic.batches import errored, succeeded
from pensieve.wire.anthropic.requests import decode_request
from pensieve.wire.body import check, parse_object
from pensieve.wire.exchange import Exchange, Label


class PromptLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The short form."""

    prompt: str
    system: str = ""
    max_tokens: int | None = None


class Job(msgspec.Struct, frozen=True):
    """One line of the input, understood."""

    line: int
    """Counted from 1, as editors do."""
    custom_id: str
    digest: str
    """Of the line's bytes: an output goes with the input it was made from."""
    request: GenerationRequest
    tell: Callable[[Answer], Json]
    """The answer as the API's message."""


class Unclear(msgspec.Struct, frozen=True):
    """A line that asks nothing."""

    line: int
    custom_id: str
    digest: str
    error: InvalidRequest


class Written(msgspec.Struct, frozen=True):
    """A line of the output: what is read of it again."""

    line: int
    digest: str
    result: msgspec.Raw

    @property
    def is_error(self) -> bool:
        """Whether the line had no answer."""
        return msgspec.json.decode(self.result, type=_Result).type != "succeeded"


class _Named(msgspec.Struct, frozen=True):
    custom_id: str


class _Result(msgspec.Struct, frozen=True):
    type: str


def digest_of(content: bytes) -> str:
    """Of a line without the white space around it."""
    return hashlib.sha256(content.strip()).hexdigest()[:16]


def understand(line: int, content: bytes, recipe: Recipe) -> Job | Unclear:
    """What the line asks: `{"prompt": ...}`, a body of the Messages API, or one in the API's `params`."""
    digest, custom_id = digest_of(content), ""
    try:
        raw = parse_object(content)
        custom_id = check({"custom_id": raw.pop("custom_id", "")}, _Named).custom_id
        asked, tell = _asked(raw, recipe)
    except InvalidRequest as error:
        return Unclear(line, custom_id, digest, error)
    return Job(line, custom_id, digest, asked, tell)


def answered(job: Job, answer: Answer) -> bytes:
    """The line of the output for an answer; `text` is its plain text."""
    return _line(job.line, job.custom_id, job.digest, succeeded(job.tell(answer)), answer.message.text)


def failed(job: Job | Unclear, error: PensieveError) -> bytes:
    """The line of the output where there is none."""
    return _line(job.line, job.custom_id, job.digest, errored(error, f"line_{job.line}"))


def _line(line: int, custom_id: str, digest: str, result: bytes, text: str | None = None) -> bytes:
    told: dict[str, Json] = {"line": line, "custom_id": custom_id or str(line)}
    told |= {} if text is None else {"text": text}
    return msgspec.json.encode(told | {"result": msgspec.Raw(result), "digest": digest}) + b"\n"


def _asked(raw: dict[str, Json], recipe: Recipe) -> tuple[GenerationRequest, Callable[[Answer], Json]]:
    if "prompt" in raw:
        return _prompt(check(raw, PromptLine), recipe)
    body = raw.pop("params", raw)
    if not isinstance(body, dict):
        raise InvalidRequest("an object is expected", path="params")
    return _message(body, recipe)


def _prompt(asked: PromptLine, recipe: Recipe) -> tuple[GenerationRequest, Callable[[Answer], Json]]:
    changed = msgspec.structs.replace(
        recipe, system=asked.system or recipe.system, max_tokens=asked.max_tokens or recipe.max_tokens
    )
    if not asked.prompt.strip():
        raise InvalidRequest("there is nothing to ask", path="prompt")
    body = msgspec.json.encode(
        {"model": recipe.model, "max_tokens": None, "messages": [{"role": "user", "content": "-"}]}
    )
    return changed.request([say("user", asked.prompt)]), _teller(decode_request(body, request_id=""), recipe.model)


def _message(body: dict[str, Json], recipe: Recipe) -> tuple[GenerationRequest, Callable[[Answer], Json]]:
    body = {"max_tokens": recipe.max_tokens} | body | {"model": recipe.model, "stream": False}
    exchange = decode_request(msgspec.json.encode(body), request_id=f"req_{uuid.uuid4().hex}")
    if exchange.forced is not None:
        raise InvalidRequest("a tool that runs on the API's servers cannot be forced here", path="tool_choice")
    return exchange.request, _teller(exchange, recipe.model)


def _teller(exchange: Exchange, model: str) -> Callable[[Answer], Json]:
    label = Label(f"{exchange.id_prefix}{uuid.uuid4().hex[:24]}", model, "", int(time.time()))
    return exchange.encoder(label).whole
