"""The templates of real families: they render, grow at their end, and tell what their models' output looks like."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from model_outputs import Play
from pensieve.generation import GenerationRequest, Thinking
from pensieve.inference.parsing.families import dialect_for
from pensieve.inference.parsing.grammar import (
    ARGUMENT_PAIRS,
    BARE_JSON,
    CALL_TERMS,
    CHANNELS,
    FUNCTION_ELEMENTS,
    PYTHON_TAG,
    THINK_TAGS,
    THOUGHT_CHANNEL,
    TOOL_CALL_TAGS,
    TOOL_CALLS_BRACKETS,
    OutputGrammar,
)
from pensieve.messages import Message, TextPart, ThinkingPart, ToolCallPart, ToolResultPart, ToolSpec, say
from pensieve.prompts.probing import TemplateTraits, ToolTraits, probe
from pensieve.prompts.prompt import PromptRenderer, options_for
from pensieve.prompts.template import ChatTemplate
from real_templates import SOURCES, real_template

LLAMA_CALLS = OutputGrammar(calls=(PYTHON_TAG, BARE_JSON))
MISTRAL_CALLS = OutputGrammar(calls=(TOOL_CALLS_BRACKETS,))
TAGGED_CALLS = OutputGrammar(calls=(TOOL_CALL_TAGS,))
JOINS = ToolTraits(takes_user_after_result=False)
"""What users say along with results joins them: else the thinking of the loop would be forgotten."""
THINKS = OutputGrammar(thinking=THINK_TAGS, calls=(TOOL_CALL_TAGS,))
ELEMENTS = OutputGrammar(thinking=THINK_TAGS, calls=(FUNCTION_ELEMENTS,))
PAIRS = OutputGrammar(thinking=THINK_TAGS, calls=(ARGUMENT_PAIRS,))
TERMS = OutputGrammar(thinking=THOUGHT_CHANNEL, calls=(CALL_TERMS,))


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
        ELEMENTS,
        has_late_system=False,
        thinking_field="reasoning_content",
        unstable=EVERY,
        tools=JOINS,
    ),
    "qwen-3.6": Family(
        "<|im_start|>user\n",
        "<|im_start|>assistant\n",
        ELEMENTS,
        has_late_system=False,
        thinking_field="reasoning_content",
        tools=JOINS,
        unstable=EVERY,
    ),
    "glm-4.5": Family("<|user|>\n", "<|assistant|>", PAIRS, thinking_field="reasoning_content", tools=JOINS),
    "nemotron-3": Family(
        "<|im_start|>user\n",
        "<|im_start|>assistant\n",
        ELEMENTS,
        thinking_field="reasoning_content",
        tools=JOINS,
        unstable=frozenset({ON}),
    ),
    "gemma": Family("<start_of_turn>user\n", "<start_of_turn>model\n", has_system=False, has_late_system=False),
    "gemma-3": Family("<start_of_turn>user\n", "<start_of_turn>model\n", has_late_system=False),
    "gemma-4": Family(
        "<|turn>user\n",
        "<|turn>model\n",
        TERMS,
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


ARGUMENTS = {"city": "Paris", "days": 3, "hours": [6, 18], "is_exact": True, "note": 'a "b"\n<c>'}
FORECAST = ToolSpec(
    "weather",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "hours": {"type": "array"},
            "is_exact": {"type": "boolean"},
            "note": {"type": "string"},
        },
    },
    "Tells the weather.",
)
ASKED = say("user", "Weather?")
SAID = Message("assistant", (ThinkingPart("Look it up."), TextPart("It is sunny.")))
CALLED = Message("assistant", (ThinkingPart("Look it up."), ToolCallPart("t1", "weather", ARGUMENTS)))
TWICE = Message("assistant", (ToolCallPart("t1", "weather", ARGUMENTS), ToolCallPart("t2", "weather", {"city": "B"})))
RESULT = Message("user", (ToolResultPart("t1", (TextPart("20 degrees"),)), ToolResultPart("t2", (TextPart("Rain"),))))
THINKERS = ("gpt-oss", "glm-4.5", "qwen-3", "qwen-3.5", "qwen-3.6", "nemotron-3", "gemma-4")
CALLERS = tuple(name for name, family in FAMILIES.items() if family.tools is not None)


class Letters:
    """One token a character; no markers."""

    def encode(self, text: str, *, adds_special: bool = True) -> list[int]:
        """See `Tokenizer.encode`."""
        assert adds_special
        return [ord(character) for character in text]


def rendered(name: str, *messages: Message, is_thinking: bool = True) -> str:
    """What our own renderer makes of a conversation with a tool."""
    native = dialect_for(real_template(name), "").has_native_tools
    renderer = PromptRenderer(template(name), Letters(), added_bos="", has_native_tools=native)
    thinking = Thinking("enabled") if is_thinking else None
    request = GenerationRequest(id="1", model="m", messages=messages, tools=(FORECAST,), thinking=thinking)
    return "".join(map(chr, renderer.render(request)))


ENDS = ("<|im_end|>", "<|eot_id|>", "</s>", "<|tool_response>", "<|observation|>", "<|start|>functions")


def written_by(name: str, answer: Message, *, is_thinking: bool) -> tuple[str, str]:
    """The prompt, and the answer as the template writes it behind."""
    prompt = rendered(name, ASKED, is_thinking=is_thinking)
    whole = rendered(name, ASKED, answer, RESULT, is_thinking=is_thinking)
    assert whole.startswith(prompt)
    written = whole[len(prompt) :]
    return prompt, written[: min(place for end in ENDS if (place := written.find(end)) >= 0)]


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("name", CALLERS)
def test_a_call_that_a_template_renders_is_parsed_back(name: str, size: int) -> None:
    """In the family's own markup, with every type of argument, from the generation prompt on."""
    is_thinking = name in THINKERS
    prompt, written = written_by(name, CALLED, is_thinking=is_thinking)
    grammar = dialect_for(real_template(name), "").grammar.after(prompt[-256:], tools=(FORECAST,))
    played = Play(grammar, [written[at : at + size] for at in range(0, len(written), size)])
    assert played.calls == [("weather", ARGUMENTS)]
    assert played.text.strip() == ""
    assert played.thinking == ("Look it up." if is_thinking else "")


@pytest.mark.parametrize("name", CALLERS)
def test_results_follow_their_calls_in_a_real_template(name: str) -> None:
    """Two calls of one turn, each with its result; then the conversation goes on."""
    text = rendered(name, ASKED, TWICE, RESULT, say("assistant", "Hot."), say("user", "Thanks!"))
    marks = ("Tells the weather.", "Weather?", "Paris", "20 degrees", "Rain", "Hot.", "Thanks!")
    places = [text.rfind(mark) if mark == "Weather?" else text.find(mark) for mark in marks]
    assert -1 not in places
    assert places[2:] == sorted(places[2:])
    assert text.count("20 degrees") == text.count("Rain") == 1


@pytest.mark.parametrize("name", CALLERS)
def test_a_tool_loop_continues_its_prompt_in_a_real_template(name: str) -> None:
    """What was read before a call serves the turn behind its result, thinking on or off."""
    for is_thinking in (True, False):
        turn = rendered(name, ASKED, CALLED, Message("user", RESULT.parts[:1]), is_thinking=is_thinking)
        reminded = Message("user", (*RESULT.parts[:1], TextPart("Be brief.")))
        after = rendered(name, ASKED, CALLED, reminded, is_thinking=is_thinking)
        assert after.startswith(turn[: turn.index("20 degrees") + len("20 degrees")])


@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_that_was_begun_goes_on_in_a_real_template(name: str) -> None:
    """Its words are the prompt's last, in the place where an answer stands."""
    text = rendered(name, ASKED, say("assistant", "The sky is "), is_thinking=False)
    assert text.endswith("The sky is")
    grammar = dialect_for(real_template(name), "").grammar.after(text[-256:], tools=())
    assert Play(grammar, [" blue."]).text == " blue."
