"""Conversations shaped for templates that can express less."""

from __future__ import annotations

import pytest

from pensieve.errors import InvalidRequest
from pensieve.messages import ImagePart, Message, TextPart, ThinkingPart, say
from pensieve.prompts.normalize import TemplateTraits, probe, to_chat
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


@pytest.mark.parametrize(
    ("source", "traits"), [(ANY_ORDER, ALL), (SYSTEM_FIRST, LEADING), (DROPS_SYSTEM, NONE), (HOISTS_SYSTEM, LEADING)]
)
def test_what_a_template_can_express_is_found_out(source: str, traits: TemplateTraits) -> None:
    """A template that drops or moves system text counts as one that cannot express it there."""
    assert probe(ChatTemplate(source)) == traits


def test_system_text_stays_in_its_place_where_it_can() -> None:
    """The conversation reaches the template as it was said."""
    talk = (say("system", "S"), say("user", "a"), say("system", "T"), say("user", "b"))
    assert [message["role"] for message in to_chat(talk, ALL)] == ["system", "user", "system", "user"]


def test_late_system_text_joins_the_user_turn_marked_as_what_it_is() -> None:
    """In its place, so that the prefix before it stays the same."""
    talk = (say("system", "S"), say("user", "a"), say("system", "T"), say("user", "b"))
    shaped = to_chat(talk, LEADING)
    assert shaped == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "a\n\n<system>\nT\n</system>\n\nb"},
    ]


def test_a_template_without_system_gets_it_in_the_first_user_turn() -> None:
    """Nothing that was said is dropped."""
    shaped = to_chat((say("system", "S"), say("user", "a")), NONE)
    assert shaped == [{"role": "user", "content": "<system>\nS\n</system>\n\na"}]


def test_earlier_thinking_is_not_rendered() -> None:
    """Most templates take what was said, not what was thought."""
    talk = (say("user", "a"), Message("assistant", (ThinkingPart("hm"), TextPart("b"))), say("user", "c"))
    assert to_chat(talk, ALL)[1] == {"role": "assistant", "content": "b"}


def test_earlier_thinking_goes_along_where_the_template_has_a_field_for_it() -> None:
    """What of it is rendered is the template's to say."""
    talk = (say("user", "a"), Message("assistant", (ThinkingPart("hm"), TextPart("b"))), say("user", "c"))
    traits = probe(ChatTemplate(ANY_ORDER + "{{ messages[0].reasoning_content }}"))
    assert to_chat(talk, traits)[1] == {"role": "assistant", "content": "b", "reasoning_content": "hm"}
    assert (
        probe(ChatTemplate("{% for message in messages %}{{ message.thinking }}{% endfor %}")).thinking_field
        == "thinking"
    )


def test_a_part_that_is_not_text_is_named_with_its_place() -> None:
    """What cannot be given to the model is refused, never dropped."""
    talk = (say("user", "a"), Message("user", (TextPart("b"), ImagePart("image/png", b"x"))))
    with pytest.raises(InvalidRequest, match="Image") as caught:
        to_chat(talk, ALL)
    assert caught.value.path == "messages.1.content.1"
