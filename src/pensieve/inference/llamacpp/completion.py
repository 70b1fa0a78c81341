"""One run of llama.cpp as values: what is asked for, what comes back in pieces. Knows its dictionaries."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from pensieve.errors import BackendFailure, ContextOverflow, PensieveError
from pensieve.generation import TokenLogprob
from pensieve.sampling.params import SamplingParams

RANDOM_SEED: Final = 0xFFFFFFFF
"""What llama.cpp takes for "choose one"."""

_LARK: Final = "%llguidance {}\n"
"""What llama.cpp knows a grammar of llguidance's by."""


class Run(msgspec.Struct, frozen=True):
    """What llama.cpp is to do: read `tokens`, or with images `text`, and go on from there."""

    tokens: list[int]
    sampling: SamplingParams
    max_tokens: int
    text: str = ""
    images: tuple[bytes, ...] = ()
    lark: str = ""
    """A grammar of llguidance's that all that is said obeys; llama.cpp drops one that it cannot use, in silence."""
    logit_bias: Mapping[int, float] = {}
    slot: int = -1
    """-1: llama.cpp's choice."""
    num_logprobs: int | None = None
    """As in `GenerationRequest`."""

    def body(self) -> dict[str, Any]:
        """The request in llama.cpp's words."""
        prompt: Any = self.tokens
        if self.images:
            data = [base64.b64encode(image).decode() for image in self.images]
            prompt = {"prompt_string": self.text, "multimodal_data": data}
        body = {"prompt": prompt, "n_predict": self.max_tokens, **_FIXED, **_sampling_fields(self.sampling)}
        if self.slot >= 0:
            body["id_slot"] = self.slot
        if self.logit_bias:
            body["logit_bias"] = [[token, bias] for token, bias in self.logit_bias.items()]
        if self.num_logprobs is not None:
            body["n_probs"] = max(1, self.num_logprobs)  # 0 would be none at all
        if self.lark:
            body["grammar"] = _LARK + self.lark
        return body


class Chunk(msgspec.Struct, frozen=True):
    """One step of one run."""

    text: str = ""
    token: int = -1
    """The newest token; earlier ones of the same text were held back with it, where a character took several."""
    completion_tokens: int = 0
    """Sampled so far in this run, these included; 0 on prefill progress."""
    cached_tokens: int | None = None
    """Set on prefill progress."""
    processed_tokens: int = 0
    prompt_tokens: int = 0
    finish: str = ""
    """`stop` or `length` on the last chunk."""
    error: PensieveError | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of the newest token: llama.cpp tells nothing of those that were held back with it."""


def chunk_of(raw: dict[str, Any]) -> Chunk:
    """What llama.cpp says, as a value; `__verbose` holds the form with tokens."""
    if "error" in raw:
        return Chunk(error=_error(raw["error"]))
    step = raw.get("__verbose", raw)
    progress = step.get("prompt_progress")
    if progress is not None:
        return Chunk(
            cached_tokens=progress["cache"], processed_tokens=progress["processed"], prompt_tokens=progress["total"]
        )
    if step["stop"]:
        finish = "length" if step.get("stop_type") == "limit" else "stop"
        return Chunk(text=step["content"], completion_tokens=step["tokens_predicted"], finish=finish)
    tokens = step["tokens"]
    return Chunk(
        text=step["content"],
        token=tokens[-1] if tokens else -1,
        completion_tokens=step["tokens_predicted"],
        logprobs=tuple(map(_logprob, step.get("completion_probabilities") or ())),
    )


_FIXED: Final[dict[str, Any]] = {
    "stream": True,
    "return_progress": True,
    "cache_prompt": True,
    "return_tokens": True,
    "verbose": True,  # without it the tokens are left out
}


def _sampling_fields(sampling: SamplingParams) -> dict[str, Any]:
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": RANDOM_SEED if sampling.seed is None else sampling.seed,
    }


def _logprob(raw: dict[str, Any]) -> TokenLogprob:
    """Probabilities are those of the model itself, before temperature, penalties and grammar."""
    alternatives = tuple((each["id"], _text(each), each["logprob"]) for each in raw.get("top_logprobs", ()))
    return TokenLogprob(raw["id"], _text(raw), raw["logprob"], alternatives)


def _text(raw: dict[str, Any]) -> str:
    return bytes(raw["bytes"]).decode("utf-8", "replace") if "bytes" in raw else str(raw.get("token", ""))


def _error(raw: dict[str, Any]) -> PensieveError:
    if raw.get("type") == "exceed_context_size_error":
        return ContextOverflow(prompt_tokens=raw["n_prompt_tokens"], limit_tokens=raw["n_ctx"])
    return BackendFailure(f"llama.cpp: {str(raw.get('message', 'failed without a message'))[:300]}")
