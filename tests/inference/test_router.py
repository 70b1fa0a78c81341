"""The router answers every name with the resident model, and starts it once."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from pensieve.errors import BackendFailure
from pensieve.generation import GenerationRequest, collect
from pensieve.inference.router import Router
from pensieve.inference.scripted import Script, ScriptedBackend
from pensieve.messages import say
from pensieve.models.spec import ModelSpec

SCRIPT = Script.saying("one two three")


class Starter:
    """Starts scripted backends and remembers them."""

    def __init__(self) -> None:
        self.started: list[ScriptedBackend] = []

    def __call__(self, spec: ModelSpec) -> ScriptedBackend:
        """One more backend."""
        assert spec == SCRIPT.spec
        self.started.append(ScriptedBackend(SCRIPT))
        return self.started[-1]


def asking(model: str) -> GenerationRequest:
    """A request for that model."""
    return GenerationRequest(id="req_1", model=model, messages=(say("user", "hello"),))


async def test_any_name_is_answered_by_the_one_resident_backend() -> None:
    """Agents with built-in names just work, and nothing is started twice."""
    starter = Starter()
    router = Router(SCRIPT.spec, starter)
    assert not starter.started
    for name in ("claude-opus-5-5", "scripted", ""):
        assert (await collect(router.generate(asking(name)))).message.text == "one two three"
        assert router.resolve(name).name == "scripted"
    assert await router.count_tokens(asking("x")) == 1
    assert len(starter.started) == 1


class LoadingBackend(ScriptedBackend):
    """A backend that says how it is, as a worker does."""

    @property
    def status(self) -> Loading:
        """Always loading."""
        return Loading()


class Loading:
    """The one state of a `LoadingBackend`."""

    state = "loading"


async def test_the_state_is_the_resident_backends_own_word() -> None:
    """Asking for it starts nothing; a backend without states is ready as soon as it is there."""
    plain = Router(SCRIPT.spec, Starter())
    loading = Router(SCRIPT.spec, lambda _spec: LoadingBackend(SCRIPT))
    assert (plain.state, loading.state) == ("unloaded", "unloaded")
    await plain.limits()
    await loading.limits()
    assert (plain.state, loading.state) == ("ready", "loading")


async def test_limits_are_those_of_the_resident_model() -> None:
    """The router adds nothing of its own."""
    limits = await Router(SCRIPT.spec, Starter()).limits("gpt-x")
    assert (limits.model, limits.context_tokens) == ("scripted", SCRIPT.context_tokens)


async def test_closing_an_answer_closes_the_backends_generator() -> None:
    """Cancelling goes all the way down."""
    starter = Starter()
    async with aclosing(Router(SCRIPT.spec, starter).generate(asking("x"))) as events:
        await anext(events)
    assert starter.started[0].counts.cancelled == 1


async def test_aclose_ends_the_backend_and_nothing_starts_afterwards() -> None:
    """Closing twice is safe; a worker that nobody would end must not be started by a late request."""
    starter = Starter()
    router = Router(SCRIPT.spec, starter)
    await collect(router.generate(asking("x")))
    await router.aclose()
    await router.aclose()
    with pytest.raises(BackendFailure, match="shutting down"):
        await collect(router.generate(asking("x")))
    assert [backend.is_closed for backend in starter.started] == [True]
