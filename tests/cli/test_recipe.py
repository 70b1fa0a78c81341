"""Settings become requests without loss, and what is not said stays unsaid."""

from __future__ import annotations

import pytest

from pensieve.cli.recipe import Recipe
from pensieve.config.settings import GenerationSettings
from pensieve.conversation.choices import Choices
from pensieve.errors import InvalidRequest
from pensieve.messages import say
from pensieve.sampling.params import SamplingParams


def test_every_generation_setting_reaches_the_request() -> None:
    """Sampling, length and system text."""
    sampling = SamplingParams(temperature=0.0, top_p=0.5, top_k=0, min_p=0.1, repetition_penalty=1.2, seed=3)
    settings = GenerationSettings(
        temperature=0.0, top_p=0.5, top_k=0, min_p=0.1, repetition_penalty=1.2, max_tokens=9, system="Be brief."
    )
    request = Recipe.of(settings, "m", seed=3).request([say("user", "hi")])
    assert (request.model, request.sampling, request.max_tokens) == ("m", sampling, 9)
    assert request.messages == (say("system", "Be brief."), say("user", "hi"))


def test_what_is_not_set_is_left_to_the_backend() -> None:
    """No default is decided here, and no empty system text is sent."""
    request = Recipe.of(GenerationSettings(), "m").request([say("user", "hi")])
    assert request.sampling == SamplingParams()
    assert request.max_tokens is None
    assert request.messages == (say("user", "hi"),)


def test_a_seed_that_no_engine_takes_is_refused() -> None:
    """By name."""
    with pytest.raises(InvalidRequest, match="seed"):
        Recipe.of(GenerationSettings(), "m", seed=-1)


def test_what_was_said_on_the_command_line_is_a_choice() -> None:
    """And nothing else of the settings is; a conversation's choices give way to it, and hold over the settings."""
    base = Recipe("m", sampling=SamplingParams(temperature=0.0, top_p=0.5), max_tokens=9)
    given = base.chosen(("temperature", "max_tokens", "model"))
    assert given == Choices(sampling=SamplingParams(temperature=0.0), max_tokens=9)
    kept = Choices(sampling=SamplingParams(temperature=0.9, top_k=3), max_tokens=50, none=("top_p",))
    held = base.asked(kept.below(given))
    assert (held.sampling, held.max_tokens) == (SamplingParams(temperature=0.0, top_k=3), 9)
    assert base.asked(base.chosen(())) == base
