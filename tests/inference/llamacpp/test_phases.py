"""When thinking ends, when a rule begins, and what is put between them, however the text is cut."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.inference.llamacpp.phases import Phases, Verdict
from pensieve.inference.parsing.grammar import CHANNELS, THINK_TAGS, OutputGrammar

TAGS = OutputGrammar(thinking=THINK_TAGS)
OPENED = OutputGrammar(thinking=THINK_TAGS, opening="<think>")


def phases(
    grammar: OutputGrammar = OPENED,
    *,
    wanted: bool = True,
    budget: int | None = None,
    bound: bool = True,
    triggers: tuple[str, ...] = (),
) -> Phases:
    """The phases of one answer."""
    return Phases(grammar, is_thinking_wanted=wanted, budget_tokens=budget, is_bound=bound, triggers=triggers)


def played(following: Phases, *pieces: str) -> tuple[str, str, bool]:
    """What a parser reads, what stays of the text, and whether a rule holds then; one token a piece."""
    shown = kept = ""
    for piece in pieces:
        verdict = following.take(piece, 1)
        shown += verdict.shown
        kept = (kept + piece)[: len(kept + piece) - verdict.cut_characters] + verdict.put
        if verdict.is_over:
            break
    return shown, kept, following.is_ruled


@given(st.lists(st.integers(1, 9), max_size=6))
def test_the_rule_begins_right_after_the_closer(cuts: list[int]) -> None:
    """What the model said behind it is taken back; nothing is lost before it."""
    text, pieces = "I think.</think>{no", []
    for cut in cuts:
        pieces.append(text[:cut])
        text = text[cut:]
    shown, kept, is_ruled = played(phases(), *filter(None, [*pieces, text]))
    assert shown == kept == "I think.</think>"
    assert is_ruled


@given(st.integers(1, 7))
def test_a_model_that_opens_its_thinking_itself_may_think(cut: int) -> None:
    """Then the rule waits for the end."""
    text = "<think>Hm.</think>"
    shown, kept, is_ruled = played(phases(TAGS), text[:cut], text[cut:])
    assert (shown, kept, is_ruled) == (text, text, True)


def test_a_model_that_does_not_think_obeys_from_its_first_token() -> None:
    """What it said freely is forgotten, and no parser has read it."""
    assert played(phases(TAGS), "<", "the", " answer") == ("", "", True)


def test_blank_text_behind_the_closer_stays() -> None:
    """Rules allow for it."""
    assert played(phases(), "Hm.</think>\n\n")[1] == "Hm.</think>\n\n"


def test_a_budget_closes_the_thinking() -> None:
    """At that very token, and the answer goes on."""
    following = phases(budget=3, bound=False)
    shown, kept, is_ruled = played(following, "a", "b", "c", "d")
    assert shown == kept == "abc\n</think>\n\n"
    assert not is_ruled
    assert following.take("text", 1) == Verdict("text")


def test_thinking_a_second_time_uses_the_same_budget() -> None:
    """Or a model would never get to its answer."""
    following = phases(budget=3, bound=False)
    assert played(following, "a", "b</think>x", "<think>", "c")[1].endswith("c\n</think>\n\n")


@pytest.mark.parametrize("bound", [True, False])
def test_thinking_that_nobody_wants_is_closed_before_it_begins(bound: bool) -> None:
    """Where the prompt opened it; elsewhere nothing is put."""
    assert phases(wanted=False, bound=bound).opening == "\n</think>\n\n"
    assert phases(TAGS, wanted=False, bound=bound).opening == ""
    assert phases(wanted=False, bound=bound).is_ruled == bound


def test_a_turn_that_ends_in_thinking_still_owes_its_answer() -> None:
    """To a rule; without one it has ended."""
    following = phases()
    following.take("Hm", 1)
    assert following.end() == Verdict("\n</think>\n\n", is_over=True, put="\n</think>\n\n")
    assert phases(bound=False).end() == Verdict("")
    assert phases(TAGS).end().is_over


def test_channels_think_in_one_and_answer_in_another() -> None:
    """The rule begins with the next channel."""
    grammar = msgspec.structs.replace(CHANNELS, opening="<|start|>assistant")
    text = "<|channel|>analysis<|message|>Hm.<|end|>"
    assert played(phases(grammar), text, "<|start|>") == (text, text, True)
    limited = phases(grammar, budget=2, bound=False)
    assert played(limited, "<|channel|>", "analysis", "<|message|>", "Hm")[1].endswith("<|end|><|start|>assistant")


def test_models_without_thinking_have_one_phase() -> None:
    """Whatever was asked for."""
    plain = phases(OutputGrammar(), budget=1)
    assert plain.is_ruled
    assert plain.take("text", 5) == Verdict("text")
