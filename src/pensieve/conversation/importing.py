"""Files of conversations, of whichever of the forms we know, as values. Reads everything before it gives anything."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Final

import msgspec

from pensieve.conversation import chatgpt, claude, document
from pensieve.conversation.conversation import Conversation
from pensieve.errors import ImportFailed
from pensieve.messages import Json

MAX_BYTES: Final = 2 * 1024**3
"""Of a file, unpacked; larger ones do not fit into most memories several times over."""
_EXPORTED_NAME: Final = "conversations.json"


def read_conversations(data: bytes, name: str) -> tuple[Conversation, ...]:
    """The conversations in the file's bytes: our JSON, or ChatGPT's or Claude's export, as JSON or as the whole ZIP.

    Raises `ImportFailed`, with the file's `name` in it.
    """
    try:
        return _read(msgspec.json.decode(_unpacked(data)))
    except ImportFailed as error:
        raise _failed(name, str(error)) from error
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise _failed(name, f"it is not as it should be: {error}") from error
    except RecursionError as error:
        raise _failed(name, "it is nested deeper than any conversation") from error


def _read(found: Json) -> tuple[Conversation, ...]:
    items = found if isinstance(found, list) else [found]
    match found:
        case {"format": document.FORMAT}:
            return document.read(found)
        case [{"mapping": _}, *_] | {"mapping": _}:
            return chatgpt.read(items)
        case [{"chat_messages": _}, *_] | {"chat_messages": _}:
            return claude.read(items)
    raise ImportFailed("it is none of the forms that can be read: our own JSON, ChatGPT's export, Claude's export")


def _unpacked(data: bytes) -> bytes:
    if not data.startswith(b"PK\x03\x04"):
        return data
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = next((each for each in archive.infolist() if each.filename.endswith(_EXPORTED_NAME)), None)
            if found is None or found.file_size > MAX_BYTES:
                raise ImportFailed(f"the archive holds no {_EXPORTED_NAME} that can be read")
            return archive.read(found)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ImportFailed(f"the archive is damaged: {error}") from error


def _failed(name: str, problem: str) -> ImportFailed:
    words = " ".join(problem.split())
    return ImportFailed(f"{name} cannot be imported: {words}; nothing of it was taken")
