"""`pensieve chat`: chooses who answers, offers to pull a model that is missing, and runs the chat."""

from __future__ import annotations

import io
import sys
from contextlib import AsyncExitStack, suppress

import click

from pensieve.cli.backend import Place, check_quantization, choose, open_backend
from pensieve.cli.chat.loop import LoopThread
from pensieve.cli.chat.plain import PlainScreen
from pensieve.cli.chat.repl import Repl
from pensieve.cli.chat.screen import Screen
from pensieve.cli.chat.session import ChatSession
from pensieve.cli.context import load_settings
from pensieve.cli.recipe import Recipe
from pensieve.config.settings import Settings
from pensieve.config.sources import LoadedSettings
from pensieve.errors import ModelNotFound, UsageError
from pensieve.inference.backend import Backend
from pensieve.messages import say

SETTINGS = {
    "model": "model.name",
    "system": "generation.system",
    "temperature": "generation.temperature",
    "max_tokens": "generation.max_tokens",
    "quantization": "mlx.quantization",
}
"""Which setting each flag stands for; what a flag may say is checked where settings are."""


@click.command()
@click.option("--model", help="A model's name, or the path of a GGUF file or of a folder of safetensors.")
@click.option("--system", help="What the model is told before the conversation.")
@click.option("--temperature", help="0 is always the likeliest word; higher is more varied.")
@click.option("--max-tokens", help="Longest answer, in tokens.")
@click.option("--quantization", help="Load an unquantized MLX model as int4, int8 or fp16; none leaves it as it is.")
def chat(**flags: str | None) -> int:
    """Talk with a model, line by line.

    In a pipe each line of standard input is a question.
    """
    _open_input()
    loaded = load_settings({key: flags[name] for name, key in SETTINGS.items()})
    place = _choose_or_pull(loaded)
    check_quantization(flags["quantization"], place)
    with LoopThread() as loop:
        return _talk(loop, place, loaded.settings)


def _open_input() -> None:
    if sys.stdin is None:
        raise UsageError("there is no standard input to read questions from")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # bytes that are no text must not end a conversation
    if sys.stdin.isatty():
        with suppress(ImportError):  # not every Python has it
            import readline  # noqa: F401, PLC0415 - gives input() its line editing


def _choose_or_pull(loaded: LoadedSettings) -> Place:
    try:
        return choose(loaded.settings, loaded.folders)
    except ModelNotFound as missing:
        is_offered = missing.is_known and sys.stdin.isatty()
        if not is_offered or not click.confirm(f"{missing.what} is not here yet. Fetch it now?", err=True):
            raise
        _pull(missing.what)
        return choose(loaded.settings, loaded.folders)


def _pull(model: str) -> None:
    from pensieve.cli.pull import pull  # noqa: PLC0415 - brings an HTTP client, and is needed once

    pull.main([model], prog_name="pensieve pull", standalone_mode=False)


def _talk(loop: LoopThread, place: Place, settings: Settings) -> int:
    screen, stack = PlainScreen(sys.stdout, sys.stderr, is_interactive=sys.stdin.isatty()), AsyncExitStack()
    recipe = Recipe.of(settings.generation, place.model)
    try:
        backend = loop.run(stack.enter_async_context(open_backend(place, settings)))
        if sys.stdin.isatty():
            _greet(loop, screen, place, backend, recipe)
        return Repl(ChatSession(backend, recipe), loop, screen).run()
    finally:
        loop.run(stack.aclose())


def _greet(loop: LoopThread, screen: Screen, place: Place, backend: Backend, recipe: Recipe) -> None:
    if place.server is None:
        screen.say(f"Loading {place.model} ...")
        # Any request that needs the model loads it, so that the first question does not wait.
        loop.run(backend.count_tokens(recipe.request([say("user", "Hello")])))
    screen.say(f"{place.model}, {place.description}. /help shows the commands, Ctrl-D leaves.")
