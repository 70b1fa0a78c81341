"""A model's own chat template: Jinja in an immutable sandbox, with a deadline on calls and a bound on repetition.

A template comes with the weights, so it is hostile until proven otherwise. A loop without calls is not stopped here:
the backend gives up waiting for it. Knows no tokenizer and no backend.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import jinja2
import msgspec
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from pensieve.errors import BackendFailure, InvalidRequest
from pensieve.prompts.sandbox import FOREIGN, RENDER_SECONDS, Sandbox

PLAIN = """\
{%- for message in messages %}{{ message.role | capitalize }}: {{ message.content }}

{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"""
"""For models without a template of their own: `User: ...`, blank line, `Assistant:`."""

ChatMessage = Mapping[str, Any]
ToolEntry = Mapping[str, Any]
"""`{"type": "function", "function": {"name", "description", "parameters"}}`, the shape that templates expect."""


class TemplateOptions(msgspec.Struct, frozen=True):
    """What a template is asked beside the messages. None leaves it to the template, which knows its own default."""

    is_thinking: bool | None = None
    """Told as `enable_thinking` and as `thinking`: templates call it the one or the other."""
    reasoning_effort: Literal["low", "medium", "high"] | None = None
    """For models that always think, as gpt-oss does."""

    def variables(self) -> dict[str, bool | str]:
        """The template's variables; templates ask whether they are defined."""
        told = {
            "enable_thinking": self.is_thinking,
            "thinking": self.is_thinking,
            "reasoning_effort": self.reasoning_effort,
        }
        return {name: value for name, value in told.items() if value is not None}


NO_THINKING = TemplateOptions(is_thinking=False, reasoning_effort="low")
"""As little thinking as the template can ask for."""


class TemplateRefusal(Exception):
    """The template itself refuses these messages (`raise_exception`)."""


class _Generation(Extension):
    """Accepts the `{% generation %}` markers that some training set-ups leave in; they change nothing here."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it as a plain set

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise TemplateRefusal(message)


def _strftime_now(pattern: str) -> str:
    """Today, not now: a time of day would change the prompt's first tokens with every request."""
    midnight = datetime.now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight.strftime(pattern)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as templates expect it: characters as they are, keys as they came, nothing escaped for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class ChatTemplate:
    """Renders messages to the text a model was trained on."""

    def __init__(
        self, source: str, *, bos_token: str = "", eos_token: str = "", seconds: float = RENDER_SECONDS
    ) -> None:
        """Compile `source`; an empty one means `PLAIN`. Raises `BackendFailure` if it is not a template."""
        self.is_plain = not source
        self.source = source or PLAIN
        self._environment = Sandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation], autoescape=False
        )
        self._environment.seconds = seconds
        self._environment.filters["tojson"] = _tojson
        self._environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        try:
            self._template = self._environment.from_string(self.source)
        except (jinja2.TemplateError, SyntaxError, RecursionError, MemoryError) as error:
            raise BackendFailure(f"the model's chat template does not compile: {error}") from error

    def render(
        self,
        messages: Sequence[ChatMessage],
        *,
        tools: Sequence[ToolEntry] = (),
        adds_generation_prompt: bool = True,
        options: TemplateOptions = NO_THINKING,
    ) -> str:
        """The prompt. Raises `InvalidRequest` where the template cannot express the messages."""
        try:
            return self.try_render(
                messages, tools=tools, adds_generation_prompt=adds_generation_prompt, options=options
            )
        except TemplateRefusal as error:
            raise InvalidRequest(f"the model's chat template refuses these messages: {error}", "messages") from error

    def try_render(
        self,
        messages: Sequence[ChatMessage],
        *,
        tools: Sequence[ToolEntry] = (),
        adds_generation_prompt: bool = True,
        options: TemplateOptions = NO_THINKING,
    ) -> str:
        """As `render`, but a refusal by the template itself passes as `TemplateRefusal`: for probing."""
        self._environment.deadline = time.monotonic() + self._environment.seconds
        try:
            return self._template.render(
                messages=messages,
                add_generation_prompt=adds_generation_prompt,
                **({"tools": list(tools)} if tools else {}),
                **self._tokens,
                **options.variables(),
            )
        except FOREIGN as error:
            raise BackendFailure(f"the model's chat template failed: {error}") from error
