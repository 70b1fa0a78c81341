"""Frames between parent and worker: any cut of the byte stream gives the same frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.config.settings import Settings
from pensieve.errors import ContextOverflow, InvalidRequest, RequestTooLarge, rebuild
from pensieve.generation import Finished, GenerationRequest, Started, TextDelta, ToolCallDelta, Usage
from pensieve.inference.backend import Limits
from pensieve.inference.worker import frames
from pensieve.messages import ImagePart, Message, TextPart, ToolCallPart, ToolResultPart
from pensieve.models.spec import ModelSpec

TALK = (
    Message("user", (TextPart("Hi\u2028"), ImagePart("image/png", b"\x00\xff"))),
    Message("assistant", (ToolCallPart("t", "Read", {"a": [1, 2.5, None]}),)),
    Message("user", (ToolResultPart("t", (TextPart("x"),)),)),
)
DOWN: list[frames.ToWorker] = [
    frames.Load(ModelSpec(name="m", location="m.gguf"), Settings()),
    frames.Generate(1, GenerationRequest(id="r", model="m", messages=TALK, stop=("x",))),
    frames.Count(2, GenerationRequest(id="r", model="m", messages=TALK)),
    frames.Cancel(1),
    frames.Ping(),
    frames.Relieve(0.5, True),
    frames.Stop(),
]
UP: list[frames.FromWorker] = [
    frames.Ready(Limits("m", 8192, 8192), 500),
    frames.Pong(3, 4),
    frames.Events(1, (Started(3, 1), TextDelta("Hé"), ToolCallDelta("t", "{"), Finished("stop", Usage(3, 1, 2)))),
    frames.Counted(2, 3),
    frames.Failed(3, "ContextOverflow", ContextOverflow(prompt_tokens=5, limit_tokens=4).facts()),
]


@given(st.lists(st.integers(1, 400), max_size=20))
def test_frames_survive_any_cut(steps: list[int]) -> None:
    """Both directions, whole or in pieces."""
    down, up = frames.ToWorkerDecoder(), frames.FromWorkerDecoder()
    assert _feed(down.feed, b"".join(map(frames.encode, DOWN)), steps) == DOWN
    assert _feed(up.feed, b"".join(map(frames.encode, UP)), steps) == UP


def _feed(feed: object, data: bytes, steps: list[int]) -> list[object]:
    taken: list[object] = []
    for step in [*steps, len(data)]:
        taken += feed(data[:step])  # type: ignore[operator]
        data = data[step:]
    return taken


def test_an_error_is_the_same_on_the_other_side() -> None:
    """Facts included, so that the wire can say them."""
    (failed,) = frames.FromWorkerDecoder().feed(frames.encode(UP[-1]))
    assert isinstance(failed, frames.Failed)
    assert str(rebuild(failed.code, failed.facts)) == "prompt is too long: 5 tokens > 4 maximum"


def test_an_error_always_arrives() -> None:
    """Also with text in it that is no valid Unicode, as a model file can make it."""
    frame = frames.failed(1, InvalidRequest("the template says \ud800"))
    (failed,) = frames.FromWorkerDecoder().feed(frames.encode(frame))
    assert isinstance(failed, frames.Failed)
    assert failed.facts["problem"] == "the template says ?"


def test_a_frame_too_large_is_refused_where_it_is_made() -> None:
    """The other side would lose step, and with it every request."""
    talk = (Message("user", (ImagePart("image/png", bytes(frames.MAX_FRAME_BYTES)),)),)
    with pytest.raises(RequestTooLarge):
        frames.encode(frames.Generate(1, GenerationRequest(id="r", model="m", messages=talk)))


def test_a_stream_out_of_step_is_noticed() -> None:
    """A length nobody sends means that one side has lost count."""
    with pytest.raises(AssertionError, match="out of step"):
        frames.ToWorkerDecoder().feed(b"\xff\xff\xff\xff")
