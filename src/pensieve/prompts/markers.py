"""Markers that people and tools write, as `<|im_end|>`, kept apart from those that the template writes: only text.

Each kind of marker is rendered as one private character and encoded by itself afterwards, in pieces that are no
markers. Text without markers is encoded just as it was. Knows no template and no vocabulary.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence
from typing import Final

from pensieve.errors import InvalidRequest
from pensieve.messages import Json
from pensieve.prompts.tokenizer import Tokenizer

_PRIVATE_RANGES: Final = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE))
MAX_PIECES: Final = 2_000
"""A tokenizer may be a process away: what stands behind so many pieces is encoded at once, its markers broken up."""
_Tree = dict[str, "_Tree"]
_PRIVATE: Final = "[" + "".join(f"{chr(codes[0])}-{chr(codes[-1])}" for codes in _PRIVATE_RANGES) + "]"


class MarkerGuard:
    """The markers of one model."""

    def __init__(self, markers: Collection[str], *, control: Collection[str] = ()) -> None:
        """`control`: those that begin and end turns, as `<|im_end|>`, unlike `</think>`."""
        self._pattern = pattern_of({marker for marker in markers if len(marker) > 1})
        self._control = pattern_of({marker for marker in control if len(marker) > 1})

    def begin(self) -> Disguise:
        """What one prompt's texts are written with."""
        return Disguise(self._pattern, self._control, self)

    def harmless(self, marker: str) -> Sequence[str]:
        """The marker in pieces that hold no marker."""
        halves = (marker[:1], marker[1:])
        return tuple(marker) if self._pattern.search(halves[1]) else halves


class Disguise:
    """The private characters of one prompt and what they stand for.

    A private character that somebody wrote gets another one too: so what is found in the rendered text is ours.
    """

    def __init__(self, pattern: re.Pattern[str], control: re.Pattern[str], guard: MarkerGuard) -> None:
        self._pattern = pattern
        self._control = control
        self._own = re.compile(_PRIVATE)
        self._guard = guard
        self._free = itertools.chain(*_PRIVATE_RANGES)
        self._characters: dict[str, str] = {}
        self._markers: dict[str, str] = {}
        """Private character -> the marker it stands for."""
        self._literals: dict[int, str] = {}
        """Code of a private character -> the private character that was written."""
        self._images: dict[str, int] = {}

    def hide(self, text: str) -> str:
        """What a person or a tool wrote, with private characters for markers. Raises `InvalidRequest`."""
        return self._replaced(self._pattern, text)

    def keep(self, text: str) -> str:
        """What the model said itself: it may hold markers, and templates look for them there.

        Not those of control: it may have repeated a file's, and they would end its turn and begin another's.
        """
        return self._replaced(self._control, text)

    def hide_json(self, value: Json) -> Json:
        """The value with every string in it hidden, keys too; the order stays."""
        match value:
            case str():
                return self.hide(value)
            case dict():
                return {self.hide(key): self.hide_json(inner) for key, inner in value.items()}
            case list() | tuple():
                return [self.hide_json(inner) for inner in value]
        return value

    def image(self) -> str:
        """The character that stands for the next image."""
        character = self._next()
        self._images[character] = len(self._images)
        return character

    def encode(self, text: str, tokenizer: Tokenizer, *, adds_special: bool) -> list[int]:
        """Token ids of the rendered text; what was hidden is encoded as the text it is, and images are left out."""
        plain: dict[int, str] = self._literals | {ord(character): "" for character in self._images}
        pieces = self._split(text, self._markers)
        tokens = tokenizer.encode(pieces[0].translate(plain), adds_special=adds_special)
        known: dict[str, list[int]] = {"": []}
        rest = "".join(map(self._broken, pieces[MAX_PIECES:]))
        for piece in (*pieces[1:MAX_PIECES], rest):
            for harmless in self._guard.harmless(self._markers[piece]) if piece in self._markers else (piece,):
                written = harmless.translate(plain)
                if written not in known:
                    known[written] = tokenizer.encode(written, adds_special=False)
                tokens += known[written]
        return tokens

    def spell(self, text: str, image_mark: str) -> tuple[str, tuple[int, ...]]:
        """The rendered text as one string, and the numbers of the images whose marks stand in it, in that order.

        Markers that were hidden, and image marks that were written by hand, are broken up by spaces.
        """
        pieces: list[str] = []
        images: list[int] = []
        for piece in self._split(text, (*self._markers, *self._images)):
            if piece in self._images:
                pieces.append(image_mark)
                images.append(self._images[piece])
            elif piece in self._markers:
                pieces.append(self._broken(piece))
            else:
                pieces.append(piece.replace(image_mark, " ".join((image_mark[:1], image_mark[1:]))))
        return "".join(pieces).translate(self._literals), tuple(images)

    def reveal(self, text: str) -> str:
        """The rendered text as it reads."""
        shown = {ord(character): marker for character, marker in self._markers.items()}
        return text.translate(shown | self._literals)

    def _broken(self, piece: str) -> str:
        """The piece, or the marker that it stands for, broken up by spaces."""
        return " ".join(self._guard.harmless(self._markers[piece])) if piece in self._markers else piece

    def _replaced(self, pattern: re.Pattern[str], text: str) -> str:
        ours = self._own.sub(lambda found: self._character(found[0]), text)
        return pattern.sub(lambda found: self._character(found[0]), ours)

    def _split(self, text: str, characters: Collection[str]) -> list[str]:
        return re.split(f"([{''.join(characters)}])", text) if characters else [text]

    def _character(self, written: str) -> str:
        character = self._characters.get(written)
        if character is None:
            character = self._characters[written] = self._next()
            if self._own.fullmatch(written):
                self._literals[ord(character)] = written
            else:
                self._markers[character] = written
        return character

    def _next(self) -> str:
        code = next(self._free, None)
        if code is None:
            raise InvalidRequest("the messages use up Unicode's private characters", "messages")
        return chr(code)


def pattern_of(markers: Collection[str]) -> re.Pattern[str]:
    """A pattern that finds the longest of the markers at each place.

    A vocabulary may hold thousands that begin alike: what they share is looked at once, as in a tree.
    """
    tree: _Tree = {}
    for marker in sorted(markers):
        node = tree
        for character in marker:
            node = node.setdefault(character, {})
        node[""] = {}
    try:
        return re.compile(_branches(tree) if tree else r"(?!)")
    except RecursionError:  # each a beginning of the next, hundreds of times: no vocabulary of ours
        return re.compile("|".join(map(re.escape, sorted(markers, key=len, reverse=True))))


def _branches(node: _Tree) -> str:
    shared = ""
    while len(node) == 1 and "" not in node:
        ((character, node),) = node.items()
        shared += re.escape(character)
    ends = "" in node
    options = [re.escape(character) + _branches(inner) for character, inner in node.items() if character]
    if not options:
        return shared
    return f"{shared}(?:{'|'.join(options)}){'?' if ends else ''}"
