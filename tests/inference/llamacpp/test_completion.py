"""A run in llama.cpp's words, and its words as chunks."""

from __future__ import annotations

import base64

import pytest

from pensieve.errors import BackendFailure, ContextOverflow
from pensieve.inference.llamacpp.completion import Chunk, Run, chunk_of
from pensieve.sampling.params import SamplingParams


def body(**fields: object) -> dict[str, object]:
    """The request for a run over three tokens."""
    return Run([1, 2, 3], SamplingParams(), 8, **fields).body()  # type: ignore[arg-type]


def test_ids_are_sent_as_ids_and_images_beside_text() -> None:
    """Whatever else is asked for."""
    assert body()["prompt"] == [1, 2, 3]
    shown = body(text="a <mark> b", images=(b"png",))["prompt"]
    assert shown == {"prompt_string": "a <mark> b", "multimodal_data": [base64.b64encode(b"png").decode()]}


def test_a_slot_is_named_where_one_was_chosen() -> None:
    """The first has the number 0."""
    assert body(slot=0)["id_slot"] == 0
    assert "id_slot" not in body()


def test_a_grammar_is_sent_as_one_of_llguidances() -> None:
    """By what llama.cpp knows those; without one nothing is sent."""
    assert body(lark='start: "a"')["grammar"] == '%llguidance {}\nstart: "a"'
    assert "grammar" not in body()


def test_both_forms_of_a_chunk_are_read() -> None:
    """The one of the call in the process holds the other."""
    step = {"content": "Hi", "tokens": [7], "stop": False, "tokens_predicted": 3}
    assert chunk_of(step) == chunk_of({"choices": [], "__verbose": step}) == Chunk("Hi", 7, 3)
    last = {"content": "", "tokens": [], "stop": True, "stop_type": "limit", "tokens_predicted": 3}
    assert chunk_of(last) == Chunk(completion_tokens=3, finish="length")


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ({"type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 4}, ContextOverflow),
        ({"message": "failed to parse grammar"}, BackendFailure),
    ],
)
def test_errors_are_ours(raw: dict[str, object], kind: type[Exception]) -> None:
    """With the facts they carry."""
    assert isinstance(chunk_of({"error": raw}).error, kind)
