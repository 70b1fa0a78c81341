"""A request to the prompt that the engine reads, with its images. Blocks; give it one thread."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

from pensieve.errors import InvalidRequest
from pensieve.generation import GenerationRequest
from pensieve.inference.llamacpp.engine import Engine
from pensieve.inference.llamacpp.images import to_png
from pensieve.inference.llamacpp.sequence import EnginePrompt
from pensieve.inference.llamacpp.tokenizer import EngineTokenizer
from pensieve.messages import ImagePart
from pensieve.prompts.prompt import Prompt, PromptRenderer

MAX_IMAGES: Final = 100
KEPT_BYTES: Final = 64 * 2**20
"""Images of a conversation come again with every turn: so much of them stays ready."""


class EngineRenderer:
    """One model's renderer, and what the engine makes of images."""

    def __init__(self, renderer: PromptRenderer, tokenizer: EngineTokenizer, engine: Engine, image_mark: str) -> None:
        """`image_mark`: as the engine told it; empty for a model that does not see."""
        self._renderer, self._tokenizer, self._engine = renderer, tokenizer, engine
        self._image_mark = image_mark
        self._known: OrderedDict[bytes, tuple[bytes, int]] = OrderedDict()

    @property
    def turn_stop(self) -> tuple[str, ...]:
        """See `PromptRenderer.stop`."""
        return self._renderer.stop

    def render(self, request: GenerationRequest) -> tuple[EnginePrompt, str]:
        """The prompt, and the end of its text. Raises `InvalidRequest`, `BackendFailure`."""
        prompt = self._renderer.prompt(request)
        if not prompt.images:
            return EnginePrompt(prompt.tokens), prompt.ending
        if len(prompt.images) > MAX_IMAGES:
            raise InvalidRequest(
                f"a request may hold {MAX_IMAGES} images, this one has {len(prompt.images)}", "messages"
            )
        return self._with_images(prompt), prompt.ending

    def encode(self, text: str) -> list[int]:
        """Token ids of text in the middle of an answer."""
        return self._tokenizer.encode(text, adds_special=False) if text else []

    def _with_images(self, prompt: Prompt) -> EnginePrompt:
        # llama.cpp gives up the whole process when nothing follows the last image.
        text = f"{prompt.text}\n" if prompt.text.endswith(self._image_mark) else prompt.text
        pieces = text.split(self._image_mark)
        tokens = self._tokenizer.encode(pieces[0])
        images: list[bytes] = []
        for part, piece in zip(prompt.images, pieces[1:], strict=True):
            image, num_tokens = self._seen(part)
            images.append(image)
            tokens += [-1 - int.from_bytes(hashlib.blake2b(image, digest_size=7).digest())] * num_tokens
            tokens += self.encode(piece)
        return EnginePrompt(tokens, text, tuple(images))

    def _seen(self, part: ImagePart) -> tuple[bytes, int]:
        """The image as the engine takes it, and how many tokens that are."""
        digest = hashlib.blake2b(part.data).digest()
        known = self._known.pop(digest, None)
        if known is None:
            image = to_png(part)
            known = image, self._engine.image_tokens(image)
        self._known[digest] = known
        while len(self._known) > 1 and sum(len(image) for image, _ in self._known.values()) > KEPT_BYTES:
            self._known.popitem(last=False)
        return known
