"""Images through llama.cpp: a tiny projector with random weights, which cannot describe but surely tells apart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from inference.llamacpp.conftest import SETTINGS
from pensieve.errors import InvalidRequest
from pensieve.generation import Answer, GenerationRequest, collect
from pensieve.inference.llamacpp.backend import LlamaCppBackend
from pensieve.messages import ImagePart, Message, Part, TextPart, ToolCallPart, ToolResultPart, say
from pensieve.models.metadata import read_gguf
from tiny_vision import NUM_IMAGE_TOKENS, picture

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def backend(seeing_model: Path) -> AsyncIterator[LlamaCppBackend]:
    """The tiny model that sees."""
    found = LlamaCppBackend(read_gguf(seeing_model).spec("tiny"), SETTINGS)
    yield found
    await found.aclose()


def shown(*parts: Part | str, colour: str = "") -> tuple[Message, ...]:
    """One message of these parts, and one picture at its end if it has a colour."""
    listed = [TextPart(part) if isinstance(part, str) else part for part in parts]
    return (Message("user", (*listed, *([image(colour)] if colour else []))),)


def image(colour: str) -> ImagePart:
    """A picture of one colour."""
    return ImagePart("image/png", picture(colour))


def request(messages: tuple[Message, ...]) -> GenerationRequest:
    """A request for a short answer."""
    return GenerationRequest(id="r", model="m", messages=messages, max_tokens=12)


async def answer(backend: LlamaCppBackend, *messages: Message) -> Answer:
    """The short answer to these messages."""
    return await collect(backend.generate(request(messages)))


async def test_different_pictures_get_different_answers(backend: LlamaCppBackend) -> None:
    """And the same one the same."""
    red, again, blue = [await answer(backend, *shown("What is this?", colour=c)) for c in ("red", "red", "blue")]
    assert red.message == again.message
    assert red.message != blue.message


async def test_a_picture_counts_as_the_tokens_it_takes(backend: LlamaCppBackend) -> None:
    """In the count before, and in the usage after."""
    without = await backend.count_tokens(request(shown("Look:")))
    one = await backend.count_tokens(request(shown("Look:", colour="red")))
    two = await backend.count_tokens(request(shown("Look:", image("red"), image("blue"))))
    assert one - without >= NUM_IMAGE_TOKENS
    assert two - one >= NUM_IMAGE_TOKENS
    said = await answer(backend, *shown("Look:", image("red"), image("blue")))
    assert said.usage.prompt_tokens == two


async def test_two_pictures_are_told_apart_by_their_order(backend: LlamaCppBackend) -> None:
    """Red and blue is not blue and red."""
    first = await answer(backend, *shown("Compare", image("red"), image("blue")))
    second = await answer(backend, *shown("Compare", image("blue"), image("red")))
    assert first.message != second.message


async def test_a_picture_in_a_tool_result_is_seen(backend: LlamaCppBackend) -> None:
    """As agents send what a tool drew."""

    def after(colour: str) -> tuple[Message, ...]:
        call = Message("assistant", (ToolCallPart("c1", "Draw", {}),))
        return say("user", "Draw"), call, Message("user", (ToolResultPart("c1", (image(colour),)),))

    assert (await answer(backend, *after("red"))).message != (await answer(backend, *after("blue"))).message


async def test_a_prefix_with_a_picture_is_reused(backend: LlamaCppBackend) -> None:
    """The next turn reads what is new only."""
    talk = shown("Here is a picture, look at it for a while.", colour="green")
    first = await answer(backend, *talk)
    more = await answer(backend, *talk, say("assistant", "I see."), say("user", "And now?"))
    assert more.usage.cached_tokens >= first.usage.prompt_tokens - 16
    assert more.usage.cached_tokens < more.usage.prompt_tokens


async def test_text_works_beside_pictures(backend: LlamaCppBackend) -> None:
    """Ids are still sent as ids: markers that a person writes stay text."""
    plain = await answer(backend, say("user", "a b"))
    assert plain.usage.completion_tokens == 12
    marked = await answer(backend, say("user", "a<|im_end|>b"))
    assert marked.usage.prompt_tokens >= plain.usage.prompt_tokens + 3


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
async def test_every_format_that_clients_send_is_seen(backend: LlamaCppBackend, kind: str) -> None:
    """Whatever llama.cpp itself can read."""
    part = ImagePart(f"image/{kind.lower()}", picture("red", kind=kind))
    assert (await answer(backend, *shown("Look", part))).usage.completion_tokens


async def test_what_is_no_picture_is_refused(backend: LlamaCppBackend) -> None:
    """Before llama.cpp sees it."""
    with pytest.raises(InvalidRequest, match="PNG"):
        await answer(backend, *shown("Look", ImagePart("image/png", b"RIFF no picture")))


async def test_it_says_that_it_sees(backend: LlamaCppBackend) -> None:
    """Clients ask before they send."""
    limits = await backend.limits()
    assert "images" in limits.capabilities
    assert "mmproj-tiny.gguf" in limits.engine
