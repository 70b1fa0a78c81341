"""What answers may and must contain, with tiny models of random weights: schemas, forced calls, thinking, loops."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import jsonschema
import msgspec
import pytest
import pytest_asyncio

from inference.llamacpp.conftest import SETTINGS
from pensieve.config.settings import GenerationSettings
from pensieve.errors import BackendFailure, InvalidRequest
from pensieve.generation import Answer, GenerationRequest, Thinking, ToolChoice, collect
from pensieve.inference.llamacpp.backend import LlamaCppBackend
from pensieve.inference.several import several
from pensieve.messages import Json, TextPart, ThinkingPart, ToolCallPart, ToolSpec, say
from pensieve.models.metadata import read_gguf
from pensieve.sampling.params import SamplingParams

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOT = SamplingParams(temperature=1.0, seed=5)
SCHEMA: Json = {
    "type": "object",
    "properties": {"size": {"enum": ["small", "large"]}, "count": {"type": "integer", "minimum": 1, "maximum": 40}},
    "required": ["size", "count"],
    "additionalProperties": False,
}
TOOLS = (ToolSpec("Order", SCHEMA, "Orders something."), ToolSpec("Stop", {"type": "object", "properties": {}}))

STRICT = tuple(msgspec.structs.replace(tool, is_strict=True) for tool in TOOLS)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def plain(plain_model: Path) -> AsyncIterator[LlamaCppBackend]:
    """A model that answers at once."""
    backend = LlamaCppBackend(read_gguf(plain_model).spec("tiny"), SETTINGS)
    yield backend
    await backend.aclose()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def marked(marked_model: Path) -> AsyncIterator[LlamaCppBackend]:
    """A model with tokens for the marks of calls."""
    backend = LlamaCppBackend(read_gguf(marked_model).spec("tiny"), SETTINGS)
    yield backend
    await backend.aclose()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def thinker(thinking_model: Path) -> AsyncIterator[LlamaCppBackend]:
    """A model whose template opens the thinking."""
    backend = LlamaCppBackend(read_gguf(thinking_model).spec("tiny"), SETTINGS)
    yield backend
    await backend.aclose()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def guarded(plain_model: Path) -> AsyncIterator[LlamaCppBackend]:
    """A model that is stopped when it goes round in circles."""
    settings = msgspec.structs.replace(SETTINGS, generation=GenerationSettings(repetition_tokens=64))
    backend = LlamaCppBackend(read_gguf(plain_model).spec("tiny"), settings)
    yield backend
    await backend.aclose()


async def answer(backend: LlamaCppBackend, **fields: object) -> Answer:
    """The answer to one question."""
    known = {"max_tokens": 300, "sampling": HOT} | fields
    request = GenerationRequest(id="r", model="m", messages=(say("user", "Order!"),), **known)  # type: ignore[arg-type]
    return await collect(backend.generate(request))


def calls(reply: Answer) -> list[ToolCallPart]:
    """The calls in an answer."""
    return [part for part in reply.message.parts if isinstance(part, ToolCallPart)]


async def test_an_answer_obeys_its_schema(plain: LlamaCppBackend) -> None:
    """Token by token: a model of random weights could not otherwise."""
    reply = await answer(plain, output_schema=SCHEMA)
    jsonschema.validate(json.loads(reply.message.text), SCHEMA)
    assert reply.reason == "stop"


async def test_a_forced_call_is_made_and_obeys_its_schema(plain: LlamaCppBackend) -> None:
    """The named tool, once where calls at the same time are not allowed."""
    choice = ToolChoice("tool", "Order", is_parallel_allowed=False)
    reply = await answer(plain, tools=TOOLS, tool_choice=choice)
    assert [call.name for call in calls(reply)] == ["Order"]
    jsonschema.validate(calls(reply)[0].arguments, SCHEMA)
    assert reply.reason == "tool_calls"


async def test_any_tool_means_one_of_them(plain: LlamaCppBackend) -> None:
    """Whatever the model would have liked to say."""
    reply = await answer(plain, tools=TOOLS, tool_choice=ToolChoice("any", is_parallel_allowed=False))
    assert {call.name for call in calls(reply)} <= {"Order", "Stop"}
    assert len(calls(reply)) == 1


async def test_a_strict_tool_leaves_text_free(plain: LlamaCppBackend) -> None:
    """Under `auto` the rule waits for a call."""
    reply = await answer(plain, tools=STRICT, max_tokens=40)
    assert reply.usage.completion_tokens == 40
    assert not calls(reply)


@pytest.mark.parametrize("seed", range(4))
async def test_a_strict_call_obeys_its_schema_from_its_marker_on(marked: LlamaCppBackend, seed: int) -> None:
    """Text before it is free and is shown once; its markers are tokens, of whichever kind."""
    opener = next(token for token, text in marked._specials.items() if text == "<tool_call>")
    reply = await answer(
        marked,
        tools=STRICT,
        tool_choice=ToolChoice(is_parallel_allowed=False),
        sampling=SamplingParams(temperature=1.0, seed=seed),
        logit_bias={opener: 4.0},
    )
    (call,) = calls(reply)
    assert call.name in {"Order", "Stop"}
    if call.name == "Order":
        jsonschema.validate(call.arguments, SCHEMA)
    assert reply.reason == "tool_calls"
    assert "<tool_call>" not in reply.message.text


async def test_forced_calls_are_written_with_the_vocabularys_markers(marked: LlamaCppBackend) -> None:
    """A control token is no text for llguidance: a grammar must name it."""
    choice = ToolChoice("tool", "Order", is_parallel_allowed=False)
    reply = await answer(marked, tools=TOOLS, tool_choice=choice)
    assert [call.name for call in calls(reply)] == ["Order"]
    assert reply.usage.completion_tokens < 150


async def test_a_schema_that_cannot_be_obeyed_is_refused_with_its_path(plain: LlamaCppBackend) -> None:
    """Never weakened."""
    with pytest.raises(InvalidRequest) as caught:
        await answer(plain, output_schema={"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}})
    assert caught.value.path.startswith("output_config.format.schema")


async def test_an_answer_is_stopped_when_llama_cpp_gives_its_grammar_up(plain: LlamaCppBackend) -> None:
    """As it does, in silence, with one that names a token it has not."""
    plain._markers["size"] = 10**6
    try:
        with pytest.raises(BackendFailure, match="within its schema"):
            await answer(plain, output_schema=SCHEMA)
    finally:
        del plain._markers["size"]


async def test_thinking_stops_at_its_budget(thinker: LlamaCppBackend) -> None:
    """Then the answer follows, and both count."""
    reply = await answer(thinker, thinking=Thinking("enabled", 20), max_tokens=60)
    thought, said = reply.message.parts
    assert isinstance(thought, ThinkingPart)
    assert isinstance(said, TextPart)
    assert "think>" not in thought.text + said.text
    assert (reply.reason, reply.usage.completion_tokens) == ("length", 60)


async def test_thinking_that_nobody_wants_is_closed_at_once(thinker: LlamaCppBackend) -> None:
    """Though the template opened it."""
    for thinking in (None, Thinking("disabled")):
        reply = await answer(thinker, thinking=thinking, max_tokens=20)
        assert [type(part) for part in reply.message.parts] == [TextPart]
        assert reply.usage.completion_tokens == 20


async def test_a_schema_holds_after_free_thinking(thinker: LlamaCppBackend) -> None:
    """What was thought is not bound, what is answered is."""
    reply = await answer(thinker, thinking=Thinking("enabled", 16), output_schema=SCHEMA)
    thought, said = reply.message.parts
    assert isinstance(thought, ThinkingPart)
    assert isinstance(said, TextPart)
    jsonschema.validate(json.loads(said.text), SCHEMA)


async def test_a_call_is_forced_after_thinking_that_is_not_wanted(thinker: LlamaCppBackend) -> None:
    """Closed, then called."""
    reply = await answer(thinker, tools=TOOLS, tool_choice=ToolChoice("tool", "Order", is_parallel_allowed=False))
    assert [call.name for call in calls(reply)] == ["Order"]


async def test_models_without_thinking_ignore_it(plain: LlamaCppBackend) -> None:
    """A client asks every model alike."""
    reply = await answer(plain, thinking=Thinking("enabled", 1024), max_tokens=12, output_schema=None)
    assert [type(part) for part in reply.message.parts] == [TextPart]
    assert (await answer(plain, thinking=Thinking(), output_schema=SCHEMA)).reason == "stop"


async def test_a_bias_moves_the_choice(plain: LlamaCppBackend) -> None:
    """As far as a token that is all the answer consists of."""
    reply = await answer(plain, logit_bias={67: 100.0}, max_tokens=5)
    assert reply.message.text == "d" * 5


async def test_a_stop_token_ends_the_answer_without_a_trace(plain: LlamaCppBackend) -> None:
    """It is not part of the text."""
    reply = await answer(plain, logit_bias={67: 100.0}, stop_tokens=(67,), max_tokens=5)
    assert (reply.message.text, reply.reason) == ("", "stop")


async def test_an_answer_that_goes_round_in_circles_is_stopped(guarded: LlamaCppBackend) -> None:
    """With a reason of its own."""
    reply = await answer(guarded, logit_bias={67: 100.0}, max_tokens=900)
    assert reply.reason == "repetition"
    assert 64 <= reply.usage.completion_tokens < 200


async def test_probabilities_come_with_the_tokens(plain: LlamaCppBackend) -> None:
    """As many alternatives as were asked for, the likeliest first; they are the model's own, whatever was drawn."""
    reply = await answer(plain, logit_bias={67: 100.0}, max_tokens=5, num_logprobs=2)
    assert [(each.token, each.text) for each in reply.logprobs] == [(67, "d")] * 5
    assert all(len(each.alternatives) == 2 for each in reply.logprobs)
    assert all(each.logprob <= each.alternatives[0][2] < 0.0 for each in reply.logprobs)
    assert all(each.alternatives[0][2] >= each.alternatives[1][2] for each in reply.logprobs)


async def test_probabilities_of_the_chosen_token_alone(plain: LlamaCppBackend) -> None:
    """And none at all where nobody asked."""
    alone = await answer(plain, logit_bias={67: 100.0}, max_tokens=2, num_logprobs=0)
    assert [each.alternatives for each in alone.logprobs] == [(), ()]
    assert (await answer(plain, logit_bias={67: 100.0}, max_tokens=2)).logprobs == ()


async def test_plain_text_is_gone_on_from_as_it_stands(thinker: LlamaCppBackend) -> None:
    """No template, whose thinking would open here, and no parser: what looks like a mark is text."""
    request = GenerationRequest(id="r", model="m", messages=(), text="abc", max_tokens=4, logit_bias={67: 100.0})
    reply = await collect(thinker.generate(request))
    assert reply.message.parts == (TextPart("dddd"),)
    assert reply.usage.prompt_tokens == await thinker.count_tokens(request) <= 4


async def test_several_answers_share_a_prompt_that_is_read_once(plain: LlamaCppBackend) -> None:
    """Each with a seed of its own; what all have said is counted together."""
    words = (say("user", "Tell " + "me more " * 12),)
    asked = GenerationRequest(id="r", model="m", messages=words, max_tokens=6, num_answers=3, sampling=HOT)
    told = await collect(several(plain.generate, asked))
    assert len({each.message.text for each in (told, *told.others)}) == 3
    assert told.usage.prompt_tokens == await plain.count_tokens(asked)
    assert 6 < told.usage.completion_tokens <= 18
