"""What `pensieve chat` was asked for on its command line. Knows no backend and no screen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from pensieve.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])
SETTINGS = {
    "model": "model.name",
    "system": "generation.system",
    "temperature": "generation.temperature",
    "max_tokens": "generation.max_tokens",
    "quantization": "mlx.quantization",
}
"""Which setting each flag stands for; what a flag may say is checked where settings are."""
CHOOSE = "?"
"""`--resume` without a number."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Everything but the flags that are settings."""

    words: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    """Flags of `SETTINGS` that were given."""
    preset: str | None = None
    resume: str | None = None
    is_continued: bool = False
    is_whole: bool = False
    is_verbose: bool = False
    connect: str | None = None
    is_printed: bool = False
    is_private: bool = False

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.is_continued and self.resume is not None:
            raise UsageError("--continue goes on with the last conversation, --resume with another: use one of them")
        if self.preset is not None and "system" in self.given:
            raise UsageError("--preset and --system both say what the model is told first: use one of them")
        if self.is_private and self.resume == CHOOSE:
            raise UsageError(
                "--no-save shows nothing of what is kept: say --resume with a number (`pensieve history list`), "
                "or --continue"
            )
        if self.is_printed and self.resume == CHOOSE:
            raise UsageError("--print asks nothing: say --resume with a number, or --continue")


def options(function: Function) -> Function:
    """All options of `pensieve chat`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


_OPTIONS = (
    click.argument("words", nargs=-1),
    click.option("--model", help="A model's name, or the path of a GGUF file or of a folder of safetensors."),
    click.option("--system", help="What the model is told before the conversation."),
    click.option("--preset", help="What it is told, under a name; 'NAME variable=value' fills it in."),
    click.option("--temperature", help="0 is always the likeliest word; higher is more varied."),
    click.option("--max-tokens", help="Longest answer, in tokens."),
    click.option(
        "--quantization", help="Load an unquantized MLX model as int4, int8 or fp16; none leaves it as it is."
    ),
    click.option("--continue", "is_continued", is_flag=True, help="Go on with the last conversation."),
    click.option(
        "--resume", is_flag=False, flag_value=CHOOSE, metavar="[ID]", help="Go on with a kept one; without ID, choose."
    ),
    click.option("--connect", metavar="URL", help="Let the server at this address answer."),
    click.option("--print", "is_printed", is_flag=True, help="Answer one question on standard output, and end."),
    click.option(
        "--no-save", "--private", "is_private", is_flag=True, help="Keep nothing of this chat; /save still writes it."
    ),
    click.option("--no-streaming", "is_whole", is_flag=True, help="Show each answer when it is complete."),
    click.option("--verbose", "is_verbose", is_flag=True, help="Show figures behind each answer."),
)
