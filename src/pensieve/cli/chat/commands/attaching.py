"""Commands that put files into the next message: texts by name or pattern, PDFs, images."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pensieve.cli.chat.commands.table import Candidate, Command, Outcome
from pensieve.cli.chat.commands.words import count_of, files, needed, path_of
from pensieve.cli.chat.desk import Desk
from pensieve.cli.chat.screen import Table
from pensieve.cli.saving import is_there, read_plain
from pensieve.errors import UsageError
from pensieve.messages import DocumentPart, ImagePart, Message, Part
from pensieve.models.sizes import in_words

MAX_FILES = 200
MAX_FILE_BYTES = 8 * 2**20
"""A frame to the worker holds twice as much."""
LARGE_SHARE = 0.25
"""Of the context: what takes more is asked about first."""
PDF, TEXT = "application/pdf", "text/plain"
IMAGES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp")


class File(msgspec.Struct, frozen=True):
    """A file that can be attached."""

    path: Path
    part: DocumentPart
    num_bytes: int


def attach(desk: Desk, argument: str) -> Outcome:
    """Put text files or PDFs into the next message; `clear` takes all out again, nothing shows them."""
    if argument == "clear":
        desk.session.attachments = ()
        desk.say("nothing is attached any more")
        return None
    if not argument:
        desk.say(_attached(desk.session.attachments))
        return None
    found = [_read(path) for path in _matches(argument)]
    num_tokens = _count(desk, found)
    if len(found) > 1:
        desk.screen.show(Table(tuple((str(file.path), in_words(file.num_bytes)) for file in found)))
    too_large = _too_large(desk, found, num_tokens)
    if too_large and not desk.screen.confirm(f"{too_large}. Attach it?"):
        desk.say(f"nothing was attached: {too_large}")
        return None
    desk.session.attachments += tuple(file.part for file in found)
    size = in_words(sum(file.num_bytes for file in found))
    desk.say(f"attached {_named(found)}: {size}, {count_of(num_tokens, 'token')}; your next message takes it along")
    return None


def image(desk: Desk, argument: str) -> Outcome:
    """Put an image into the next message, where the model can see."""
    path = path_of(needed(argument, "/image FILE"))
    limits = desk.loop.run(desk.source.backend.limits())
    if not limits.is_planned and "images" not in limits.capabilities:
        raise UsageError(f"{limits.model} cannot see images: /models shows others, /attach takes texts and PDFs")
    content = _content(path)
    media_type = _image_type(content)
    if not media_type:
        raise UsageError(f"{path} is not an image that can be shown: PNG, JPEG, GIF or WebP")
    desk.session.attachments += (ImagePart(media_type, content),)
    desk.say(f"attached {path.name}: {in_words(len(content))}; your next message takes it along")
    return None


def _matches(argument: str) -> Sequence[Path]:
    path = path_of(argument)
    if not any(sign in argument for sign in "*?[") or (is_there(path) and path.is_file()):
        return (path,)
    found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 - may be absolute
    matches = [each for each in found if each.is_file()]
    if not matches:
        raise UsageError(f"no file is called like {argument}")
    if len(matches) > MAX_FILES:
        raise UsageError(f"{argument} means {len(matches):,} files, at most {MAX_FILES}: name fewer")
    return matches


def _read(path: Path) -> File:
    content = _content(path)
    if content.startswith(b"%PDF-"):
        return File(path, DocumentPart(PDF, content, title=path.name), len(content))
    if _image_type(content):
        raise UsageError(f"{path} is an image: /image {path} attaches it, where the model can see")
    if b"\0" in content:
        raise UsageError(f"{path} is not a text: only texts and PDFs can be attached")
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text in UTF-8: only such texts and PDFs can be attached") from error
    return File(path, DocumentPart(TEXT, content, title=path.name), len(content))


def _content(path: Path) -> bytes:
    if is_there(path) and path.is_dir():
        raise UsageError(f"{path} is a folder: {path}/* attaches the files in it")
    content = read_plain(path, MAX_FILE_BYTES, instead="attach a part of it")
    if not content:
        raise UsageError(f"{path} is empty")
    return content


def _image_type(content: bytes) -> str:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for magic, media_type in IMAGES.items() if content.startswith(magic)), "")


def _count(desk: Desk, found: Sequence[File]) -> int:
    message = Message("user", tuple(file.part for file in found))
    return desk.loop.run(desk.session.count_alone(message))


def _too_large(desk: Desk, found: Sequence[File], num_tokens: int) -> str:
    """Why somebody should be asked first; empty for files of a usual size."""
    limit = desk.loop.run(desk.source.backend.limits()).context_tokens
    if not limit or num_tokens <= limit * LARGE_SHARE:
        return ""
    verb = "takes" if len(found) == 1 else "take"
    return f"{_named(found)} {verb} {count_of(num_tokens, 'token')}, {num_tokens / limit:.0%} of the context"


def _named(found: Sequence[File]) -> str:
    return found[0].path.name if len(found) == 1 else count_of(len(found), "file")


def _attached(parts: Sequence[Part]) -> str:
    if not parts:
        return "nothing is attached: /attach FILE puts a text or a PDF into your next message"
    return f"attached: {names_of(parts)}; /attach clear takes it out again"


def names_of(parts: Sequence[Part]) -> str:
    """The files among the parts, in one line."""
    files = (part for part in parts if isinstance(part, DocumentPart | ImagePart))
    return ", ".join("an image" if isinstance(part, ImagePart) else part.title or "a document" for part in files)


def complete_files(desk: Desk, typed: str) -> list[Candidate]:
    """Files that begin as typed."""
    del desk
    return list(files(typed))


def complete_images(desk: Desk, typed: str) -> list[Candidate]:
    """Images that begin as typed."""
    del desk
    return list(files(typed, IMAGE_SUFFIXES))


COMMANDS = (
    Command[Desk](
        "attach",
        attach,
        "Put text files or PDFs into your next message.",
        "[FILE|PATTERN|clear]",
        (),
        complete_files,
        "Add",
    ),
    Command[Desk]("image", image, "Put an image into your next message.", "FILE", (), complete_images, "Add"),
)
