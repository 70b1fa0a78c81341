"""How `ask` and the chat ask for an answer: the user's settings, as requests. Knows no terminal and no backend."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence

import msgspec

from pensieve.config.settings import GenerationSettings
from pensieve.conversation.choices import PARAMETERS, Choices
from pensieve.generation import GenerationRequest, Thinking
from pensieve.messages import Message, say
from pensieve.sampling.params import SamplingParams, validate


class Recipe(msgspec.Struct, frozen=True):
    """What is the same for every request of one command."""

    model: str
    system: str = ""
    sampling: SamplingParams = SamplingParams()
    max_tokens: int | None = None
    thinking: Thinking | None = None
    """None: as the model does by itself."""

    @classmethod
    def of(cls, settings: GenerationSettings, model: str, seed: int | None = None) -> Recipe:
        """The recipe the settings describe; a seed out of range is `InvalidRequest`."""
        sampling = SamplingParams(
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            min_p=settings.min_p,
            repetition_penalty=settings.repetition_penalty,
            seed=seed,
        )
        return cls(model, settings.system, validate(sampling), settings.max_tokens)

    def chosen(self, given: Collection[str]) -> Choices:
        """Those parameters of it that were given on the command line, as choices."""
        asked = Choices(sampling=self.sampling, max_tokens=self.max_tokens)
        chosen = Choices()
        for name in PARAMETERS:
            if name in given:
                chosen = chosen.with_value(name, asked.value(name))
        return chosen

    def asked(self, choices: Choices) -> Recipe:
        """The recipe, where a conversation's choices hold over it."""
        return msgspec.structs.replace(
            self,
            sampling=choices.sampling_over(self.sampling),
            max_tokens=choices.max_tokens_over(self.max_tokens),
            thinking=self.thinking if choices.thinking is None else choices.thinking,
        )

    def request(self, messages: Sequence[Message], affinity_key: str = "") -> GenerationRequest:
        """A request for the next words of the assistant."""
        system = (say("system", self.system),) if self.system else ()
        return GenerationRequest(
            id=f"req_{uuid.uuid4().hex}",
            model=self.model,
            messages=(*system, *messages),
            sampling=self.sampling,
            max_tokens=self.max_tokens,
            thinking=self.thinking,
            affinity_key=affinity_key,
        )
