"""A model's tokenizer.json: text to token ids, and streams back to text. Runs no code of the model's folder.

`encode` asks the `tokenizers` library, one text at a time and on one thread at a time: batches would start threads
that warn when a process forks. Streams are plain Python and go anywhere.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec
from tokenizers import Tokenizer

from pensieve.errors import InvalidRequest, LoadFailed
from pensieve.inference.mlx.text_stream import Spelling, TextStream, UnknownDecoder, spelling_of
from pensieve.messages import Json
from pensieve.models.folders import TOKENIZER_NAME, read_json

MAX_TOKENIZER_BYTES: Final = 256 * 2**20
MAX_TOKENS: Final = 4_000_000
MAX_MARKER_LENGTH: Final = 256


class MlxTokenizer:
    """A `prompts.tokenizer.Tokenizer` with streams. `open` makes one."""

    def __init__(self, tokenizer: Tokenizer, spelling: Spelling, *, bos_token: str = "", eos_token: str = "") -> None:
        # A file may ask for both; a prompt that is cut or padded in silence would be answered wrongly.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._spelling = spelling
        self._texts = {token: text for text, token in tokenizer.get_vocab(with_added_tokens=True).items()}
        self._bytes: dict[int, bytes] = {}
        self._num_columns: int | None = None
        self.eos_token = eos_token
        with_special, without = tokenizer.encode("a").ids, tokenizer.encode("a", add_special_tokens=False).ids
        self.adds_bos = len(with_special) > 0 and with_special[:1] != without[:1]
        """Whether `encode` opens with a token that is not the text's."""
        self.bos_token = self._texts.get(with_special[0], bos_token) if self.adds_bos else bos_token

    @classmethod
    def open(cls, folder: Path) -> MlxTokenizer:
        """The tokenizer of the model in `folder`; raises `LoadFailed`."""
        content = _content(folder)
        with _Opening(folder.name):
            tokenizer = Tokenizer.from_buffer(content)
            if tokenizer.get_vocab_size() > MAX_TOKENS:
                raise LoadFailed(f"{TOKENIZER_NAME} has more than {MAX_TOKENS:,} tokens", model=folder.name)
            markers = _markers(folder)
            return cls(tokenizer, _spelling(folder, content), bos_token=markers[0], eos_token=markers[1])

    @property
    def num_tokens(self) -> int:
        """Entries of the vocabulary, special ones included; a model may have more columns than that."""
        return len(self._texts)

    def encode(self, text: str, *, adds_special: bool = True) -> list[int]:
        """Ids of `text`, special tokens in it read as such; `adds_special` adds BOS and the like where it is due.

        Raises `InvalidRequest` for a token that the model has no weights for.
        """
        # Half of a surrogate pair is no character; the library takes none.
        whole = text.encode("utf-8", "replace").decode()
        encoded = self._tokenizer.encode(whole, add_special_tokens=adds_special)
        tokens: list[int] = encoded.ids
        if self._num_columns is not None and tokens and max(tokens) >= self._num_columns:
            unknown = self._texts.get(max(tokens), "")
            raise InvalidRequest(f"this model has no weights for the token {unknown[:80]!r}: leave it out of the text")
        return tokens

    def limit(self, num_columns: int | None) -> None:
        """Refuse tokens from this id on: some vocabularies are larger than their models. None: no limit."""
        self._num_columns = num_columns

    def id_of(self, token: str) -> int | None:
        """The id of a token's own text, as `<|im_end|>`; None if there is none."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def markers(self) -> dict[str, bool]:
        """See `KnowsMarkers.markers`."""
        return {token.content: token.special for token in self._tokenizer.get_added_tokens_decoder().values()}

    def stream(self, *, continues: bool = False) -> TextStream:
        """A new stream for one answer; special tokens stay in the text.

        `continues`: the answer goes on in the middle of a text, so a space at its start is part of it. Some
        vocabularies open every text with one, which is dropped otherwise.
        """
        return TextStream(self.bytes_of, self._spelling._replace(num_stripped=0) if continues else self._spelling)

    def token_text(self, token: int) -> str:
        """The token alone; bytes that are no whole character read as U+FFFD, an unknown token as ""."""
        return self.bytes_of(token).decode("utf-8", "replace")

    def copy(self) -> MlxTokenizer:
        """Another one, for another thread. Takes up to a second for a large vocabulary."""
        whole = Tokenizer.from_str(self._tokenizer.to_str())
        return MlxTokenizer(whole, self._spelling, bos_token=self.bos_token, eos_token=self.eos_token)

    def bytes_of(self, token: int) -> bytes:
        """What the token stands for; an unknown one for nothing."""
        known = self._bytes.get(token)
        if known is None:
            text = self._texts.get(token)
            known = b"" if text is None else self._spelling.bytes_of(text)
            if text is not None:
                self._bytes[token] = known
        return known


class _Opening:
    """Turns what the library raises on a broken file, a bare `Exception` or a panic included, into `LoadFailed`."""

    def __init__(self, model: str) -> None:
        self._model = model

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind in (Exception, ValueError) or (kind is not None and kind.__name__ == "PanicException"):
            problem = f"{TOKENIZER_NAME} is broken: {str(error)[:200]}: fetch it again"
            raise LoadFailed(problem, model=self._model) from error


class _Decoding(msgspec.Struct):
    decoder: dict[str, Json] | None = None


def _content(folder: Path) -> bytes:
    try:
        if (folder / TOKENIZER_NAME).is_fifo():  # opening it would wait for its writer
            raise LoadFailed(f"{TOKENIZER_NAME} is no file: fetch it again", model=folder.name)
        with (folder / TOKENIZER_NAME).open("rb") as file:
            content = file.read(MAX_TOKENIZER_BYTES + 1)
    except FileNotFoundError as error:
        problem = f"there is no {TOKENIZER_NAME} in its folder: fetch it beside the weights"
        if (folder / "tokenizer.model").exists():
            problem = f"it has a tokenizer.model but no {TOKENIZER_NAME}: take a copy of the model that has one"
        raise LoadFailed(problem, model=folder.name) from error
    except OSError as error:
        problem = f"{TOKENIZER_NAME} cannot be read: {error.strerror or error}"
        raise LoadFailed(problem, model=folder.name) from error
    if len(content) > MAX_TOKENIZER_BYTES:
        raise LoadFailed(f"{TOKENIZER_NAME} is larger than {MAX_TOKENIZER_BYTES:,} bytes", model=folder.name)
    return content


def _spelling(folder: Path, content: bytes) -> Spelling:
    try:
        return spelling_of(msgspec.json.decode(content, type=_Decoding).decoder)
    except UnknownDecoder as error:
        problem = f"its {TOKENIZER_NAME} has a decoder that is not supported ({error}): use another model"
        raise LoadFailed(problem, model=folder.name) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LoadFailed(f"{TOKENIZER_NAME} is broken: {error}: fetch it again", model=folder.name) from error


def _markers(folder: Path) -> tuple[str, str]:
    """BOS and EOS as the tokenizer's settings name them; "" where they name none."""
    found = {"bos_token": "", "eos_token": ""}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            settings = read_json(folder / name)
            found |= {key: text for key in found if (text := _marker(settings.get(key)))}
    return found["bos_token"], found["eos_token"]


def _marker(value: Json) -> str:
    text = value.get("content") if isinstance(value, dict) else value
    return text[:MAX_MARKER_LENGTH] if isinstance(text, str) else ""
