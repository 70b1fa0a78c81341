"""Messages to prompt tokens, through one path for generating and for counting. Blocks; give it one thread."""

from __future__ import annotations

from collections.abc import Sequence

from pensieve.messages import Message
from pensieve.prompts.normalize import probe, to_chat
from pensieve.prompts.template import ChatTemplate
from pensieve.prompts.tokenizer import Tokenizer


class PromptRenderer:
    """One model's template and tokenizer, put together."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer, *, added_bos: str) -> None:
        """`added_bos`: the text of the BOS token where the tokenizer adds it by itself, else empty."""
        self._template = template
        self._tokenizer = tokenizer
        self._added_bos = added_bos
        self._traits = probe(template)

    @property
    def stop(self) -> tuple[str, ...]:
        """Stop strings the prompt format needs: without a template nothing but text ends the model's turn."""
        return ("\nUser:", "\nSystem:") if self._template.is_plain else ()

    def render(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the whole prompt. Raises `InvalidRequest`, `BackendFailure`."""
        text = self._template.render(to_chat(messages, self._traits))
        # Most templates write BOS themselves; two of them cost quality, so the tokenizer then adds none.
        writes_bos = bool(self._added_bos) and text.startswith(self._added_bos)
        return self._tokenizer.encode(text, adds_special=not writes_bos)

    def continuation(self, text: str) -> list[int]:
        """Token ids of what the model already said, to go on from there."""
        return self._tokenizer.encode(text, adds_special=False) if text else []
