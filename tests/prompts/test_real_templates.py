"""The templates of real families: they render, grow at their end, and tell what their models' output looks like."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from model_outputs import TOOLS, Play
from pensieve.generation import Thinking
from pensieve.inference.parsing.families import dialect_for
from pensieve.inference.parsing.grammar import (
    BARE_JSON,
    CHANNELS,
    PYTHON_TAG,
    THINK_TAGS,
    THOUGHT_CHANNEL,
    TOOL_CALL_TAGS,
    TOOL_CALLS_BRACKETS,
    OutputGrammar,
)
from pensieve.prompts.probing import TemplateTraits, ToolTraits, probe
from pensieve.prompts.prompt import options_for
from pensieve.prompts.template import ChatTemplate
from real_templates import SOURCES, real_template

LLAMA_CALLS = OutputGrammar(calls=(PYTHON_TAG, BARE_JSON))
MISTRAL_CALLS = OutputGrammar(calls=(TOOL_CALLS_BRACKETS,))
TAGGED_CALLS = OutputGrammar(calls=(TOOL_CALL_TAGS,))
JOINS = ToolTraits(takes_user_after_result=False)
"""What users say along with results joins them: else the thinking of the loop would be forgotten."""
THINKS = OutputGrammar(thinking=THINK_TAGS, calls=(TOOL_CALL_TAGS,))


class Family(NamedTuple):
    """What must be true of a template: how a user turn and the answer open, and the rest as its test says."""

    user: str
    answer: str
    grammar: OutputGrammar = TAGGED_CALLS
    has_system: bool = True
    has_late_system: bool = True
    thinking_field: str = ""
    tools: ToolTraits | None = None
    unstable: frozenset[str] = frozenset()
    """Ways to render after which a second turn is not the first one, continued."""


OFF, ON, SYSTEM = "thinking off", "thinking on", "with system text"
EVERY = frozenset({OFF, ON, SYSTEM})

FAMILIES = {
    "phi-3": Family("<|user|>\n", "<|assistant|>\n"),
    "phi-3.5": Family("<|user|>\n", "<|assistant|>\n"),
    "llama-3": Family("user<|end_header_id|>\n\n", "assistant<|end_header_id|>\n\n"),
    "llama-3.1": Family(
        "user<|end_header_id|>\n\n",
        "assistant<|end_header_id|>\n\n",
        LLAMA_CALLS,
        tools=ToolTraits("apart", has_parallel_calls=False),
    ),
    "llama-3.2": Family(
        "user<|end_header_id|>\n\n",
        "assistant<|end_header_id|>\n\n",
        LLAMA_CALLS,
        tools=ToolTraits("apart", has_parallel_calls=False),
    ),
    "qwen-2.5": Family("<|im_start|>user\n", "<|im_start|>assistant\n", TAGGED_CALLS, tools=ToolTraits()),
    "qwen-3": Family(
        "<|im_start|>user\n",
        "<|im_start|>assistant\n",
        OutputGrammar(thinking=THINK_TAGS, calls=(TOOL_CALL_TAGS,)),
        thinking_field="reasoning_content",
        unstable=frozenset({OFF, SYSTEM}),
        tools=JOINS,
    ),
    "qwen-3-2507": Family("<|im_start|>user\n", "<|im_start|>assistant\n", TAGGED_CALLS, tools=ToolTraits()),
    "qwen-3.5": Family(
        "<|im_start|>user\n",
        "<|im_start|>assistant\n",
        THINKS,
        has_late_system=False,
        thinking_field="reasoning_content",
        unstable=EVERY,
        tools=JOINS,
    ),
    "gemma": Family("<start_of_turn>user\n", "<start_of_turn>model\n", has_system=False, has_late_system=False),
    "gemma-3": Family("<start_of_turn>user\n", "<start_of_turn>model\n", has_late_system=False),
    "gemma-4": Family(
        "<|turn>user\n",
        "<|turn>model\n",
        OutputGrammar(thinking=THOUGHT_CHANNEL, calls=(TOOL_CALL_TAGS,)),
        thinking_field="reasoning_content",
        tools=ToolTraits("apart", takes_user_after_result=False),
    ),
    "gpt-oss": Family(
        "<|start|>user<|message|>",
        "<|start|>assistant",
        CHANNELS,
        has_late_system=False,
        thinking_field="thinking",
        tools=ToolTraits(has_parallel_calls=False, takes_words_with_thinking=False),
    ),
    "deepseek-r1": Family("User\uff5c>", "Assistant\uff5c><think>\n", THINKS, has_late_system=False, unstable=EVERY),
    "mistral-1": Family("[INST] ", "[/INST]", has_late_system=False),
    "mistral-3": Family(
        "[INST]",
        "[/INST]",
        MISTRAL_CALLS,
        has_late_system=False,
        unstable=frozenset({SYSTEM}),
        tools=ToolTraits("lost", takes_user_after_result=False),
    ),
    "mistral-7": Family("[INST]", "[/INST]"),
    "chatml": Family("<|im_start|>user\n", "<|im_start|>assistant\n"),
}
families = pytest.mark.parametrize(("name", "family"), FAMILIES.items(), ids=FAMILIES)
Chat = list[dict[str, Any]]


def template(name: str) -> ChatTemplate:
    """The real template, compiled in our sandbox."""
    return ChatTemplate(real_template(name), bos_token="<s>", eos_token="</s>")


def said(*texts: str) -> Chat:
    """A conversation that the user begins."""
    return [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]


@families
def test_a_real_template_renders_turns_behind_their_markers(name: str, family: Family) -> None:
    """Everything that was said, in order, and the answer's opening at the end."""
    text = template(name).render(said("One?", "Two.", "Three?"))
    places = [text.find(mark) for mark in (family.user + "One?", "Two.", family.user + "Three?")]
    assert -1 not in places
    assert places == sorted(places)
    assert family.answer in text[places[-1] :]


@families
def test_what_a_real_template_can_express_is_found_out(name: str, family: Family) -> None:
    """System text in its places, and earlier thinking."""
    traits = TemplateTraits(family.has_system, family.has_late_system, family.thinking_field, tools=family.tools)
    assert probe(template(name)) == traits


@families
def test_the_next_turn_continues_the_prompt_where_the_template_lets_it(name: str, family: Family) -> None:
    """What was computed for one turn serves the next; the templates that rewrite their past are named in the table."""
    unstable = set()
    for way in EVERY:
        system = [{"role": "system", "content": "Be brief."}] if way == SYSTEM and family.has_system else []
        options = options_for(Thinking("enabled") if way == ON else None)
        first = template(name).render(system + said("One?"), options=options)
        second = template(name).render(system + said("One?", "Two.", "Three?"), options=options)
        unstable |= set() if second.startswith(first) else {way}
    assert unstable == family.unstable


@families
def test_the_real_template_tells_the_grammar(name: str, family: Family) -> None:
    """By the markers that it teaches."""
    assert dialect_for(real_template(name), "").grammar == family.grammar


def test_every_template_in_the_list_is_tried() -> None:
    """A new one needs its row."""
    assert FAMILIES.keys() == SOURCES.keys()


CALL = {"function": {"name": "weather", "arguments": {"city": "Paris"}}, "type": "function", "id": "abcdefghi"}
THOUGHT = {"content": "It is sunny.", "thinking": "Look it up.", "reasoning_content": "Look it up."}
CALLED = {"content": "", "tool_calls": [CALL]}
ANSWERS = {
    "gpt-oss thinks": ("gpt-oss", THOUGHT),
    "gpt-oss calls": ("gpt-oss", CALLED | {"thinking": "Look it up."}),
    "qwen-3 thinks": ("qwen-3", THOUGHT),
    "qwen-3 calls": ("qwen-3", CALLED | {"reasoning_content": "Look it up."}),
    "qwen-3.5 thinks": ("qwen-3.5", THOUGHT),
    "qwen-2.5 calls": ("qwen-2.5", CALLED),
    "llama-3.1 calls": ("llama-3.1", CALLED),
    "mistral-3 calls": ("mistral-3", CALLED),
}


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(("name", "answer"), ANSWERS.values(), ids=ANSWERS)
def test_what_a_template_renders_is_parsed_back(name: str, answer: dict[str, Any], size: int) -> None:
    """The answer in the template's own format, from the generation prompt on, gives thinking, text and calls back."""
    options = options_for(Thinking("enabled"))
    prompt = template(name).render(said("Weather?"), options=options)
    whole = template(name).render(
        [*said("Weather?"), {"role": "assistant", **answer}], adds_generation_prompt=False, options=options
    )
    assert whole.startswith(prompt)
    written = whole[len(prompt) :].removesuffix("\n").removesuffix("</s>")
    for end in ("<|im_end|>", "<|eot_id|>"):
        written = written.removesuffix(end)
    grammar = dialect_for(real_template(name), "").grammar.after(prompt, tools=TOOLS)
    played = Play(grammar, [written[at : at + size] for at in range(0, len(written), size)])
    thinks = answer.get("thinking", answer.get("reasoning_content", ""))
    calls = [("weather", {"city": "Paris"})] if answer.get("tool_calls") else []
    assert (played.thinking, played.text, played.calls) == (thinks, answer["content"], calls)
