"""One line a request: what it tells of a generation's speed."""

from __future__ import annotations

from pensieve.generation import Finished, Timings, Usage
from pensieve.server.ledger import RequestRecord


def test_a_generations_measures_are_in_the_line() -> None:
    """Waiting, first token, both speeds and the peak, from the event that ends the answer."""
    record = RequestRecord("POST", "/v1/messages")
    timings = Timings(0.002, 0.5, 2.0, 0.502, peak_memory_bytes=1_500_000_000)
    record.observe(Finished("stop", Usage(1_100, 100, 21), timings=timings))
    assert "out=21 queue=2ms first=502ms prefill=2000tok/s decode=10.0tok/s peak=1.50GB" in record.line()


def test_an_answer_of_one_token_has_no_decoding_speed() -> None:
    """Nothing is divided by nothing."""
    record = RequestRecord("POST", "/v1/messages")
    record.observe(Finished("stop", Usage(10, 10, 1), timings=Timings()))
    assert "queue=0ms first=0ms " in record.line()
