"""A conversation as a file for people: Markdown, HTML or plain text of the path that is spoken now; or our JSON.

What was said may be hostile to whoever shows it: control characters are gone, HTML is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from pensieve.conversation import document, page
from pensieve.conversation.conversation import Conversation, Turn
from pensieve.conversation.wording import cleaned, label, one_line, size_of, title_line
from pensieve.messages import (
    DocumentPart,
    ImagePart,
    Message,
    Part,
    RedactedThinkingPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReferencePart,
    ToolResultPart,
)

Form = Literal["md", "json", "html", "txt"]
FORMS: Final[tuple[Form, ...]] = ("md", "json", "html", "txt")

_FENCE = re.compile(r"^(`{3,})[^`\n]*\n.*?(?:^ {0,3}\1`*[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_UNCLEAR_FENCE = re.compile(r"^(?!`{3,}[^`\n]*$).*(?:```|~~~)", re.MULTILINE)
"""In lists and quotations, or of other characters: readers of Markdown differ on where such code ends."""
_SPAN = re.compile(r"`[^`\n]+`")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")


def export(conversation: Conversation, form: Form) -> bytes:
    """The conversation in that form."""
    match form:
        case "json":
            return document.write([conversation])
        case "html":
            text = page.html(conversation)
        case "md":
            text = markdown(conversation)
        case "txt":
            text = plain_text(conversation)
    return text.encode(errors="replace")


def markdown(conversation: Conversation) -> str:
    """The path as Markdown; outside of code nothing in it is a tag of HTML."""
    head = [f"# {_untagged(title_line(conversation))}"]
    if conversation.system:
        head.append(_quoted(f"System: {_escaped(conversation.system)}"))
    turns = [_markdown_turn(turn, message) for turn in conversation.path() for message in turn.messages]
    return "\n\n".join((*head, *turns)) + "\n"


def plain_text(conversation: Conversation) -> str:
    """The path as plain text."""
    head = [title_line(conversation)]
    if conversation.system:
        head.append(f"System: {cleaned(conversation.system)}")
    said = [
        f"{label(turn, message)}:\n" + "\n\n".join(filter(None, map(_plain_part, message.parts)))
        for turn in conversation.path()
        for message in turn.messages
    ]
    return "\n\n".join((*head, *said)) + "\n"


def _markdown_turn(turn: Turn, message: Message) -> str:
    parts = filter(None, map(_markdown_part, message.parts))
    return "\n\n".join((f"## {_untagged(label(turn, message))}", *parts))


def _markdown_part(part: Part) -> str:
    match part:
        case TextPart(text):
            return _escaped(text).strip("\n")
        case ThinkingPart(text):
            return _quoted(_escaped(text)) if text.strip() else ""
        case ToolCallPart(_, name, arguments):
            told = msgspec.json.format(msgspec.json.encode(arguments), indent=2).decode()
            return f"Calls `{one_line(name).replace('`', '')}`:\n\n{_fenced(told, 'json')}"
        case ToolResultPart():
            return f"Result:\n\n{_fenced(_result_text(part))}"
    return _untagged(_plain_part(part))


def _plain_part(part: Part) -> str:
    match part:
        case TextPart(text):
            return cleaned(text).strip("\n")
        case ThinkingPart(text):
            return f"(Thinking: {cleaned(text).strip()})" if text.strip() else ""
        case RedactedThinkingPart():
            return "(Thinking that only its producer can read)"
        case ImagePart() | DocumentPart():
            return f"[{size_of(part)}]"
        case ToolCallPart(_, name, arguments):
            return f"[calls {one_line(name)} {cleaned(msgspec.json.encode(arguments).decode())}]"
        case ToolReferencePart(name):
            return f"[tool {one_line(name)}]"
        case ToolResultPart():
            return f"[result: {_result_text(part)}]"


def _result_text(part: ToolResultPart) -> str:
    return "\n\n".join(map(_plain_part, part.parts))


def _escaped(text: str) -> str:
    """Markdown as it was written, except that tags outside of code are shown instead of obeyed.

    Where it is not certain what is code, nothing is taken for code.
    """
    clean = cleaned(text)
    if _UNCLEAR_FENCE.search(clean):
        return _untagged(clean)
    return _between(_FENCE, clean, _escaped_lines)


def _escaped_lines(text: str) -> str:
    is_clear = "``" not in text and "\\" not in text and not any(line.count("`") % 2 for line in text.splitlines())
    return _between(_SPAN, text, _untagged) if is_clear else _untagged(text)


def _between(code: re.Pattern[str], text: str, change: Callable[[str], str]) -> str:
    """The text, changed except where it is code."""
    given, end = [], 0
    for found in code.finditer(text):
        given += [change(text[end : found.start()]), found.group()]
        end = found.end()
    return "".join((*given, change(text[end:])))


def _untagged(text: str) -> str:
    return _TAG.sub("&lt;", text)


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.strip().splitlines())


def _fenced(text: str, language: str = "") -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{cleaned(text)}\n{fence}"
