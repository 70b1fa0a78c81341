"""What a template can express is found out by rendering; the real ones are tried in `test_real_templates`."""

from __future__ import annotations

import pytest

from pensieve.prompts.probing import TemplateTraits, ToolTraits, probe
from pensieve.prompts.template import ChatTemplate

ALL = TemplateTraits(has_system=True, has_late_system=True)
LEADING = TemplateTraits(has_system=True, has_late_system=False)
NONE = TemplateTraits(has_system=False, has_late_system=False)

ANY_ORDER = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
SYSTEM_FIRST = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('late') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}"
)
DROPS_SYSTEM = "{% for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endfor %}"
HOISTS_SYSTEM = (
    "{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}"
    "{% for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endfor %}"
)
LISTS = "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("source", "traits"), [(ANY_ORDER, ALL), (SYSTEM_FIRST, LEADING), (DROPS_SYSTEM, NONE), (HOISTS_SYSTEM, LEADING)]
)
def test_what_a_template_can_express_is_found_out(source: str, traits: TemplateTraits) -> None:
    """A template that drops or moves system text counts as one that cannot express it there."""
    assert probe(ChatTemplate(source)) == traits


def test_the_field_for_earlier_thinking_is_read_off_the_template() -> None:
    """There are two names for it."""
    for source, field in (("{{ m.reasoning_content }}", "reasoning_content"), ("{{ message.thinking }}", "thinking")):
        assert probe(ChatTemplate(f"{{% if no %}}{source}{{% endif %}}{ANY_ORDER}")).thinking_field == field


def test_a_template_that_only_takes_lists_is_found_out() -> None:
    """As those of some models that see."""
    assert not probe(ChatTemplate(LISTS)).takes_text
    assert probe(ChatTemplate("no messages at all")).takes_text


TOOLS = "{% for t in tools %}{{ t | tojson }}{% endfor %}"
CALLS = "{% for c in m.tool_calls %}{{ c.function.arguments | tojson }}{% endfor %}"
TAKES_ALL = TOOLS + "{% for m in messages %}[{{ m.role }}]{{ m.content }}" + CALLS + "{% endfor %}"
WAYS = {
    "everything": (TAKES_ALL, ToolTraits()),
    "text for arguments": (
        TAKES_ALL.replace("c.function.arguments | tojson", "'' + c.function.arguments"),
        ToolTraits(takes_json_text=True),
    ),
    "arguments as Python writes them": (
        TAKES_ALL.replace("c.function.arguments | tojson", "c.function.arguments"),
        ToolTraits(takes_json_text=True),
    ),
    "one call": (
        TAKES_ALL.replace(CALLS, "{{ m.tool_calls[0].function.arguments | tojson if m.tool_calls }}"),
        ToolTraits(has_parallel_calls=False),
    ),
    "words apart": (
        TAKES_ALL.replace("{{ m.content }}", "{{ m.content if not m.tool_calls }}"),
        ToolTraits(words="apart"),
    ),
    "words behind": (TAKES_ALL.replace("{{ m.content }}" + CALLS, CALLS + "{{ m.content }}"), ToolTraits("apart")),
    "no user behind a result": (
        TAKES_ALL.replace(
            "[{{ m.role }}]",
            "{{ raise_exception('order') if m.role == 'user' and loop.previtem and loop.previtem.role == 'tool' }}",
        ),
        ToolTraits(takes_user_after_result=False),
    ),
    "no tools": (TAKES_ALL.replace(TOOLS, ""), None),
    "no descriptions": (TAKES_ALL.replace("{{ t | tojson }}", "{{ t.function.name }}"), None),
    "no calls": (TAKES_ALL.replace(CALLS, ""), None),
    "no results": (TAKES_ALL.replace("in messages", "in messages if m.role != 'tool'"), None),
    "tools instead of system text": (
        TAKES_ALL.replace("in messages", "in messages if not (tools and m.role == 'system')"),
        None,
    ),
}


@pytest.mark.parametrize(("source", "tools"), WAYS.values(), ids=WAYS)
def test_how_a_template_takes_tools_is_found_out(source: str, tools: ToolTraits | None) -> None:
    """The best way in which nothing is lost and everything stands in order."""
    assert probe(ChatTemplate(source)).tools == tools


THINKING = "{% set ns.from = loop.index0 if m.role == 'user' else ns.from %}"


def test_a_template_that_forgets_its_thinking_at_the_next_user_message_is_found_out() -> None:
    """In a tool loop, what users say along with results must not cost the thinking before it."""
    scan = "{% set ns = namespace(from=0) %}{% for m in messages %}" + THINKING + "{% endfor %}"
    recent = "{{ m.reasoning_content if loop.index0 > ns.from }}"
    source = scan + TAKES_ALL.replace("{{ m.content }}", recent + "{{ m.content }}")
    traits = probe(ChatTemplate(source)).tools
    assert traits is not None
    assert not traits.takes_user_after_result
