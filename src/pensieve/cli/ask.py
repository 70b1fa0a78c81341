"""`pensieve ask`: one question, one answer, for people and for pipes. Knows no engine and no wire."""

from __future__ import annotations

import asyncio
import json
import select
import sys
from collections.abc import Sequence
from contextlib import aclosing

import click
import msgspec

from pensieve.cli.backend import Place, check_quantization, choose, open_backend
from pensieve.cli.chat.plain import PlainScreen
from pensieve.cli.context import load_settings
from pensieve.cli.failures import INTERRUPTED_STATUS
from pensieve.cli.progress import Progress
from pensieve.cli.recipe import Recipe
from pensieve.cli.speed import Speed, Stopwatch
from pensieve.config.settings import Settings
from pensieve.errors import UsageError
from pensieve.generation import Collector, Finished, GenerationRequest
from pensieve.messages import Message, ThinkingPart, say
from pensieve.sampling.params import RANGES

MAX_INPUT_BYTES = 16 * 2**20
PATIENCE_SECONDS = 2.0
"""After this long without a byte on standard input, a person is told what is being waited for."""


SETTINGS = {
    "model": "model.name",
    "system": "generation.system",
    "temperature": "generation.temperature",
    "top_p": "generation.top_p",
    "top_k": "generation.top_k",
    "max_tokens": "generation.max_tokens",
    "quantization": "mlx.quantization",
}
"""Which setting each flag stands for; what a flag may say is checked where settings are."""


class Manner(msgspec.Struct, frozen=True):
    """How the answer is wanted."""

    is_streamed: bool = True
    is_json: bool = False


@click.command()
@click.argument("words", nargs=-1)
@click.option("--model", help="A model's name, or the path of a GGUF file or of a folder of safetensors.")
@click.option("--system", help="What the model is told before the question.")
@click.option("--temperature", help="0 is always the likeliest word; higher is more varied.")
@click.option("--top-p", help="Choose among the likeliest words that together have this probability.")
@click.option("--top-k", help="Choose among this many of the likeliest words; 0 is all.")
@click.option(
    "--seed", type=click.IntRange(0, int(RANGES["seed"].high)), help="The same seed gives the same answer again."
)
@click.option("--max-tokens", help="Longest answer, in tokens.")
@click.option("--quantization", help="Load an unquantized MLX model as int4, int8 or fp16; none leaves it as it is.")
@click.option("--no-streaming", is_flag=True, help="Print the answer when it is complete.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object: answer, usage and speed.")
def ask(words: tuple[str, ...], seed: int | None, no_streaming: bool, is_json: bool, **flags: str | None) -> int:
    """Ask one question; the answer comes as it is made.

    Standard input is read when it is piped, and follows the question; `-` alone stands for it.
    """
    loaded = load_settings({key: flags[name] for name, key in SETTINGS.items()})
    question = say("user", read_question(words))
    with Progress() as progress:
        place = choose(loaded.settings, loaded.folders, progress.tell)
    check_quantization(flags["quantization"], place)
    request = Recipe.of(loaded.settings.generation, place.model, seed).request([question])
    manner = Manner(is_streamed=not (no_streaming or is_json), is_json=is_json)
    try:
        asyncio.run(_ask(request, manner, place, loaded.settings))
    except KeyboardInterrupt:
        return INTERRUPTED_STATUS
    return 0


def read_question(words: Sequence[str]) -> str:
    """The words, then what is piped in; `-` among the words asks for standard input even on a terminal."""
    asked = _mended(" ".join(word for word in words if word != "-").strip())
    is_piped = sys.stdin is not None and not sys.stdin.isatty()
    piped = _read_piped(is_optional=bool(asked)) if is_piped or "-" in words else ""
    question = "\n\n".join(part for part in (asked, piped) if part.strip())
    if not question:
        raise UsageError('there is nothing to ask: `pensieve ask "What is a pensieve?"`, or pipe the question in')
    return question


def _mended(text: str) -> str:
    """The text with U+FFFD for bytes of the command line that are not UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def _read_piped(*, is_optional: bool) -> str:
    if sys.stdin is None:
        return ""
    if is_optional and not select.select([sys.stdin], [], [], PATIENCE_SECONDS)[0]:
        click.echo("still reading standard input: close it (`</dev/null`) to ask without it", err=True)
    content = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
    if len(content) > MAX_INPUT_BYTES:
        raise UsageError(f"standard input is longer than {MAX_INPUT_BYTES} bytes: ask about a part of it")
    return content.decode(errors="replace").rstrip()


async def _ask(request: GenerationRequest, manner: Manner, place: Place, settings: Settings) -> None:
    screen, watch, collector = PlainScreen(sys.stdout, sys.stderr), Stopwatch(), Collector()
    if place.server is None and sys.stderr.isatty():
        screen.say(f"Loading {place.model} ...")
    async with open_backend(place, settings) as backend:
        try:
            async with aclosing(backend.generate(request)) as events:
                async for event in events:
                    watch.add(event)
                    collector.add(event)
                    if manner.is_streamed:
                        screen.draw(event)
        finally:
            screen.end()
        if not manner.is_streamed:
            _print_whole(collector, watch.speed, place, manner, screen)


def _print_whole(collector: Collector, speed: Speed, place: Place, manner: Manner, screen: PlainScreen) -> None:
    finished = collector.finished
    assert finished is not None, "a backend's stream ended without Finished"
    if manner.is_json:
        screen.write(_json(collector.message, finished, speed, place))
    else:
        screen.write(collector.message.text)
    screen.tell_ending(finished)


def _json(message: Message, finished: Finished, speed: Speed, place: Place) -> str:
    thinking = "".join(part.text for part in message.parts if isinstance(part, ThinkingPart))
    told = {
        "model": place.model,
        "answer": message.text,
        **({"thinking": thinking} if thinking else {}),
        "stop_reason": finished.reason,
        "usage": msgspec.to_builtins(finished.usage),
        "speed": msgspec.to_builtins(speed),
        "source": place.description,
    }
    # ASCII only: nothing a model says can reach the terminal unescaped.
    return json.dumps(told)
