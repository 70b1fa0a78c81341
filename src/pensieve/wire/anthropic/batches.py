"""Message Batches in the words of the API: what is asked for, how a batch is, what became of each request.

Takes plain values and gives plain values: knows no queue, no file and no server.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from pensieve.errors import InvalidRequest, PensieveError
from pensieve.messages import Json
from pensieve.wire.anthropic.errors import encode_error
from pensieve.wire.anthropic.requests import decode_request
from pensieve.wire.body import check, parse_object

MAX_REQUESTS = 10_000
"""Of one batch; the API takes ten times as many, in sixteen times as large a body."""
MAX_LIST = 1_000
DEFAULT_LIST = 20
ID_PREFIX = "msgbatch_"
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)

Outcome = Literal["succeeded", "errored", "canceled", "expired"]
OUTCOMES: tuple[Outcome, ...] = ("succeeded", "errored", "canceled", "expired")


class EntryBody(msgspec.Struct, frozen=True):
    """One request of a new batch, as it stands in JSON."""

    custom_id: str
    params: dict[str, Json]


class CreateBody(msgspec.Struct, frozen=True):
    """A new batch, as it stands in JSON."""

    requests: Annotated[tuple[EntryBody, ...], Meta(min_length=1)]


class Entry(msgspec.Struct, frozen=True):
    """One request of a batch: `params` is a body of `POST /v1/messages` that was found good."""

    custom_id: str
    model: str
    params: bytes


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """How a batch is; times are in Unix seconds. `outcomes` counts the requests that have one."""

    id: str
    created_seconds: float
    expires_seconds: float
    num_requests: int
    outcomes: dict[Outcome, int] = {}
    ended_seconds: float | None = None
    cancelled_seconds: float | None = None
    """When somebody asked for its end."""

    @property
    def num_done(self) -> int:
        """Requests that have an outcome."""
        return sum(self.outcomes.values())


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of the list is asked for: the newest, or those older (`after_id`) or newer (`before_id`) than one."""

    limit: int = DEFAULT_LIST
    after_id: str = ""
    before_id: str = ""


def decode_create(body: bytes) -> tuple[Entry, ...]:
    """The requests of a new batch, each as good as one that is sent alone; raises `InvalidRequest` with its place."""
    raw = parse_object(body)
    asked = raw.get("requests")
    if isinstance(asked, list) and len(asked) > MAX_REQUESTS:
        problem = f"a batch has at most {MAX_REQUESTS:,} requests, and this one has {len(asked):,}: send several"
        raise InvalidRequest(problem, path="requests")
    seen: dict[str, int] = {}
    entries = []
    for at, entry in enumerate(check(raw, CreateBody).requests):
        path = f"requests.{at}"
        if not _CUSTOM_ID.fullmatch(entry.custom_id):
            raise InvalidRequest("1 to 64 letters, digits, _ and - are accepted", path=f"{path}.custom_id")
        if (first := seen.setdefault(entry.custom_id, at)) != at:
            raise InvalidRequest(f"requests.{first} has the same one: each must be its own", path=f"{path}.custom_id")
        entries.append(_decode_entry(entry, f"{path}.params"))
    return tuple(entries)


def decode_listing(limit: str | None, after_id: str | None, before_id: str | None) -> Listing:
    """The query of a list; raises `InvalidRequest`."""
    number = int(limit) if limit is not None and re.fullmatch(r"[0-9]{1,6}", limit, re.ASCII) else None
    if limit is not None and (number is None or not 1 <= number <= MAX_LIST):
        raise InvalidRequest(f"a whole number from 1 to {MAX_LIST:,} is accepted", path="limit")
    if after_id and before_id:
        raise InvalidRequest("after_id is given too: send one of them", path="before_id")
    return Listing(limit=number or DEFAULT_LIST, after_id=after_id or "", before_id=before_id or "")


def encode_batch(batch: Batch, results_url: str) -> dict[str, Json]:
    """How a batch is. As in the API, requests count as `processing` until all have ended; `progress` is our own."""
    has_ended = batch.ended_seconds is not None
    shown = {outcome: batch.outcomes.get(outcome, 0) if has_ended else 0 for outcome in OUTCOMES}
    status = "ended" if has_ended else "canceling" if batch.cancelled_seconds is not None else "in_progress"
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": status,
        "request_counts": {"processing": 0 if has_ended else batch.num_requests, **shown},
        "created_at": _time(batch.created_seconds),
        "expires_at": _time(batch.expires_seconds),
        "ended_at": _time(batch.ended_seconds),
        "cancel_initiated_at": _time(batch.cancelled_seconds),
        "archived_at": None,
        "results_url": results_url if has_ended else None,
        "progress": {"done": batch.num_done, "total": batch.num_requests},
    }


def encode_batches(batches: Sequence[dict[str, Json]], *, has_more: bool) -> dict[str, Json]:
    """A page of batches that `encode_batch` made."""
    first, last = (batches[0]["id"], batches[-1]["id"]) if batches else (None, None)
    return {"data": list(batches), "has_more": has_more, "first_id": first, "last_id": last}


def encode_deleted(batch_id: str) -> dict[str, Json]:
    """That a batch is gone."""
    return {"id": batch_id, "type": "message_batch_deleted"}


def succeeded(message: Json) -> bytes:
    """The result of a request that was answered with this message."""
    return msgspec.json.encode({"type": "succeeded", "message": message})


def errored(error: PensieveError, request_id: str) -> bytes:
    """The result of a request that failed for good."""
    return msgspec.json.encode({"type": "errored", "error": encode_error(error, request_id)})


def encode_result(custom_id: str, result: bytes) -> bytes:
    """One line of a batch's results."""
    return msgspec.json.encode({"custom_id": custom_id, "result": msgspec.Raw(result)}) + b"\n"


def _decode_entry(entry: EntryBody, path: str) -> Entry:
    params = msgspec.json.encode(entry.params)
    try:
        decoded = decode_request(params, request_id="")
    except InvalidRequest as refused:
        raise InvalidRequest(refused.problem, f"{path}.{refused.path}".removesuffix("."), refused.reason) from refused
    if decoded.is_stream:
        raise InvalidRequest("a batch has no streams: leave it out", path=f"{path}.stream")
    return Entry(entry.custom_id, decoded.request.model, params)


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
