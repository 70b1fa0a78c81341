"""Conversations for tests, and files of other programs in their shape with words of our own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pensieve.conversation.choices import Choices
from pensieve.conversation.conversation import Conversation, Turn
from pensieve.generation import Thinking, Timings, Usage
from pensieve.messages import (
    DocumentPart,
    ImagePart,
    Message,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
    say,
)
from pensieve.sampling.params import SamplingParams

BEGIN = datetime(2031, 5, 4, 12, 0, tzinfo=UTC)
CHOICES = Choices(
    preset="coder",
    sampling=SamplingParams(temperature=0.2, seed=3),
    max_tokens=50,
    thinking=Thinking("enabled", 500),
    none=("top_p",),
)
"""One of everything that can be chosen."""
ESCAPES = "\x1b[31mred\x07 \u202eback"
SCRIPT = "<script>alert(1)</script>"


def turn(number: int, parent: int | None, *messages: Message, **more: Any) -> Turn:
    """A turn, a minute after the one before."""
    return Turn(id=number, parent=parent, messages=messages, created=BEGIN + timedelta(minutes=number), **more)


def talk(*turns: Turn, **more: Any) -> Conversation:
    """A conversation whose head is its last turn."""
    defaults: dict[str, Any] = {"title": "A walk", "uid": "walk", "head": turns[-1].id if turns else None}
    return Conversation(id=0, created=BEGIN, updated=BEGIN, turns=turns, **defaults | more)


def rich_talk() -> Conversation:
    """One of everything, with hostile words in each place, and a branch that is not spoken."""
    called = ToolCallPart("c1", f"look{SCRIPT}", {"where": SCRIPT})
    looked = ToolResultPart("c1", (TextPart(f"Fog. {SCRIPT}"), ImagePart("image/png", b"\x89PNG")))
    image = ImagePart("image/png", b"\x89PNG\r\n")
    paper = DocumentPart("text/plain", b"words", title=f"map{SCRIPT}.txt")
    first = Message("user", (image, paper, TextPart(f"Where to? {SCRIPT} {ESCAPES}")))
    thought = Message("assistant", (ThinkingPart(f"Hm {SCRIPT}"), TextPart("I look."), called))
    answer = say("assistant", f"North:\n\n```python\nif a <b: go({SCRIPT!r})\n```\n\nand `x <y`. {SCRIPT}")
    usage, timings = Usage(20, 10, 5), Timings(decode_seconds=0.25)
    return talk(
        turn(1, None, first, thought, Message("user", (looked,)), answer, model=f"tiny{SCRIPT}", usage=usage),
        turn(2, 1, say("user", "And back?"), say("assistant", "By boat."), timings=timings, reason="stop"),
        turn(3, 1, say("user", "And then?"), say("assistant", "Home"), is_interrupted=True),
        title=f"A walk {SCRIPT} {ESCAPES}",
        system=f"Be kind. {SCRIPT}",
    )


def chatgpt_message(role: str, *parts: Any, seconds: float = 0, **content: Any) -> dict[str, Any]:
    """A message in the mapping of ChatGPT's export."""
    said = {"content_type": "text", "parts": list(parts)} | content
    metadata = {"model_slug": "cloud-1"} if role == "assistant" else {}
    author: dict[str, Any] = {"role": role, "name": "browser" if role == "tool" else None, "metadata": {}}
    return {"author": author, "content": said, "create_time": 1.7e9 + seconds, "metadata": metadata}


def chatgpt_export() -> list[dict[str, Any]]:
    """A conversation with an answer that was given anew, a picture, thoughts, code and a tool."""
    say_ = chatgpt_message
    picture = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://abc", "width": 3}
    messages: dict[str, tuple[str | None, dict[str, Any] | None]] = {
        "root": (None, None),
        "sys": ("root", say_("system", "")),
        "me": ("sys", say_("user", content_type="user_editable_context", user_instructions="Answer in rhymes.")),
        "q1": ("me", say_("user", picture, "What is this?", seconds=1, content_type="multimodal_text")),
        "a1": ("q1", say_("assistant", "A cat.", seconds=2)),
        "t1": ("q1", say_("assistant", content_type="thoughts", thoughts=[{"content": "Look."}], seconds=3)),
        "a2": ("t1", say_("assistant", "A kitten.", seconds=4)),
        "q2": ("a2", say_("user", "Count to two.", seconds=5)),
        "c2": ("q2", say_("assistant", content_type="code", text="print(1, 2)", seconds=6)),
        "o2": ("c2", say_("tool", content_type="execution_output", text="1 2", seconds=7)),
        "a3": ("o2", say_("assistant", "Done.", seconds=8)),
    }
    mapping: dict[str, dict[str, Any]] = {
        node: {"id": node, "message": message, "parent": parent, "children": []}
        for node, (parent, message) in messages.items()
    }
    first = {"title": "Cats", "create_time": 1.7e9, "update_time": 1.7e9 + 9, "mapping": mapping}
    return [first | {"current_node": "a3", "conversation_id": "conv-1"}]


def claude_export() -> list[dict[str, Any]]:
    """A conversation with an attachment, a file that is not there, thinking, a tool, and an edited question."""

    def said(uuid: str, parent: str, sender: str, minute: int, *content: dict[str, Any], **more: Any) -> dict[str, Any]:
        moment = f"2031-05-04T12:{minute:02}:00.123456Z"
        base = {"uuid": uuid, "sender": sender, "created_at": moment, "parent_message_uuid": parent}
        return base | {"text": "", "content": list(content), "attachments": [], "files": []} | more

    def text(words: str) -> dict[str, Any]:
        return {"type": "text", "text": words, "citations": []}

    notes = {"file_name": "notes.txt", "file_size": 5, "file_type": "txt", "extracted_content": "hello"}
    lookup = {"type": "tool_use", "name": "search", "input": {"query": "tides"}}
    found = {"type": "tool_result", "name": "search", "content": [{"type": "text", "text": "High at six."}]}
    thought = {"type": "thinking", "thinking": "The sea."}
    messages = [
        said("m1", "00000000-0000-4000-8000-000000000000", "human", 1, text("When?"), attachments=[notes]),
        said("m2", "m1", "assistant", 2, thought, lookup, found, text("At six.")),
        said("m3", "m2", "human", 3, text("And tomorrow?"), files=[{"file_name": "tide.png"}]),
        said("m4", "m3", "assistant", 4, text("At seven.")),
        said("m5", "m2", "human", 5, text("And today?")),
        said("m6", "m5", "assistant", 6, text="Now.", content=None),
    ]
    moment = "2031-05-04T12:00:00Z"
    known = {"uuid": "talk-1", "name": "Tides", "created_at": moment, "updated_at": moment, "account": {"uuid": "x"}}
    return [known | {"chat_messages": messages}]
