"""Chat templates: the field's dialect renders, and a hostile one is stopped."""

from __future__ import annotations

import pytest

from pensieve.errors import BackendFailure, InvalidRequest
from pensieve.prompts.template import ChatTemplate, TemplateOptions

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
USER = {"role": "user", "content": "Hi"}


def test_a_template_renders_the_prompt() -> None:
    """Roles, markers and the opening of the answer."""
    text = ChatTemplate(CHATML).render([USER])
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_without_a_template_the_prompt_is_plain() -> None:
    """Base models get a plain dialogue."""
    assert ChatTemplate("").render([USER]) == "User: Hi\n\nAssistant:"


def test_the_dialect_of_the_field_is_there() -> None:
    """JSON without HTML escapes, loop controls, generation markers, today's date, BOS."""
    source = (
        "{{ bos_token }}{{ {'a': '<é>'} | tojson }}{% for n in [1, 2] %}{% if n == 2 %}{% break %}{% endif %}{{ n }}"
        "{% endfor %}{% generation %}g{% endgeneration %}{{ strftime_now('%H:%M') }}"
    )
    assert ChatTemplate(source, bos_token="<s>").render([USER]) == '<s>{"a": "<é>"}1g00:00'


def test_templates_are_told_of_thinking_by_the_names_they_know() -> None:
    """What is left to the template is not defined for it."""
    template = ChatTemplate(
        "{{ enable_thinking is defined }} {{ enable_thinking }} {{ thinking }} {{ reasoning_effort }}"
    )
    assert template.render([USER], options=TemplateOptions(is_thinking=True)) == "True True True "
    assert template.render([USER]) == "True False False low"
    assert template.render([USER], options=TemplateOptions()) == "False   "


def test_a_refusal_of_the_template_is_the_clients_to_mend() -> None:
    """`raise_exception` is how templates reject a conversation."""
    with pytest.raises(InvalidRequest, match="roles must alternate"):
        ChatTemplate("{{ raise_exception('roles must alternate') }}").render([USER])


HOSTILE = {
    "attribute": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "mutation": "{{ messages.append(1) }}",
    "repeat": "{{ 'a' * 999999999 }}",
    "repeat list": "{{ [0] * 999999999 }}",
    "repeat step by step": "{{ ('a' * 999999) * 999999 }}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "range": "{{ range(10 ** 9) | list }}",
    "endless": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "include": "{% include '/etc/passwd' %}",
    "division": "{{ 1 / 0 }}",
    "no attribute": "{{ 'a' | dictsort }}",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_template_is_one_error(source: str) -> None:
    """It comes with the weights: it gets no attributes, no files, no endless time and no endless memory."""
    with pytest.raises(BackendFailure, match="chat template"):
        ChatTemplate(source, seconds=0.2).render([USER])


@pytest.mark.parametrize("source", ["{% for %}", "{{ a", "{% generation %}", "{" * 100_000, "{% for a in b %}" * 40])
def test_a_template_that_is_none_is_one_error(source: str) -> None:
    """Said at load, not at the first request."""
    with pytest.raises(BackendFailure, match="does not compile"):
        ChatTemplate(source + "{% for %}")
