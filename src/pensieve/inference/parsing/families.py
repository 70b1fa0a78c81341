"""Which grammar a model's output follows: read off its chat template, which teaches the model that very markup.

Knows no model by name. A family whose markup is not known for sure gets plain text, which loses nothing.
"""

from __future__ import annotations

import msgspec

from pensieve.inference.parsing.grammar import (
    ARGUMENT_PAIRS,
    BARE_JSON,
    CALL_TERMS,
    CHANNEL,
    CHANNELS,
    FUNCTION_ELEMENTS,
    MESSAGE,
    PYTHON_TAG,
    THINK_BRACKETS,
    THINK_TAGS,
    THOUGHT_CHANNEL,
    TOOL_CALL_PIPES,
    TOOL_CALL_TAGS,
    TOOL_CALLS_BRACKETS,
    CallSyntax,
    OutputGrammar,
    Span,
)
from pensieve.prompts.probing import probe
from pensieve.prompts.template import ChatTemplate

_CHANNEL_ARCHITECTURES = frozenset({"gpt_oss", "gpt-oss"})
"""Trained on channels alone, so that they use them without a template too."""


class Dialect(msgspec.Struct, frozen=True):
    """How one model is told of tools, and how it writes its answers: renderer and parser must agree."""

    grammar: OutputGrammar
    has_native_tools: bool
    """The template takes tools, calls and results itself; else they are written in the plain format."""


def dialect_for(template: str, architecture: str) -> Dialect:
    """What a chat template implies; `architecture` only counts where there is no template.

    Its own way with tools counts if the template renders them, and the calls that it teaches can be read. Renders
    probes, so it blocks for some milliseconds. Raises `BackendFailure` for a template that is none.
    """
    grammar = _grammar(template, architecture)
    is_known = grammar.style == "channels" or bool(grammar.calls)
    has_native_tools = bool(template) and is_known and probe(ChatTemplate(template)).tools is not None
    if not has_native_tools:
        grammar = msgspec.structs.replace(grammar, calls=(TOOL_CALL_TAGS,))
    return Dialect(grammar, has_native_tools)


def _grammar(template: str, architecture: str) -> OutputGrammar:
    if not template:
        return CHANNELS if architecture in _CHANNEL_ARCHITECTURES else OutputGrammar()
    if CHANNEL in template and MESSAGE in template:
        return CHANNELS
    return OutputGrammar(thinking=_thinking(template), calls=_calls(template))


def _thinking(template: str) -> Span | None:
    # Closers, because some templates only take old thinking out and leave it to the model to open it.
    return next((span for span in (THINK_TAGS, THINK_BRACKETS, THOUGHT_CHANNEL) if span.closer in template), None)


def _calls(template: str) -> tuple[CallSyntax, ...]:
    if CALL_TERMS.opener in template and CALL_TERMS.closer in template:
        return (CALL_TERMS,)
    if TOOL_CALL_TAGS.opener in template:
        if "<function=" in template and "<parameter=" in template:
            return (FUNCTION_ELEMENTS,)
        if "<arg_key>" in template and "<arg_value>" in template:
            return (ARGUMENT_PAIRS,)
        return (TOOL_CALL_TAGS,) if "arguments" in template else ()
    if TOOL_CALLS_BRACKETS.opener in template:
        return (TOOL_CALLS_BRACKETS,)
    if TOOL_CALL_PIPES.opener in template or "<|/tool|>" in template:
        return (TOOL_CALL_PIPES,)
    if '"parameters": ' in template and ("<|start_header_id|>" in template or "<|header_start|>" in template):
        return (PYTHON_TAG, BARE_JSON)
    return ()
