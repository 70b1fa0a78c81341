"""How one answer is kept on its way, token by token, over a tiny vocabulary and llguidance's own matcher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pensieve.errors import InvalidRequest
from pensieve.generation import GenerationRequest, Thinking, ToolChoice
from pensieve.inference.mlx.courses import Courses
from pensieve.inference.mlx.matching import Vocabulary
from pensieve.inference.mlx.steering import OPENING_TOKENS, Course, Steering
from pensieve.inference.mlx.tokenizer import MlxTokenizer
from pensieve.inference.parsing.grammar import CHANNELS, THINK_TAGS, TOOL_CALL_TAGS, OutputGrammar
from pensieve.messages import ToolSpec, say

TAGS = OutputGrammar(thinking=THINK_TAGS, calls=(TOOL_CALL_TAGS,))
OPEN = OutputGrammar(thinking=THINK_TAGS, calls=(TOOL_CALL_TAGS,), opening="<think>")
DIGIT = {"type": "integer", "minimum": 7, "maximum": 7}
STRICT = ToolSpec("f", {"type": "object", "properties": {"n": DIGIT}, "required": ["n"]}, is_strict=True)


class Talk:
    """A model's answer, said by a test: each piece must be allowed where the steering has something to say."""

    def __init__(self, steering: Steering, tokenizer: MlxTokenizer) -> None:
        self.steering, self.tokenizer = steering, tokenizer
        self.said: list[int] = []

    def may(self, token: int) -> bool:
        """Whether that token may come next."""
        mask = self.steering.allowed()
        return mask is None or bool(mask[token // 8] >> token % 8 & 1)

    def say(self, text: str) -> None:
        """Say the text, token by token."""
        for token in self.tokenizer.encode(text, adds_special=False):
            assert self.may(token), (text, self.tokenizer.token_text(token))
            self.steering.take(token)
            self.said.append(token)

    @property
    def choices(self) -> set[str]:
        """All that may come next."""
        return {self.tokenizer.token_text(token) for token in range(self.tokenizer.num_tokens) if self.may(token)}

    def follow(self) -> str:
        """Say what there is no choice about; that text."""
        text = ""
        while len(choices := self.choices) == 1 and not text.endswith(self.tokenizer.eos_token):
            (only,) = choices
            self.say(only)
            text += only
        return text


class Model:
    """A tokenizer, and the steering of requests to it."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = MlxTokenizer.open(folder)
        self.end = self.tokenizer.encode(self.tokenizer.eos_token, adds_special=False)[0]
        self.courses = Courses(self.tokenizer, self.tokenizer.num_tokens + 5, [self.end])

    def steering(self, grammar: OutputGrammar, **fields: Any) -> Steering | None:
        """For one request."""
        request = GenerationRequest(id="1", model="m", messages=(say("user", "?"),), **fields)
        return self.courses.steering(request, grammar)

    def talk(self, grammar: OutputGrammar, **fields: Any) -> Talk:
        """An answer that is steered."""
        steering = self.steering(grammar, **fields)
        assert steering is not None
        return Talk(steering, self.tokenizer)


@pytest.fixture(scope="module")
def qwen(folder_of: Callable[..., Path]) -> Model:
    """Markers for thinking and calls are single tokens."""
    return Model(folder_of("qwen3"))


@pytest.fixture(scope="module")
def gpt_oss(folder_of: Callable[..., Path]) -> Model:
    """Channels."""
    return Model(folder_of("gpt_oss"))


@pytest.fixture(scope="module")
def plain(folder_of: Callable[..., Path]) -> Model:
    """No markers at all: tags are written in letters."""
    return Model(folder_of("gptj"))


def test_an_answer_that_nothing_binds_is_not_steered(qwen: Model) -> None:
    """Nor is thinking without a budget: such answers cost nothing more than before."""
    assert qwen.steering(TAGS) is None
    assert qwen.steering(TAGS, thinking=Thinking("adaptive")) is None
    assert qwen.steering(OPEN, thinking=Thinking("enabled")) is None
    assert qwen.steering(TAGS, thinking=Thinking("disabled"), tools=(ToolSpec("f", {}),)) is None


def test_a_schema_binds_from_the_first_token_to_the_end(qwen: Model) -> None:
    """Where thinking is off; then only the end may come."""
    talk = qwen.talk(OutputGrammar(), output_schema=DIGIT)
    assert talk.choices == {"7"}
    talk.say("7")
    assert talk.choices == {qwen.tokenizer.eos_token}
    talk.steering.take(qwen.end)
    assert talk.steering.failure is None


@pytest.mark.parametrize("name", ["qwen", "plain"])
def test_thinking_comes_first_and_free_but_cannot_end_the_answer(name: str, request: pytest.FixtureRequest) -> None:
    """Whether its markers are tokens or letters."""
    model: Model = request.getfixturevalue(name)
    talk = model.talk(TAGS, output_schema=DIGIT, thinking=Thinking("enabled"))
    assert talk.choices == {"7", "\n", "<think>" if name == "qwen" else "<"}
    talk.say("<think>so { what </thin")
    assert not talk.may(model.end)
    talk.say("g> and on: <think> </think>")
    assert talk.choices <= {"7", "\n"}
    talk.say("\n\n7")
    assert talk.choices == {model.tokenizer.eos_token}


def test_thinking_that_is_not_begun_is_not_needed(qwen: Model) -> None:
    """The answer itself may come at once."""
    talk = qwen.talk(TAGS, output_schema=DIGIT, thinking=Thinking("adaptive"))
    talk.say("7")
    assert talk.choices == {qwen.tokenizer.eos_token}


@pytest.mark.parametrize("schema", [None, DIGIT])
def test_a_budget_closes_the_thinking(qwen: Model, schema: Any) -> None:
    """After exactly so many tokens, whether the model or the prompt has opened it; then comes the answer."""
    for grammar, opener in ((OPEN, ""), (TAGS, "<think>")):
        talk = qwen.talk(grammar, output_schema=schema, thinking=Thinking("enabled", 3))
        talk.say(opener + "abc"[:2])
        assert len(talk.choices) > 100
        talk.say("c")
        assert talk.follow().startswith("\n</think>\n\n")
        assert (talk.choices == {qwen.tokenizer.eos_token}) == (schema is not None)


def test_thinking_that_ends_in_time_needs_no_closing(qwen: Model) -> None:
    """The budget is not looked at any more."""
    talk = qwen.talk(OPEN, thinking=Thinking("enabled", 4))
    talk.say("ab</think>" + "c" * 10)
    assert talk.steering.allowed() is None


def test_thinking_that_never_begins_is_waited_for_no_longer(qwen: Model) -> None:
    """After a few tokens a marker is text."""
    talk = qwen.talk(TAGS, thinking=Thinking("enabled", 1))
    talk.say("a" * OPENING_TOKENS + "<think>bcd")
    assert talk.steering.allowed() is None


def test_thinking_that_nobody_wanted_is_closed_at_once(qwen: Model) -> None:
    """Where the template has opened it."""
    talk = qwen.talk(OPEN)
    assert talk.follow() == "\n</think>\n\n"
    assert talk.steering.allowed() is None
    bound = qwen.talk(OPEN, output_schema=DIGIT, thinking=Thinking("disabled"))
    assert bound.follow() == f"\n</think>\n\n7{qwen.tokenizer.eos_token}"


def test_channels_think_before_the_bound_message(gpt_oss: Model) -> None:
    """Analysis and final begin with the same marker: both stay open until they part."""
    talk = gpt_oss.talk(CHANNELS, output_schema=DIGIT)
    talk.say("<|channel|>analysis<|message|>Hm.<|end|>")
    talk.say("<|start|>assistant<|channel|>final<|message|>7")
    assert talk.choices == {gpt_oss.tokenizer.eos_token}
    straight = gpt_oss.talk(CHANNELS, output_schema=DIGIT)
    straight.say("<|channel|>final<|message|>7")
    assert straight.choices == {gpt_oss.tokenizer.eos_token}


def test_a_budget_leads_channels_to_the_final_one(gpt_oss: Model) -> None:
    """All blocks share it."""
    talk = gpt_oss.talk(CHANNELS, thinking=Thinking("enabled", 4))
    talk.say("<|channel|>analysis<|message|>ab<|end|>")
    assert talk.steering.allowed() is None
    talk.say("<|start|>assistant<|channel|>analysis<|message|>c")
    assert talk.follow() == "<|end|><|start|>assistant<|channel|>final<|message|>"
    assert talk.steering.allowed() is None


@pytest.mark.parametrize("name", ["qwen", "plain"])
def test_strict_calls_are_bound_from_their_marker_on(name: str, request: pytest.FixtureRequest) -> None:
    """Free text before; a marker in letters ends with a token of its own."""
    model: Model = request.getfixturevalue(name)
    talk = model.talk(TAGS, tools=(STRICT,))
    talk.say("Let me <tool see: <tool_call>")
    assert talk.follow().startswith('\n{"name": "f", "arguments": {"n":')
    talk.say("7}}\n</tool_call>")
    assert talk.choices == {model.tokenizer.eos_token, "\n"}


def test_a_token_that_writes_over_a_marker_s_end_is_left_out(plain: Model) -> None:
    """What begins there would not be bound."""
    vocabulary = Vocabulary(plain.tokenizer, plain.tokenizer.num_tokens, [plain.end])
    token = plain.tokenizer.encode("the", adds_special=False)[0]
    course = Course(triggers=((b"at", tuple(plain.tokenizer.encode("at", adds_special=False))),))
    talk = Talk(Steering(course, vocabulary, vocabulary.matcher('start: "at" "!"')), plain.tokenizer)
    assert talk.may(token)
    talk.say("a")
    assert not talk.may(token)
    talk.say("t")
    assert talk.choices == {"!"}


def test_an_answer_that_stepped_back_is_where_it_was(qwen: Model) -> None:
    """Tokens that nobody heard are forgotten."""
    talk = qwen.talk(TAGS, output_schema=DIGIT, thinking=Thinking("enabled", 50))
    talk.say("<think>ab")
    heard = list(talk.said)
    talk.say("c</think>7")
    talk.steering.restore(heard)
    talk.say("d</think>")
    assert talk.choices == {"7", "\n"}


def test_a_forced_call_goes_on_until_it_is_complete(qwen: Model) -> None:
    """The model has a say only where there is a choice."""
    talk = qwen.talk(OutputGrammar(calls=(TOOL_CALL_TAGS,)), tools=(STRICT,), tool_choice=ToolChoice("any", "", False))
    call = talk.follow()
    talk.say(" 7" if call.endswith(":") else "7")
    assert talk.follow() == f"}}}}\n</tool_call>{qwen.tokenizer.eos_token}"


def test_a_token_against_the_grammar_is_a_failure(qwen: Model) -> None:
    """It cannot come through a mask; if it does, the answer fails and is steered no more."""
    talk = qwen.talk(OutputGrammar(), output_schema=DIGIT)
    talk.steering.take(qwen.tokenizer.encode("8", adds_special=False)[0])
    assert talk.steering.failure is not None
    assert talk.steering.allowed() is None


def test_a_model_without_an_end_is_refused(qwen: Model) -> None:
    """Nothing could end what a grammar has completed."""
    courses = Courses(qwen.tokenizer, qwen.tokenizer.num_tokens, [])
    with pytest.raises(InvalidRequest, match="no token that ends"):
        courses.steering(
            GenerationRequest(id="1", model="m", messages=(say("user", "?"),), output_schema=DIGIT), OutputGrammar()
        )
