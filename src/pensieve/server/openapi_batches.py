"""The part of our description that tells of Message Batches, made from the structs that decode them."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from pensieve.messages import Json
from pensieve.wire.anthropic.batches import MAX_LIST, MAX_REQUESTS, OUTCOMES, CreateBody

SCHEMAS = "#/components/schemas/"
PATH = "/v1/messages/batches"
LINES = "application/x-jsonl"
_WHEN: Json = {"type": ["string", "null"], "format": "date-time"}
_TEXT: Json = {"type": ["string", "null"]}
_COUNT: Json = {"type": "integer", "minimum": 0}
_ID: Json = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


class Route(NamedTuple):
    """One operation: how it is called, and the names of its schemas; an answer of "" comes as lines of JSON."""

    path: str
    method: str
    operation: str
    summary: str
    answer: str
    body: str = ""
    parameters: tuple[Json, ...] = (_ID,)


def _query(name: str, **schema: Json) -> Json:
    return {"name": name, "in": "query", "schema": schema}


_PAGE = (
    _query("limit", type="integer", minimum=1, maximum=MAX_LIST),
    _query("after_id", type="string"),
    _query("before_id", type="string"),
)
ROUTES = (
    Route(PATH, "post", "createBatch", "Answer many requests when there is room", "Batch", "BatchRequest", ()),
    Route(PATH, "get", "listBatches", "The batches of this key, the newest first", "BatchPage", parameters=_PAGE),
    Route(f"{PATH}/{{id}}", "get", "retrieveBatch", "How a batch is", "Batch"),
    Route(f"{PATH}/{{id}}", "delete", "deleteBatch", "Forget a batch that has ended", "DeletedBatch"),
    Route(f"{PATH}/{{id}}/cancel", "post", "cancelBatch", "Have a batch end soon", "Batch"),
    Route(f"{PATH}/{{id}}/results", "get", "batchResults", "One line of JSON for each request", ""),
)


def schemas() -> dict[str, Any]:
    """What makes a batch, and what is told of it."""
    _, made = msgspec.json.schema_components([CreateBody], ref_template=f"{SCHEMAS}Batch{{name}}")
    made["EntryBody"]["properties"] = {
        "custom_id": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"},
        "params": {"$ref": f"{SCHEMAS}MessageRequest"},
    }
    made["CreateBody"]["properties"]["requests"]["maxItems"] = MAX_REQUESTS
    batch = _object(
        id={"type": "string"},
        type={"const": "message_batch"},
        processing_status={"enum": ["in_progress", "canceling", "ended"]},
        request_counts=_object(processing=_COUNT, **dict.fromkeys(OUTCOMES, _COUNT)),
        created_at=_WHEN,
        expires_at=_WHEN,
        ended_at=_WHEN,
        cancel_initiated_at=_WHEN,
        archived_at=_WHEN,
        results_url=_TEXT,
        progress=_object(done=_COUNT, total=_COUNT),
    )
    batches: Json = {"type": "array", "items": {"$ref": f"{SCHEMAS}Batch"}}
    return {
        "BatchRequest": made["CreateBody"],
        "BatchEntryBody": made["EntryBody"],
        "Batch": batch,
        "BatchPage": _object(data=batches, has_more={"type": "boolean"}, first_id=_TEXT, last_id=_TEXT),
        "DeletedBatch": _object(id={"type": "string"}, type={"const": "message_batch_deleted"}),
    }


def _object(**fields: Json) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields)}
