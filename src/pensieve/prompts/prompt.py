"""Messages to prompt tokens, through one path for generating and for counting. Blocks; give it one thread."""

from __future__ import annotations

from typing import Final

import msgspec

from pensieve.generation import GenerationRequest, Thinking
from pensieve.messages import ImagePart
from pensieve.prompts.markers import MarkerGuard
from pensieve.prompts.normalize import probe, to_chat
from pensieve.prompts.template import NO_THINKING, ChatTemplate, TemplateOptions
from pensieve.prompts.tokenizer import KnowsMarkers, Tokenizer

ENDING_CHARACTERS: Final = 256
IMAGE_MARK: Final = "<__media__>"
"""Stands for an image in the text of a prompt; llama.cpp looks for this one."""
LITTLE_THINKING_TOKENS: Final = 2048
"""A budget below this asks for low effort where a template takes an effort."""


class Prompt(msgspec.Struct, frozen=True):
    """A rendered prompt."""

    tokens: list[int]
    ending: str
    """The last characters of its text: what the template already wrote of the answer's markup stands there."""
    text: str = ""
    """With images: the whole prompt, the image mark once for each of them. Without: empty."""
    images: tuple[ImagePart, ...] = ()
    """In the order of their marks."""


class PromptRenderer:
    """One model's template and tokenizer, put together."""

    def __init__(
        self,
        template: ChatTemplate,
        tokenizer: Tokenizer,
        *,
        added_bos: str,
        model_name: str = "",
        has_native_tools: bool = True,
        sees_images: bool = False,
        image_mark: str = IMAGE_MARK,
    ) -> None:
        """`added_bos`: the text of the BOS token where the tokenizer adds it by itself, else empty."""
        self._template = template
        self._tokenizer = tokenizer
        self._model_name = model_name
        self._has_native_tools = has_native_tools
        self._sees_images = sees_images
        self._image_mark = image_mark
        self._added_bos = added_bos
        self._traits = probe(template)
        self._guard = MarkerGuard(_markers(template, tokenizer))

    @property
    def stop(self) -> tuple[str, ...]:
        """Stop strings the prompt format needs: without a template nothing but text ends the model's turn."""
        return ("\nUser:", "\nSystem:") if self._template.is_plain else ()

    def render(self, request: GenerationRequest) -> list[int]:
        """Token ids of the whole prompt. Raises `InvalidRequest`, `BackendFailure`."""
        return self.prompt(request).tokens

    def prompt(self, request: GenerationRequest) -> Prompt:
        """As `render`, with the end of the text, which tells a parser how the answer begins."""
        chat, hidden = self._guard.hide(to_chat(request.messages, self._traits))
        text = self._template.render(chat, options=options_for(request.thinking))
        # Most templates write BOS themselves; two of them cost quality, so the tokenizer then adds none.
        writes_bos = bool(self._added_bos) and text.startswith(self._added_bos)
        tokens = self._guard.encode(text, hidden, self._tokenizer, adds_special=not writes_bos)
        return Prompt(tokens, text[-ENDING_CHARACTERS:])

    def continuation(self, text: str) -> list[int]:
        """Token ids of what the model already said, to go on from there."""
        return self._tokenizer.encode(text, adds_special=False) if text else []


def options_for(thinking: Thinking | None) -> TemplateOptions:
    """What to ask of a template: unasked-for thinking is off where it can be, `adaptive` leaves it to the template."""
    if thinking is None or thinking.mode == "disabled":
        return NO_THINKING
    if thinking.mode == "adaptive":
        return TemplateOptions()
    is_little = thinking.budget_tokens is not None and thinking.budget_tokens < LITTLE_THINKING_TOKENS
    return TemplateOptions(is_thinking=True, reasoning_effort="low" if is_little else None)


def _markers(template: ChatTemplate, tokenizer: Tokenizer) -> list[str]:
    """Special tokens, and others that the template writes; a vocabulary may hold HTML tags and runs of spaces too."""
    if not isinstance(tokenizer, KnowsMarkers):
        return []
    known = tokenizer.markers().items()
    return [text for text, is_special in known if text.strip() and (is_special or text in template.source)]
