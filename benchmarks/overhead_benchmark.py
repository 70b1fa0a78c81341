"""What server and worker add to the bare engine: time to first token, and time per token, side by side in one run.

The bare engine is xllamacpp in this process with the sizes the worker uses. Both answer the same prompt, whose cache
is warm, so that the difference is ours and not the noise of a prefill. Rounds alternate; medians are compared.
"""

from __future__ import annotations

import time

from pensieve.config.settings import Settings
from pensieve.inference.llamacpp import sizing
from pensieve.inference.llamacpp.completion import Chunk, Run
from pensieve.inference.llamacpp.engine import Engine
from pensieve.inference.llamacpp.tokenizer import EngineTokenizer
from pensieve.models.metadata import read_gguf
from pensieve.sampling.params import DEFAULTS, SamplingParams, merge
from serving import Stream, body, median_ms, model_file, running_server

ROUNDS = 30
TOKENS = 64
PAUSE_SECONDS = 0.05
"""An engine's threads spin for a moment after their last token, and would be in the other one's way."""
QUESTION = "Write a long story about a lighthouse keeper and the sea."
PROMPT = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
GREEDY = merge(DEFAULTS, SamplingParams(temperature=0.0))


def through_server(url: str) -> tuple[float, float]:
    """Seconds to the first token, and per token after it."""
    stream = Stream(url, body(QUESTION, TOKENS))
    times = list(stream.arrivals(b"content_block_delta"))
    stream.close()
    return times[0] - stream.sent_at, (times[-1] - times[0]) / (len(times) - 1)


def bare(engine: Engine, prompt: list[int]) -> tuple[float, float]:
    """The same, straight from the engine."""
    times: list[float] = []

    def on_chunk(chunk: Chunk) -> bool:
        if chunk.text:
            times.append(time.perf_counter())
        return False

    began = time.perf_counter()
    engine.complete(Run(prompt, GREEDY, TOKENS), on_chunk)
    return times[0] - began, (times[-1] - times[0]) / (len(times) - 1)


def main() -> None:
    """Print both, and the difference."""
    spec = read_gguf(model_file()).spec("smollm2-135m")
    engine = Engine(spec, sizing.choose(spec, Settings(), available_bytes=2**34), Settings().llamacpp)
    tokenizer = EngineTokenizer(engine.socket)
    prompt = tokenizer.encode(PROMPT)
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    with running_server() as url:
        for round_number in range(ROUNDS + 2):
            time.sleep(PAUSE_SECONDS)
            through = through_server(url)
            time.sleep(PAUSE_SECONDS)
            pair = through, bare(engine, prompt)
            if round_number >= 2:  # the first rounds load the model and fill the caches
                ours.append(pair[0])
                theirs.append(pair[1])
    engine.close()
    print(f"{'':24}{'server + worker':>18}{'bare engine':>14}{'added':>10}   (ms, medians of {ROUNDS} rounds)")
    for name, place in (("time to first token", 0), ("time per token", 1)):
        served, direct = (median_ms([pair[place] for pair in side]) for side in (ours, theirs))
        print(f"{name:24}{served:18.2f}{direct:14.2f}{served - direct:10.2f}")


if __name__ == "__main__":
    main()
