"""What the Messages API answers, streamed or whole, and its errors: the door to the modules that translate them."""

from pensieve.wire.anthropic.answers import decode_answer, encode_answer
from pensieve.wire.anthropic.decoder import EventDecoder
from pensieve.wire.anthropic.encoder import EventEncoder
from pensieve.wire.anthropic.errors import decode_error, encode_error, error_type

__all__ = [
    "EventDecoder",
    "EventEncoder",
    "decode_answer",
    "decode_error",
    "encode_answer",
    "encode_error",
    "error_type",
]
