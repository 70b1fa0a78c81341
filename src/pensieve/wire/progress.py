"""How far a prompt is read, as a comment between the frames of any stream: an API has no words for it.

Sent only to a client that asks for it by header; whoever else reads such a stream passes comments over.
"""

from __future__ import annotations

import re

from pensieve.generation import PromptProgress
from pensieve.wire.sse import encode_comment

HEADER = "x-pensieve-progress"
"""Of a request for a stream; `1` asks for the comments."""
ASKED = "1"
_COMMENT = re.compile(r"prefill ([0-9]{1,10})/([0-9]{1,10})", re.ASCII)


def encode_progress(progress: PromptProgress) -> bytes:
    """`: prefill 2048/16000`: tokens of the prompt that are read, of all."""
    return encode_comment(f"prefill {progress.processed_tokens}/{progress.total_tokens}")


def decode_progress(comment: str) -> PromptProgress | None:
    """What a comment tells; None for any other comment."""
    found = _COMMENT.fullmatch(comment)
    if found is None:
        return None
    progress = PromptProgress(int(found[1]), int(found[2]))
    return progress if progress.processed_tokens <= progress.total_tokens else None
