"""Free text until a trigger: nothing is shown twice or lost, whatever the cuts, and thinking triggers nothing."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.inference.llamacpp.phases import Phases
from pensieve.inference.parsing.grammar import CHANNELS, THINK_TAGS, OutputGrammar

CALL = "<tool_call>"
TO = " to=functions."
TAGS = OutputGrammar(thinking=THINK_TAGS)
OPENED = OutputGrammar(thinking=THINK_TAGS, opening="<think>")
HARMONY = msgspec.structs.replace(CHANNELS, opening="<|start|>assistant")
PIECES = st.lists(st.sampled_from(["<", "tool", "_call", ">", "<think>", "</think>", "<tool_call", "a", " ", "\n"]))


def played(phases: Phases, pieces: list[str]) -> tuple[str, str]:
    """What a parser reads before the rule, and what stays of the text."""
    shown = kept = ""
    for piece in pieces:
        verdict = phases.take(piece, 1)
        shown += verdict.shown
        kept = (kept + piece)[: len(kept + piece) - verdict.cut_characters] + verdict.put
        if phases.is_ruled:
            assert verdict.is_over
            break
    return shown, kept


def watching(grammar: OutputGrammar, *triggers: str, wanted: bool = False, budget: int | None = None) -> Phases:
    """The phases of an answer that is free up to one of the triggers."""
    return Phases(grammar, is_thinking_wanted=wanted, budget_tokens=budget, is_bound=True, triggers=triggers)


def cut(text: str, sizes: list[int]) -> list[str]:
    """The text in pieces."""
    pieces = []
    for size in sizes:
        pieces.append(text[:size])
        text = text[size:]
    return [piece for piece in [*pieces, text] if piece]


SIZES = st.lists(st.integers(1, 9), max_size=40)


@given(PIECES)
def test_nothing_is_lost_or_shown_twice(pieces: list[str]) -> None:
    """Up to the first trigger outside of thinking, or to the end."""
    phases, text = watching(OutputGrammar(), CALL), "".join(pieces)
    shown, kept = played(phases, pieces)
    assert shown == kept if phases.is_ruled else (shown + phases.rest(), kept) == (text, text)
    assert phases.is_ruled == (CALL in text)
    assert shown == text.partition(CALL)[0] if phases.is_ruled else True


@given(SIZES, st.sampled_from(["", "\n", "Let me look. ", "<tool_cal <", "</think>"]))
def test_the_run_is_cut_in_front_of_the_trigger(sizes: list[int], before: str) -> None:
    """What the model said behind it is taken back, for the rule writes it."""
    phases = watching(TAGS, CALL)
    assert played(phases, cut(f"{before}{CALL}\n{{no", sizes)) == (before, before)
    assert phases.is_ruled
    assert phases.take("<tool_call>\n<tool_call>", 1).shown == "<tool_call>\n<tool_call>"


@given(SIZES, st.booleans())
def test_a_trigger_inside_thinking_is_thinking(sizes: list[int], is_open: bool) -> None:
    """Whether the prompt opened it or the model."""
    thought = f"{'' if is_open else ' <think>'}I could {CALL} or not.</think>\n"
    phases = watching(OPENED if is_open else TAGS, CALL, wanted=is_open)
    assert played(phases, cut(f"{thought}{CALL}", sizes)) == (thought, thought)
    assert phases.is_ruled


@given(SIZES)
def test_thinking_begins_at_the_front_only(sizes: list[int]) -> None:
    """As the parser has it: behind text the mark is text."""
    phases = watching(TAGS, CALL)
    assert played(phases, cut(f"The mark <think> and {CALL}", sizes))[0] == "The mark <think> and "
    assert phases.is_ruled


@given(SIZES)
def test_a_header_triggers_and_what_is_said_does_not(sizes: list[int]) -> None:
    """In channels."""
    said = f"<|channel|>analysis<|message|>I go{TO}x<|end|><|start|>assistant<|channel|>final<|message|>Not{TO}x."
    silent = watching(HARMONY, TO)
    shown, _ = played(silent, cut(said, sizes))
    assert (shown + silent.rest(), silent.is_ruled) == (said, False)
    phases, calling = watching(HARMONY, TO), f"{said}<|end|><|start|>assistant<|channel|>commentary"
    assert played(phases, cut(f"{calling}{TO}x", sizes)) == (calling, calling)
    assert phases.is_ruled


def test_a_budget_ends_the_thinking_and_the_watch_goes_on() -> None:
    """Both may cut."""
    phases = watching(OPENED, CALL, wanted=True, budget=2)
    shown, kept = played(phases, ["I ", f"{CALL} ", "so", "<tool", "_call>"])
    assert shown == kept == f"I {CALL} \n</think>\n\nso"
    assert phases.is_ruled


@pytest.mark.parametrize("wanted", [True, False])
def test_text_without_a_trigger_has_one_phase(wanted: bool) -> None:
    """Also after thinking: nothing is owed."""
    phases = watching(TAGS, CALL, wanted=wanted)
    assert played(phases, ["<think>", "Hm</think>", "Yes <tool"])[0] == "<think>Hm</think>Yes "
    assert (phases.rest(), phases.end().is_over, phases.is_ruled) == ("<tool", False, False)
