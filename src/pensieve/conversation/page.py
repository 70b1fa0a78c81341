"""A conversation as one page of HTML that needs nothing else and runs nothing: all that was said is escaped."""

from __future__ import annotations

import base64
import re
from html import escape
from typing import Final

import msgspec

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

_SHOWN_IMAGES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")
_FENCE = re.compile(r"^ {0,3}`{3,}[^`\n]*\n(.*?)(?:^ {0,3}`{3,}[ \t]*$\n?|\Z)", re.DOTALL | re.MULTILINE)
_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h2 { font-size: 1rem; margin: 2rem 0 0.25rem; opacity: 0.7; }
time { font-weight: normal; }
.said { white-space: pre-wrap; overflow-wrap: anywhere; }
pre { overflow-x: auto; padding: 0.75rem; border-radius: 6px; background: rgb(127 127 127 / 15%); }
details { opacity: 0.75; }
img { max-width: 100%; }
"""
_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{said}
</body>
</html>
"""


def html(conversation: Conversation) -> str:
    """The page of the path that is spoken now."""
    said = [_message(turn, message) for turn in conversation.path() for message in turn.messages]
    if conversation.system:
        said.insert(0, f"<section>\n<h2>System</h2>\n{_text(conversation.system)}\n</section>")
    return _PAGE.format(title=escape(title_line(conversation)), style=_STYLE, said="\n".join(said))


def _message(turn: Turn, message: Message) -> str:
    moment = turn.created.isoformat(timespec="seconds")
    heading = (
        f'<h2>{escape(label(turn, message))} <time datetime="{moment}">{moment[:16].replace("T", " ")}</time></h2>'
    )
    return "\n".join(("<section>", heading, *filter(None, map(_part, message.parts)), "</section>"))


def _part(part: Part) -> str:
    match part:
        case TextPart(text):
            return _text(text)
        case ThinkingPart(text):
            return f"<details><summary>Thinking</summary>\n{_text(text)}\n</details>" if text.strip() else ""
        case RedactedThinkingPart():
            return _note("Thinking that only its producer can read")
        case ImagePart(media_type, data) if data and media_type in _SHOWN_IMAGES:
            return f'<img alt="image" src="data:{media_type};base64,{base64.b64encode(data).decode()}">'
        case ImagePart() | DocumentPart():
            return _note(size_of(part))
        case ToolCallPart(_, name, arguments):
            told = msgspec.json.format(msgspec.json.encode(arguments), indent=2).decode()
            return _note(f"Calls {one_line(name)}") + _code(told)
        case ToolReferencePart(name):
            return _note(f"Tool {one_line(name)}")
        case ToolResultPart(_, parts):
            return "\n".join((_note("Result"), *map(_part, parts)))


def _text(text: str) -> str:
    """What was said as it was written; fenced code as code."""
    given: list[str] = []
    end, clean = 0, cleaned(text)
    for fence in _FENCE.finditer(clean):
        given += [_said(clean[end : fence.start()]), _code(fence.group(1))]
        end = fence.end()
    return "\n".join(filter(None, (*given, _said(clean[end:]))))


def _said(text: str) -> str:
    return f'<div class="said">{escape(text.strip(chr(10)))}</div>' if text.strip() else ""


def _code(text: str) -> str:
    return f"<pre><code>{escape(cleaned(text))}</code></pre>"


def _note(text: str) -> str:
    return f"<p><em>[{escape(text)}]</em></p>"
