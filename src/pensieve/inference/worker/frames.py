"""What parent and worker say to each other: msgpack values behind a length, over a socket pair. No I/O here."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from pensieve.config.settings import Settings
from pensieve.errors import Facts, PensieveError, RequestTooLarge
from pensieve.generation import GenerationEvent, GenerationRequest
from pensieve.inference.backend import Embeddings, Limits
from pensieve.models.spec import ModelSpec

MAX_FRAME_BYTES = 256 * 2**20
"""A larger length means that the stream is out of step."""

NO_STREAM = -1
LOAD_STREAM = 0
"""The stream of the answer to `Load`; requests count from 1."""

_LENGTH = struct.Struct("<I")


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Parent: load this model. Answered by `Ready`, or by `Failed` for `LOAD_STREAM`."""

    spec: ModelSpec
    settings: Settings
    state_folder: str = ""
    """Where an engine may keep what survives a restart; empty: nowhere."""


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    """Parent: answer this request on this stream, with `Events` until `Finished`, or `Failed`."""

    stream: int
    request: GenerationRequest


class Count(msgspec.Struct, frozen=True, tag="count"):
    """Parent: count the prompt's tokens. Answered by `Counted` or `Failed`."""

    stream: int
    request: GenerationRequest


class Embed(msgspec.Struct, frozen=True, tag="embed"):
    """Parent: embed these texts. Answered by `Embedded` or `Failed`."""

    stream: int
    texts: tuple[str, ...]


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Parent: nobody listens to this stream any more."""

    stream: int


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """Parent: are you there? Answered by `Pong`, whatever the engine is doing."""


class Relieve(msgspec.Struct, frozen=True, tag="relieve"):
    """Parent: memory is short, or no longer so; caches may fill this part of their budget."""

    cache_share: float
    is_frugal: bool
    """Read prompts in the smallest pieces, and let nobody in who waits."""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Parent: end all work and exit."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Worker: the model is loaded; with nothing running, it will come to hold `growth_bytes` more, at most."""

    limits: Limits
    growth_bytes: int = 0
    stream: int = LOAD_STREAM


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    """Worker: the answer to `Ping`; belongs to no request. What cached prompts hold, and what was evicted so far."""

    cache_bytes: int = 0
    evicted_bytes: int = 0
    stream: int = NO_STREAM


class Events(msgspec.Struct, frozen=True, tag="events"):
    """Worker: the next events of a stream, all that were ready at once."""

    stream: int
    events: tuple[GenerationEvent, ...]


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    """Worker: tokens of the prompt."""

    stream: int
    tokens: int


class Embedded(msgspec.Struct, frozen=True, tag="embedded"):
    """Worker: the vectors."""

    stream: int
    embeddings: Embeddings


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Worker: the stream ended with this error; see `pensieve.errors.rebuild`."""

    stream: int
    code: str
    facts: Facts


def failed(stream: int, error: PensieveError) -> Failed:
    """The frame of an error; text that is no valid Unicode is mended, since an error must always arrive."""
    facts = {
        name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for name, value in error.facts().items()
    }
    return Failed(stream, error.code, facts)


ToWorker = Load | Generate | Count | Embed | Cancel | Ping | Relieve | Stop
FromWorker = Ready | Events | Counted | Embedded | Failed | Pong

_encoder = msgspec.msgpack.Encoder()


def encode(frame: ToWorker | FromWorker) -> bytes:
    """The frame's bytes, length first. Raises `RequestTooLarge`."""
    body = _encoder.encode(frame)
    if len(body) > MAX_FRAME_BYTES:
        raise RequestTooLarge(MAX_FRAME_BYTES)
    return _LENGTH.pack(len(body)) + body


class _Splitter:
    """Cuts a byte stream into frame bodies."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._pending += data
        while len(self._pending) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._pending)
            assert length <= MAX_FRAME_BYTES, "worker frames are out of step"
            end = _LENGTH.size + length
            if len(self._pending) < end:
                return
            body = bytes(self._pending[_LENGTH.size : end])
            del self._pending[:end]
            yield body


class ToWorkerDecoder:
    """Bytes from the parent, in any pieces, to frames."""

    def __init__(self) -> None:
        self._splitter = _Splitter()
        self._decoder = msgspec.msgpack.Decoder(ToWorker)

    def feed(self, data: bytes) -> list[ToWorker]:
        """The frames that are complete now."""
        return [self._decoder.decode(body) for body in self._splitter.feed(data)]


class FromWorkerDecoder:
    """Bytes from the worker, in any pieces, to frames."""

    def __init__(self) -> None:
        self._splitter = _Splitter()
        self._decoder = msgspec.msgpack.Decoder(FromWorker)

    def feed(self, data: bytes) -> list[FromWorker]:
        """The frames that are complete now."""
        return [self._decoder.decode(body) for body in self._splitter.feed(data)]
