"""The grammar is read off the template's own markers; the real templates are tried in `tests/prompts`."""

from __future__ import annotations

import pytest

from pensieve.inference.parsing.families import dialect_for
from pensieve.inference.parsing.grammar import (
    BARE_JSON,
    CHANNELS,
    PYTHON_TAG,
    THINK_TAGS,
    TOOL_CALL_PIPES,
    TOOL_CALL_TAGS,
    TOOL_CALLS_BRACKETS,
    OutputGrammar,
)

TAGGED = OutputGrammar(calls=(TOOL_CALL_TAGS,))
"""Of the plain format too."""
TEMPLATES = {
    "no markers": ("<|im_start|>{{ messages }}<|im_end|>", TAGGED),
    "channels": ("<|channel|>analysis<|message|>", CHANNELS),
    "only a closer": (
        "{{ content.split('</think>')[-1] }}",
        OutputGrammar(thinking=THINK_TAGS, calls=(TOOL_CALL_TAGS,)),
    ),
    "JSON in tags": ('<tool_call>{"name": "", "arguments": {}}</tool_call>', OutputGrammar(calls=(TOOL_CALL_TAGS,))),
    "arguments as tags": ("<tool_call><function=a>{{ arguments }}</tool_call>", TAGGED),
    "brackets": ("[TOOL_CALLS][{{ calls }}]", OutputGrammar(calls=(TOOL_CALLS_BRACKETS,))),
    "bare JSON": ('<|start_header_id|>{"name": "", "parameters": {}}', OutputGrammar(calls=(PYTHON_TAG, BARE_JSON))),
    "pipes": ("<|tool|>{{ tools }}<|/tool|>", OutputGrammar(calls=(TOOL_CALL_PIPES,))),
}


@pytest.mark.parametrize(("template", "grammar"), TEMPLATES.values(), ids=TEMPLATES)
def test_the_template_tells_the_grammar(template: str, grammar: OutputGrammar) -> None:
    """Markup that is not known for sure is none: it stays text."""
    assert dialect_for(template, "anything").grammar == grammar


def test_the_architecture_only_counts_without_a_template() -> None:
    """A model may be trained to use another template than its family's."""
    assert dialect_for("", "gpt_oss").grammar == CHANNELS
    assert dialect_for("", "gptj").grammar == TAGGED
    assert dialect_for("{{ messages }}", "gpt_oss").grammar == TAGGED
