"""How one item of an answer is told: the events that open it, its pieces, and the events that close it.

One class for each kind of item. Knows no other item, no number and no frame: `encoder` adds those.
"""

from __future__ import annotations

from typing import NamedTuple

from pensieve.messages import Json
from pensieve.wire.anthropic.signature import sealed
from pensieve.wire.openai.responses.names import text_input

Fields = dict[str, Json]


class Event(NamedTuple):
    """One event of a stream, but for its number and the item's place."""

    type: str
    fields: Fields


class Told:
    """What every item is: the pieces that came, and what is told around them."""

    def __init__(self, delta_type: str = "", **place: int) -> None:
        """`delta_type`: the event that brings a piece; "": pieces are held back until the end."""
        self.delta_type = delta_type
        self.place: Fields = dict(place)
        """Where in the item the pieces go."""
        self.pieces: list[str] = []

    @property
    def text(self) -> str:
        """All pieces so far."""
        return "".join(self.pieces)

    def opening(self) -> list[Event]:
        """The events after the one that adds the item."""
        return []

    def closing(self) -> list[Event]:
        """The events before the one that ends the item."""
        return []

    def item(self, status: str) -> Fields:
        """The item as it stands now; with status `in_progress` it is still empty."""
        raise NotImplementedError


class Words(Told):
    """A message of one text."""

    def __init__(self, item_id: str) -> None:
        super().__init__("response.output_text.delta", content_index=0)
        self._item_id = item_id
        self.logprobs: list[Json] = []

    def opening(self) -> list[Event]:
        """See `Told`."""
        return [Event("response.content_part.added", self.place | {"part": self._part("", [])})]

    def closing(self) -> list[Event]:
        """See `Told`."""
        done = self.place | {"text": self.text, "logprobs": self.logprobs}
        part = self.place | {"part": self._part(self.text, self.logprobs)}
        return [Event("response.output_text.done", done), Event("response.content_part.done", part)]

    def item(self, status: str) -> Fields:
        """See `Told`."""
        content = [] if status == "in_progress" else [self._part(self.text, self.logprobs)]
        return {
            "id": self._item_id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }

    @staticmethod
    def _part(text: str, logprobs: list[Json]) -> Fields:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


class Thoughts(Told):
    """Thinking: in the place of its summary, or as it is; sealed once more where the client asked."""

    def __init__(self, item_id: str, *, is_summary: bool, is_sealed: bool) -> None:
        self._text_name = "reasoning_summary_text" if is_summary else "reasoning_text"
        self._part_name = "reasoning_summary_part" if is_summary else "content_part"
        super().__init__(f"response.{self._text_name}.delta", **{"summary_index" if is_summary else "content_index": 0})
        self._item_id = item_id
        self._is_summary = is_summary
        self._is_sealed = is_sealed
        self.signature = ""

    def opening(self) -> list[Event]:
        """See `Told`."""
        return [Event(f"response.{self._part_name}.added", self.place | {"part": self._part("")})]

    def closing(self) -> list[Event]:
        """See `Told`."""
        return [
            Event(f"response.{self._text_name}.done", self.place | {"text": self.text}),
            Event(f"response.{self._part_name}.done", self.place | {"part": self._part(self.text)}),
        ]

    def item(self, status: str) -> Fields:
        """See `Told`."""
        is_empty = status == "in_progress"
        shown = [] if is_empty else [self._part(self.text)]
        seal = (self.signature or sealed(self.text)) if self._is_sealed and not is_empty else None
        return {
            "id": self._item_id,
            "type": "reasoning",
            "status": status,
            "summary": shown if self._is_summary else [],
            "content": None if self._is_summary else shown,
            "encrypted_content": seal,
        }

    def _part(self, text: str) -> Fields:
        return {"type": "summary_text" if self._is_summary else "reasoning_text", "text": text}


class Call(Told):
    """A call of a function."""

    def __init__(self, item_id: str, call_id: str, name: Fields) -> None:
        super().__init__("response.function_call_arguments.delta")
        self._fixed = {"id": item_id, "type": "function_call", "call_id": call_id} | name

    def closing(self) -> list[Event]:
        """See `Told`."""
        return [Event("response.function_call_arguments.done", {"arguments": self.text, "name": self._fixed["name"]})]

    def item(self, status: str) -> Fields:
        """See `Told`."""
        return self._fixed | {"status": status, "arguments": "" if status == "in_progress" else self.text}


class TextCall(Told):
    """A call of a tool that takes text: the model writes an object, and its one text is told once it is whole."""

    def __init__(self, item_id: str, call_id: str, name: Fields) -> None:
        super().__init__()
        self._fixed = {"id": item_id, "type": "custom_tool_call", "call_id": call_id} | name

    def closing(self) -> list[Event]:
        """See `Told`."""
        given = text_input(self.text)
        return [
            Event("response.custom_tool_call_input.delta", {"delta": given}),
            Event("response.custom_tool_call_input.done", {"input": given}),
        ]

    def item(self, status: str) -> Fields:
        """See `Told`."""
        return self._fixed | {"status": status, "input": "" if status == "in_progress" else text_input(self.text)}
