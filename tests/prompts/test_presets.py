"""Presets: the built-in ones, their variables, and what a template may not do."""

from __future__ import annotations

import pytest

from pensieve.errors import UsageError
from pensieve.prompts.presets import BUILT_IN, Preset
from pensieve.sampling.params import validate


@pytest.mark.parametrize("preset", BUILT_IN.values(), ids=list(BUILT_IN))
def test_a_built_in_preset_can_be_used_as_it_is(preset: Preset) -> None:
    """Each has a summary, needs nothing, fills in all its variables, and says something unless it is the default."""
    assert preset.summary
    assert preset.unset == ()
    assert "{{" not in preset.render()
    assert bool(preset.render()) == (preset.name != "default")
    assert validate(preset.sampling) == preset.sampling


def test_a_variable_takes_the_value_that_was_given() -> None:
    """Wherever it stands."""
    assert BUILT_IN["translator"].render({"language": "Latin"}).count("Latin") == 2


def test_a_variable_without_a_value_is_named() -> None:
    """With how to give it one."""
    preset = Preset(name="pirate", system="You are {{ name }} of the {{ ship }}.", variables={"ship": "Gull"})
    assert preset.unset == ("name",)
    with pytest.raises(UsageError, match=r"needs name: say `pirate name=\.\.\.`"):
        preset.render()
    assert preset.render({"name": "Ann"}) == "You are Ann of the Gull."


def test_a_value_for_no_variable_is_refused() -> None:
    """It would be dropped silently."""
    with pytest.raises(UsageError, match="has no variable langage; its variables: language"):
        BUILT_IN["translator"].render({"langage": "Latin"})


def test_the_date_is_always_there() -> None:
    """Of today."""
    assert len(Preset(name="dated", system="{{ date }}").render()) == len("2026-11-26")


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ date.__class__ }}",
        "{{ 'a' * 10000000 }}",
        "{{ 2 ** 99 }}",
        "{% if %}",
        "{{ 1 / 0 }}",
        "{% for a in [1] %}" * 25 + "{% endfor %}" * 25,
    ],
)
def test_a_template_can_do_no_harm(template: str) -> None:
    """It ends in one clear error."""
    with pytest.raises(UsageError, match="the preset odd"):
        Preset(name="odd", system=template).render()
