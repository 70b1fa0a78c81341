"""The grammar is read off the template's own markers; the real templates are tried in `tests/prompts`."""

from __future__ import annotations

import pytest

from pensieve.inference.parsing.families import Dialect, dialect_for
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
SHOWS_ALL = (
    "{% for t in tools %}{{ t | tojson }}{% endfor %}{% for m in messages %}[{{ m.role }}]{{ m.content }}"
    "{% for c in m.tool_calls %}{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}"
)
ONLY_CLOSER = "content.split('</think>')[-1]"
DROPS_RESULTS = SHOWS_ALL.replace("in messages", "in messages if m.role != 'tool'")
TEMPLATES = {
    "no markers": ("<|im_start|>", TAGGED),
    "channels": ("<|channel|>analysis<|message|>", CHANNELS),
    "only a closer": (ONLY_CLOSER, OutputGrammar(thinking=THINK_TAGS, calls=(TOOL_CALL_TAGS,))),
    "JSON in tags": ('<tool_call>{"name": "", "arguments": {}}</tool_call>', TAGGED),
    "brackets": ("[TOOL_CALLS][calls]", OutputGrammar(calls=(TOOL_CALLS_BRACKETS,))),
    "bare JSON": ('<|start_header_id|>{"name": "", "parameters": {}}', OutputGrammar(calls=(PYTHON_TAG, BARE_JSON))),
    "pipes": ("<|tool|>tools<|/tool|>", OutputGrammar(calls=(TOOL_CALL_PIPES,))),
}


@pytest.mark.parametrize(("markers", "grammar"), TEMPLATES.values(), ids=TEMPLATES)
def test_the_template_tells_the_grammar(markers: str, grammar: OutputGrammar) -> None:
    """By markers that are known for sure; without them the model is asked for the plain format."""
    dialect = dialect_for(f"{{# {markers} #}}{SHOWS_ALL}", "anything")
    assert dialect == Dialect(grammar, has_native_tools=markers not in {TEMPLATES["no markers"][0], ONLY_CLOSER})


@pytest.mark.parametrize("shown", ["{{ messages }}", DROPS_RESULTS, SHOWS_ALL.replace("in tools", "in []")])
def test_a_template_that_loses_tools_or_results_is_found_out(shown: str) -> None:
    """Whatever markers it has: the plain format loses nothing."""
    assert dialect_for(f"{{# [TOOL_CALLS] #}}{shown}", "anything") == Dialect(TAGGED, has_native_tools=False)


def test_the_architecture_only_counts_without_a_template() -> None:
    """A model may be trained to use another template than its family's."""
    assert dialect_for("", "gpt_oss").grammar.style == "channels"
    assert dialect_for("", "gptj") == Dialect(TAGGED, has_native_tools=False)
    assert dialect_for("{{ messages }}", "gpt_oss").grammar == TAGGED
