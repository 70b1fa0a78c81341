"""Messages to prompt tokens, through one path for generating and for counting. Blocks; give it one thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from pensieve.errors import InvalidRequest
from pensieve.generation import GenerationRequest, Thinking
from pensieve.messages import ImagePart, Message, ToolCallPart
from pensieve.prompts import tools
from pensieve.prompts.contents import ContentWriter
from pensieve.prompts.documents import Documents
from pensieve.prompts.markers import MarkerGuard
from pensieve.prompts.normalize import to_chat
from pensieve.prompts.probing import probe
from pensieve.prompts.template import NO_THINKING, ChatTemplate, TemplateOptions, ToolEntry
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
        """`added_bos`: the text of the BOS token where the tokenizer adds it by itself, else empty.

        `has_native_tools` is the `Dialect`'s: what the template can express is only used where the answer's markup is
        known too.
        """
        self._template = template
        self._tokenizer = tokenizer
        self._added_bos = added_bos
        self._unseeing = "" if sees_images else model_name or "this one"
        self._image_mark = image_mark
        traits = probe(template)
        self._traits = traits if has_native_tools else msgspec.structs.replace(traits, tools=None)
        self._guard = _guard(template, tokenizer)
        self._documents = Documents()

    @property
    def stop(self) -> tuple[str, ...]:
        """Stop strings the prompt format needs: without a template nothing but text ends the model's turn."""
        return ("\nUser:", "\nSystem:") if self._template.is_plain else ()

    def render(self, request: GenerationRequest) -> list[int]:
        """Token ids of the whole prompt. Raises `InvalidRequest`, `BackendFailure`."""
        return self.prompt(request).tokens

    def prompt(self, request: GenerationRequest) -> Prompt:
        """As `render`, with the end of the text, which tells a parser how the answer begins; and with the images."""
        if request.text:
            return self._plain(request.text)
        try:
            return self._prompt(request)
        except RecursionError as error:
            raise InvalidRequest("a schema or an argument is nested too deeply", "tools") from error

    def _plain(self, text: str) -> Prompt:
        """Text as it stands: who sends it writes the template's markers too."""
        writes_bos = bool(self._added_bos) and text.startswith(self._added_bos)
        return Prompt(self._tokenizer.encode(text, adds_special=not writes_bos), text[-ENDING_CHARACTERS:])

    def _prompt(self, request: GenerationRequest) -> Prompt:
        disguise = self._guard.begin()
        entries = {tool.name: disguise.hide_json(tools.entry(tool)) for tool in request.tools}
        writer = ContentWriter(
            disguise, self._documents, entries=entries, unseeing=self._unseeing, newest=_newest(request.messages)
        )
        text = self._write(request, [entries[tool.name] for tool in tools.told(request.tools)], writer)
        # Most templates write BOS themselves; two of them cost quality, so the tokenizer then adds none.
        writes_bos = bool(self._added_bos) and text.startswith(self._added_bos)
        tokens = disguise.encode(text, self._tokenizer, adds_special=not writes_bos)
        ending = disguise.reveal(text[-ENDING_CHARACTERS:])
        if not writer.images:
            return Prompt(tokens, ending)
        spelled, numbers = disguise.spell(text, self._image_mark)
        return Prompt(tokens, ending, spelled, tuple(writer.images[number] for number in numbers))

    def _write(self, request: GenerationRequest, entries: Sequence[ToolEntry], writer: ContentWriter) -> str:
        is_native = self._traits.tools is not None
        introduction = tools.introduction(entries) if request.tools and not is_native else ""
        chat = to_chat(request.messages, self._traits, writer, introduction=introduction)
        native, options = entries if is_native else (), options_for(request.thinking)
        begun = _begun(request.messages, writer)
        if begun:
            text = self._template.render(chat, tools=native, options=options, adds_generation_prompt=False)
            before, found, _ = text.rpartition(begun)
            if found:
                return before + found
        return self._template.render(chat, tools=native, options=options)


def _newest(messages: Sequence[Message]) -> int:
    """The index of the user message that is to be answered; -1: there is none."""
    last = next((index for index in reversed(range(len(messages))) if messages[index].role != "system"), -1)
    return last if last >= 0 and messages[last].role == "user" else -1


def _begun(messages: Sequence[Message], writer: ContentWriter) -> str:
    """The beginning of the answer, where the request ends with one: it goes on from there."""
    last = messages[-1] if messages else None
    if last is None or last.role != "assistant" or any(isinstance(part, ToolCallPart) for part in last.parts):
        return ""
    return writer.own_words(last).strip()


def options_for(thinking: Thinking | None) -> TemplateOptions:
    """What to ask of a template: unasked-for thinking is off where it can be, `adaptive` leaves it to the template."""
    if thinking is None or thinking.mode == "disabled":
        return NO_THINKING
    if thinking.mode == "adaptive":
        return TemplateOptions()
    is_little = thinking.budget_tokens is not None and thinking.budget_tokens < LITTLE_THINKING_TOKENS
    return TemplateOptions(is_thinking=True, reasoning_effort="low" if is_little else None)


def _guard(template: ChatTemplate, tokenizer: Tokenizer) -> MarkerGuard:
    """Of special tokens, and others that the template writes; a vocabulary may hold HTML tags and spaces too."""
    if not isinstance(tokenizer, KnowsMarkers):
        return MarkerGuard(())
    known = [(text, is_special) for text, is_special in tokenizer.markers().items() if text.strip()]
    control = [text for text, is_special in known if is_special]
    return MarkerGuard([*control, *(text for text, _ in known if text in template.source)], control=control)
