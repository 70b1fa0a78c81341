"""What models of each family write, in their own markup, with what must come of it; and a way to play it.

The texts are made up here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from pensieve.generation import Collector, GenerationEvent
from pensieve.inference.parsing.grammar import (
    ARGUMENT_PAIRS,
    BARE_JSON,
    CALL_TERMS,
    CHANNELS,
    FUNCTION_ELEMENTS,
    PLAIN,
    PYTHON_TAG,
    THINK_BRACKETS,
    THINK_TAGS,
    THOUGHT_CHANNEL,
    TOOL_CALL_PIPES,
    TOOL_CALL_TAGS,
    TOOL_CALLS_BRACKETS,
    OutputGrammar,
)
from pensieve.inference.parsing.parser import OutputParser
from pensieve.messages import Part, TextPart, ThinkingPart, ToolCallPart, ToolSpec

HERMES = OutputGrammar(thinking=THINK_TAGS, calls=(TOOL_CALL_TAGS,))
MISTRAL = OutputGrammar(thinking=THINK_BRACKETS, calls=(TOOL_CALLS_BRACKETS,))
LLAMA = OutputGrammar(calls=(PYTHON_TAG, BARE_JSON))
PHI = OutputGrammar(calls=(TOOL_CALL_PIPES,))
TOOLS = (
    ToolSpec(
        "weather",
        {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "hours": {"type": "array"}},
        },
    ),
    ToolSpec("a", {"type": "object"}),
    ToolSpec("b", {"type": "object"}),
)
HARMONY = CHANNELS.after("<|end|><|start|>assistant", tools=TOOLS)

ELEMENTS = OutputGrammar(thinking=THINK_TAGS, calls=(FUNCTION_ELEMENTS,)).after("", tools=TOOLS)
PAIRS = OutputGrammar(thinking=THINK_TAGS, calls=(ARGUMENT_PAIRS,)).after("", tools=TOOLS)
TERMS = OutputGrammar(thinking=THOUGHT_CHANNEL, calls=(CALL_TERMS,)).after("", tools=TOOLS)
PLAIN_HARMONY = msgspec.structs.replace(HARMONY, calls=(TOOL_CALL_TAGS,))

PARIS = {"city": "Paris"}


class Transcript(NamedTuple):
    """One answer as the model writes it, and what it says."""

    grammar: OutputGrammar
    written: str
    thinking: str = ""
    text: str = ""
    calls: tuple[tuple[str, object], ...] = ()


TRANSCRIPTS = {
    "plain": Transcript(PLAIN, " Paris, <think> of it.\n", text=" Paris, <think> of it.\n"),
    "thinking": Transcript(HERMES, "<think>\nIs it\n\nhot?\n</think>\n\nYes < no.", "Is it\n\nhot?", "Yes < no."),
    "thinking opened by the prompt": Transcript(
        HERMES.after("assistant\n<think>\n", tools=TOOLS), "Hm.\n</think>\n\nYes.", "Hm.", "Yes."
    ),
    "empty thinking": Transcript(HERMES, "<think>\n\n</think>\n\nYes.", text="Yes."),
    "an answer about the tags": Transcript(HERMES, "Use <think> and </think>.", text="Use <think> and </think>."),
    "bracketed thinking": Transcript(MISTRAL, "[THINK]Hm.[/THINK]Yes.", "Hm.", "Yes."),
    "two calls in tags": Transcript(
        HERMES,
        '<think>\nLook\n</think>\n\nLet me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n'
        '</tool_call>\n<tool_call>\n{"arguments": {"a": ["}", "\\"]"]}, "name": "b"}\n</tool_call>',
        "Look",
        "Let me see.",
        (("weather", PARIS), ("b", {"a": ["}", '"]']})),
    ),
    "two calls in one tag": Transcript(
        HERMES,
        '<tool_call>\n{"name": "a", "arguments": {}}\n{"name": "b"}\n</tool_call>',
        calls=(("a", {}), ("b", {})),
    ),
    "a call without its last brace": Transcript(
        HERMES, '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}', calls=(("weather", PARIS),)
    ),
    "a list of calls": Transcript(
        MISTRAL,
        'So:[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}, "id": "a1"}, '
        '{"name": "b", "arguments": {}}]',
        text="So:",
        calls=(("weather", PARIS), ("b", {})),
    ),
    "named calls": Transcript(
        MISTRAL,
        '[TOOL_CALLS]weather[ARGS]{"city": "Paris"}[TOOL_CALLS]b[CALL_ID]123456789[ARGS]{}',
        calls=(("weather", PARIS), ("b", {})),
    ),
    "a bare call": Transcript(
        LLAMA, '{"name": "weather", "parameters": {"city": "Paris"}}', calls=(("weather", PARIS),)
    ),
    "two calls behind a python tag": Transcript(
        LLAMA,
        '<|python_tag|>{"name": "weather", "parameters": {"city": "Paris"}}; {"name": "b", "parameters": {}}',
        calls=(("weather", PARIS), ("b", {})),
    ),
    "JSON that is an answer": Transcript(LLAMA, '{"name": "Bob", "age": 3}', text='{"name": "Bob", "age": 3}'),
    "a list between pipes": Transcript(
        PHI,
        '<|tool_call|>[{"name": "weather", "arguments": {"city": "Paris"}}]<|/tool_call|>',
        calls=(("weather", PARIS),),
    ),
    "channels": Transcript(
        HARMONY,
        "<|channel|>analysis<|message|>Hm <1.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
        "Hm <1.",
        "Yes.",
    ),
    "channels, the call in the channel": Transcript(
        HARMONY,
        "<|channel|>analysis<|message|>Look<|end|><|start|>assistant<|channel|>commentary to=functions.weather "
        '<|constrain|>json<|message|>{"city": "Paris"}<|call|>',
        "Look",
        calls=(("weather", PARIS),),
    ),
    "channels, the call in the role": Transcript(
        HARMONY,
        ' to=functions.weather<|channel|>commentary json<|message|>{"city": "Paris"}<|call|>',
        calls=(("weather", PARIS),),
    ),
    "channels, a preamble and a call without arguments": Transcript(
        HARMONY,
        "<|channel|>commentary<|message|>Let me see.<|end|><|start|>assistant to=functions.b<|channel|>commentary json"
        "<|message|><|call|>",
        text="Let me see.",
        calls=(("b", {}),),
    ),
    "channels, an end left out": Transcript(
        HARMONY, "<|channel|>analysis<|message|>Hm<|channel|>final<|message|>Yes.", "Hm", "Yes."
    ),
    "channels, a body that is not marked": Transcript(
        HARMONY,
        "<|channel|>analysis We should<|end|><|start|>assistant<|channel|>final<|message|>Yes.",
        "We should",
        "Yes.",
    ),
    "channels, none used": Transcript(HARMONY, "To be, a<b.", text="To be, a<b."),
    "channels, one that nobody knows": Transcript(HARMONY, "<|channel|>aside<|message|>Oh.<|end|>", text="Oh."),
    "channels, a header without end": Transcript(
        HARMONY, "<|channel|>final " + "word " * 100 + "<|end|>", text="word " * 100
    ),
    "channels, a call in the plain format": Transcript(
        PLAIN_HARMONY,
        "<|channel|>analysis<|message|>Look<|end|><|start|>assistant<|channel|>final<|message|>"
        "Let me see.\n<tool_call>\n"
        '{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call><|end|>'
        "<|start|>assistant<|channel|>final<|message|>So <tool<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>!<|end|>",
        "Look!",
        "Let me see.So <tool",
        (("weather", PARIS),),
    ),
    "terms, thinking opened by the prompt": Transcript(
        TERMS.after("<tool_response|><|channel>thought\n", tools=TOOLS), "Hm.\n<channel|>Yes.", "Hm.", "Yes."
    ),
    "elements": Transcript(
        ELEMENTS,
        "<think>\nLook\n</think>\n\nLet me see.\n\n<tool_call>\n<function=weather>\n<parameter=city>\n  Paris\n\n"
        "</parameter>\n<parameter=days>\n3\n</parameter>\n<parameter=hours>\n[6,\n18]\n</parameter>\n</function>\n"
        "</tool_call>\n<tool_call>\n<function=a>\n</function>\n</tool_call>",
        "Look",
        "Let me see.",
        (("weather", {"city": "  Paris\n", "days": 3, "hours": [6, 18]}), ("a", {})),
    ),
    "elements in one line": Transcript(
        ELEMENTS,
        "<tool_call><function=weather><parameter=city>Paris</parameter></function></tool_call>",
        calls=(("weather", PARIS),),
    ),
    "elements that hold their own closers": Transcript(
        ELEMENTS,
        '<tool_call>\n<function=weather>\n<parameter=city>\n</parameter>\n</function > "x"\n</parameter>\n</function>'
        "\n</tool_call>",
        calls=(("weather", {"city": '</parameter>\n</function > "x"'}),),
    ),
    "elements without their last closers": Transcript(
        ELEMENTS,
        "<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n</tool_call>",
        calls=(("weather", PARIS),),
    ),
    "JSON in place of elements": Transcript(
        ELEMENTS,
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>',
        calls=(("weather", PARIS),),
    ),
    "a tool whose name is written in another way": Transcript(
        ELEMENTS, "<tool_call><function=Weather></function></tool_call>", calls=(("weather", {}),)
    ),
    "pairs": Transcript(
        PAIRS,
        "<think></think>\nSo\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Paris\n </arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\n<tool_call>a\n</tool_call><tool_call>b</tool_call>",
        text="So",
        calls=(("weather", {"city": "Paris\n ", "days": 3}), ("a", {}), ("b", {})),
    ),
    "terms": Transcript(
        TERMS,
        'So<|tool_call>call:weather{city:<|"|>Pa"r\nis<|"|>,days:3,hours:[6,{<|"|>a b<|"|>:true,c:[]},-1.5]}'
        "<tool_call|><|tool_call>call:a{}<tool_call|>",
        text="So",
        calls=(("weather", {"city": 'Pa"r\nis', "days": 3, "hours": [6, {"a b": True, "c": []}, -1.5]}), ("a", {})),
    ),
}

BROKEN_CALLS = {
    "not JSON": (HERMES, "So\n<tool_call>\n{oops}\n</tool_call> and on"),
    "not JSON inside": (HERMES, 'So\n<tool_call>\n{"name": "a", "arguments": {"b": oops}}\n</tool_call>'),
    "no object": (HERMES, '<tool_call>\n{"name": "a", "arguments": [1]}\n</tool_call>'),
    "no name": (HERMES, '<tool_call>\n{"arguments": {}}\n</tool_call>'),
    "name twice": (HERMES, '<tool_call>{"name": "a", "name": "b", "arguments": {}}</tool_call>'),
    "a name that is none": (HERMES, '<tool_call>{"name": "a b", "arguments": {}}</tool_call>'),
    "cut in the arguments": (HERMES, '<tool_call>\n{"name": "a", "arguments": {"b": "c'),
    "cut in the name": (HERMES, '<tool_call>\n{"name": "a'),
    "a question": (MISTRAL, "[TOOL_CALLS] what is it?"),
    "code": (LLAMA, "<|python_tag|>print({1: 2})"),
    "nothing behind the opener": (PHI, "<|tool_call|>"),
    "elements of no tool": (ELEMENTS, "<tool_call>\n<function=other>\n</function>\n</tool_call>"),
    "JSON of no tool": (ELEMENTS, '<tool_call>\n{"name": "other", "arguments": {}}\n</tool_call>'),
    "elements, a key twice": (
        ELEMENTS,
        "<tool_call><function=a><parameter=b>c</parameter><parameter=b>c</parameter></function></tool_call>",
    ),
    "elements, cut": (ELEMENTS, "So\n<tool_call>\n<function=a>\n<parameter=b>\nc\n</param"),
    "elements, a question": (ELEMENTS, "<tool_call> what is it?"),
    "pairs, a question": (PAIRS, "<tool_call>what is it?"),
    "pairs, cut in the name": (PAIRS, "<tool_call>wea"),
    "terms, no value": (TERMS, "<|tool_call>call:a{b:}<tool_call|>"),
    "terms, nested deeply": (TERMS, "<|tool_call>call:a{b:" + "[" * 99 + "]" * 99 + "}<tool_call|>"),
    "terms, cut": (TERMS, '<|tool_call>call:a{b:<|"|>c<|"'),
    "nested deeply": (HERMES, '<tool_call>{"name": "a", "arguments": {"b": ' + "[" * 30_000 + "]" * 30_000 + "}}"),
}
"""Grammar, and text that must come out just as it is."""


class Play:
    """What a parser made of the pieces: the events, the parts they add up to, and how it ended."""

    def __init__(
        self, grammar: OutputGrammar, pieces: Iterable[str], stop: tuple[str, ...] = (), *, is_cut: bool = False
    ) -> None:
        ids = (f"call{number}" for number in itertools.count(1))
        parser = OutputParser(grammar, new_call_id=lambda: next(ids), stop=stop)
        self.events: list[GenerationEvent] = [event for piece in pieces for event in parser.feed(piece)]
        self.events += parser.flush(is_cut=is_cut)
        collector = Collector()
        for event in self.events:
            collector.add(event)
        self.parts: tuple[Part, ...] = collector.message.parts
        self.ending = (parser.matched_stop, parser.finish_hint)

    @property
    def text(self) -> str:
        """All visible text."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def thinking(self) -> str:
        """All thinking."""
        return "".join(part.text for part in self.parts if isinstance(part, ThinkingPart))

    @property
    def calls(self) -> list[tuple[str, object]]:
        """Name and arguments of each call."""
        return [(part.name, part.arguments) for part in self.parts if isinstance(part, ToolCallPart)]
