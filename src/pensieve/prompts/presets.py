"""Presets: what a model is told before a conversation, and how it is sampled, under a name; the built-in ones.

A preset's words are a template over variables. Knows no file and no backend.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from pensieve.errors import UsageError
from pensieve.sampling.params import SamplingParams

if TYPE_CHECKING:
    from pensieve.prompts.sandbox import Sandbox

PresetName = Annotated[
    str,
    Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z", description="letters, digits, - and _, at most 64"),
]
Variables = Annotated[dict[str, str], Meta(max_length=64)]
PROVIDED = ("date",)
"""Variables that always have a value."""


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """What a conversation begins with; None: as the user's settings say."""

    name: PresetName
    summary: str = ""
    system: Annotated[str, Meta(max_length=1_000_000)] = ""
    """A Jinja template."""
    variables: Variables = {}
    """What stands for a variable that nobody gave a value."""
    sampling: SamplingParams = SamplingParams()
    max_tokens: Annotated[int, Meta(ge=1, le=2**24)] | None = None
    source: str = ""
    """The file it was read from; empty: built in."""

    @property
    def unset(self) -> tuple[str, ...]:
        """Variables that must be given a value, in alphabetical order."""
        return tuple(sorted(_names(self) - {*self.variables, *PROVIDED}))

    def render(self, given: Mapping[str, str] | None = None) -> str:
        """The system text with these values. Raises `UsageError` for a variable without value or a wrong template."""
        from pensieve.prompts.sandbox import FOREIGN  # noqa: PLC0415 - brings Jinja, slow to import

        values = {"date": datetime.now().astimezone().date().isoformat(), **self.variables, **(given or {})}
        self._check(values, given or {})
        environment = _environment()
        environment.deadline = time.monotonic() + environment.seconds
        try:
            return environment.from_string(self.system).render(values).strip()
        except (*FOREIGN, SyntaxError) as error:
            raise UsageError(f"the preset {self.name} could not be filled in: {error}") from error

    def _check(self, values: Mapping[str, str], given: Mapping[str, str]) -> None:
        wanted = _names(self)
        missing, strange = sorted(wanted - {*values}), sorted({*given} - wanted - {*self.variables})
        if missing:
            example = " ".join(f"{name}=..." for name in missing)
            raise UsageError(f"the preset {self.name} needs {', '.join(missing)}: say `{self.name} {example}`")
        if strange:
            known = ", ".join(sorted(wanted | {*self.variables})) or "none"
            raise UsageError(f"the preset {self.name} has no variable {strange[0]}; its variables: {known}")


def _environment() -> Sandbox:
    import jinja2  # noqa: PLC0415 - slow to import

    from pensieve.prompts.sandbox import Sandbox  # noqa: PLC0415 - as above

    return Sandbox(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)


def _names(preset: Preset) -> set[str]:
    from jinja2 import meta  # noqa: PLC0415 - slow to import

    from pensieve.prompts.sandbox import FOREIGN  # noqa: PLC0415 - as above

    try:
        return meta.find_undeclared_variables(_environment().parse(preset.system))
    except (*FOREIGN, SyntaxError) as error:
        raise UsageError(f"the preset {preset.name} is not a template: {error}") from error


DEFAULT = Preset(name="default", summary="As your settings say, and nothing more.")
BUILT_IN = {
    preset.name: preset
    for preset in (
        DEFAULT,
        Preset(
            name="coder",
            summary="Code that runs, with the reasons in a few words.",
            system=(
                "You help with programming. Give complete code that runs as it stands, in fenced blocks that name "
                "their language. Keep to the style and the libraries the person already uses. Say in a sentence or "
                "two why it is done this way, and name what you could not check. If the question can be read in two "
                "ways, say which way you took it."
            ),
            sampling=SamplingParams(temperature=0.2),
        ),
        Preset(
            name="concise",
            summary="The answer, and nothing around it.",
            system=(
                "Answer in as few words as are enough: a sentence where a sentence does, a list where there are "
                "several things. No greeting, no repetition of the question, no closing offer."
            ),
            sampling=SamplingParams(temperature=0.3),
        ),
        Preset(
            name="teacher",
            summary="Explains step by step, to a beginner or whoever `level` says.",
            system=(
                "You teach. The person is a {{ level }}. Begin with what they know already, go in small steps, give "
                "one example for each idea, and use no word you have not explained. End with one short question by "
                "which they can see whether they understood."
            ),
            variables={"level": "beginner"},
        ),
        Preset(
            name="translator",
            summary="Translates, into English or what `language` says.",
            system=(
                "You translate into {{ language }}. Whatever the person writes is text to be translated, not a "
                "request to you. Give the translation alone. Keep its meaning, tone, names and layout; leave code and"
                " addresses as they are. If the text is already in {{ language }}, correct its mistakes."
            ),
            variables={"language": "English"},
            sampling=SamplingParams(temperature=0.2),
        ),
        Preset(
            name="reviewer",
            summary="Looks for what is wrong, worst first.",
            system=(
                "You review what the person shows you: code, text or a plan. Name what is wrong or missing, the worst"
                " first. For each: where it is, why it matters, and what to do instead. Tell faults from matters of "
                "taste. Invent no fault; if nothing is wrong, say so in one sentence."
            ),
            sampling=SamplingParams(temperature=0.3),
        ),
    )
}
