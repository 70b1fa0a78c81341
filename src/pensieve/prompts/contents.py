"""What stands in messages, as text: words, images, documents, tool references; markers in all of it hidden.

Knows the parts, no roles and no template. One writer for one prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pensieve.errors import InvalidRequest
from pensieve.messages import (
    DocumentPart,
    ImagePart,
    Json,
    Message,
    Part,
    RedactedThinkingPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReferencePart,
    ToolResultPart,
)
from pensieve.prompts.documents import Documents
from pensieve.prompts.markers import Disguise
from pensieve.prompts.tools import referenced, unclosed

UNSEEN_IMAGE: Final = "[An image stood here. You cannot see images.]"
NO_OUTPUT: Final = "(no output)"
FAILED: Final = "The tool failed:"


class ContentWriter:
    """Writes parts as text; gathers the images on the way."""

    def __init__(
        self,
        disguise: Disguise,
        documents: Documents,
        *,
        entries: Mapping[str, Mapping[str, Any]],
        unseeing: str = "",
        newest: int = -1,
    ) -> None:
        """`entries`: the tools' by name, hidden already; `unseeing`: the name of a model that cannot see images.

        `newest` is the message in which such a model must not be shown one: it is asked about that.
        """
        self._disguise = disguise
        self._documents = documents
        self._entries = entries
        self._unseeing = unseeing
        self._newest = newest
        self.images: list[ImagePart] = []

    def words(self, parts: Sequence[Part], index: int) -> str:
        """The parts of message `index` that are said: all but thinking, calls and results; one below the other."""
        said = [
            self._write(part, f"messages.{index}.content.{place}", is_asked=index == self._newest)
            for place, part in enumerate(parts)
            if not isinstance(part, ThinkingPart | RedactedThinkingPart | ToolCallPart | ToolResultPart)
        ]
        return _joined(said)

    def own_words(self, message: Message) -> str:
        """What the model said, just as it said it."""
        return self._disguise.keep(message.text)

    def own(self, text: str) -> str:
        """What the model thought, just as it thought it."""
        return self._disguise.keep(text)

    def result(self, part: ToolResultPart, index: int, place: int) -> str:
        """What a tool gave back."""
        path = f"messages.{index}.content.{place}.content"
        inner = (self._write(inner, f"{path}.{at}", is_asked=False) for at, inner in enumerate(part.parts))
        text = _joined(list(inner)) or NO_OUTPUT
        return f"{FAILED}\n{text}" if part.is_error else text

    def name(self, name: str) -> str:
        """The name of a tool that was called."""
        return self._disguise.hide(name)

    def arguments(self, arguments: Mapping[str, Json]) -> dict[str, Json]:
        """Arguments of a call that the model made; nothing in them is markup."""
        return {self._disguise.hide(key): self._disguise.hide_json(value) for key, value in arguments.items()}

    def _write(self, part: Part, path: str, *, is_asked: bool) -> str:
        match part:
            case TextPart(text):
                return self._disguise.hide(text)
            case ImagePart():
                return self._image(part, path, is_asked=is_asked)
            case DocumentPart():
                return self._document(part, path, is_asked=is_asked)
            case ToolReferencePart(name):
                found = self._entries.get(name)
                return referenced(found) if found else f"The tool {self._disguise.hide(name)} is not available."
        kind = type(part).__name__.removesuffix("Part")
        raise InvalidRequest(f"{kind} blocks cannot stand here", path)

    def _image(self, part: ImagePart, path: str, *, is_asked: bool) -> str:
        if self._unseeing and is_asked:
            raise InvalidRequest(
                f"the model {self._unseeing} cannot see images: leave the image out, or take a model that can", path
            )
        if self._unseeing:
            return UNSEEN_IMAGE
        if not part.data:
            raise InvalidRequest("this image holds no data: send its bytes, not an address", path)
        self.images.append(part)
        return self._disguise.image()

    def _document(self, part: DocumentPart, path: str, *, is_asked: bool) -> str:
        """A refusal is for whoever sends it; in the history, or in what a tool found, it would end the session."""
        hide = self._disguise.hide
        try:
            text = self._documents.text(part, path)
        except InvalidRequest as refused:
            if is_asked:
                raise
            return f"[A document stood here. You cannot read it: {hide(refused.problem)}]"
        title = f' title="{hide(part.title)}"' if part.title else ""
        context = f"{hide(part.context)}\n\n" if part.context else ""
        inner = unclosed(f"{context}{hide(text)}", "document")
        return f"<document{title}>\n{inner}\n</document>"


def _joined(texts: Sequence[str]) -> str:
    """One below the other: blocks are paragraphs, however they were cut."""
    written = ""
    for text in filter(None, texts):
        written += text if not written or written.endswith("\n") else f"\n{text}"
    return written
