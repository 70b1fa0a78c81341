"""Commands about how is asked: model, system text, preset, sampling, thinking."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from typing import Annotated, Any, Protocol, runtime_checkable

import msgspec

from pensieve.cli.chat.commands.table import Candidate, Command, Outcome
from pensieve.cli.chat.commands.words import among, needed
from pensieve.cli.chat.desk import Desk
from pensieve.cli.chat.screen import Table
from pensieve.conversation.choices import MOST_TOKENS, PARAMETERS, Choices
from pensieve.errors import InvalidRequest, UsageError
from pensieve.generation import Thinking
from pensieve.models.sizes import in_words
from pensieve.prompts.preset_files import split
from pensieve.prompts.presets import BUILT_IN, Preset
from pensieve.sampling.params import DEFAULTS, RANGES, SamplingParams, validate

_Positive = Annotated[int, msgspec.Meta(ge=1, le=MOST_TOKENS)]
AS_THE_SETTINGS_SAY = "default"
UNSET = {"none": "left to the model", AS_THE_SETTINGS_SAY: "as your settings say"}
"""Words for no value, and how that is told."""
THINK_USAGE = (
    "/think on, /think off, or /think 500 for at most 500 tokens; /think default leaves it to the model, "
    "/think show unfolds it"
)


@runtime_checkable
class Unfolding(Protocol):
    """A screen that folds thinking."""

    def unfold(self) -> None:
        """Show thinking, or fold it again."""
        ...


def model(desk: Desk, argument: str) -> Outcome:
    """Let another model answer from now on; without a name, say which one does."""
    if not argument:
        limits = desk.loop.run(desk.source.backend.limits())
        engine = f" ({limits.engine})" if limits.engine else ""
        desk.say(f"{desk.source.place.model}, {desk.source.place.description}{engine}")
        return None
    desk.loop.run(_swap(desk, argument))
    return None


async def _swap(desk: Desk, name: str) -> None:
    try:
        async with aclosing(desk.source.change(name)) as changes:
            async for change in changes:
                desk.say(change)
    finally:  # also where Ctrl-C came when it had changed already
        if desk.source.place.model != desk.session.recipe.model or desk.source.backend is not desk.session.backend:
            desk.session.use(desk.source.backend, desk.source.place.model)


def models(desk: Desk, argument: str) -> Outcome:
    """Show the models that can answer."""
    del argument
    here = desk.source.place.model
    rows: list[tuple[str, ...]] = [
        (
            "*" if spec.name == here else "",
            spec.name,
            spec.format,
            in_words(spec.weight_bytes),
            spec.quantization,
        )
        for spec in desk.registry.all()
    ]
    there = [name for name in (here, *desk.source.served()) if name not in {row[1] for row in rows}]
    rows += [
        ("*" if name == here else "", name, "", "", desk.source.place.description) for name in dict.fromkeys(there)
    ]
    desk.screen.show(Table(tuple(rows), ("", "MODEL", "FORMAT", "SIZE", "FORM")))
    desk.say("/model NAME lets another one answer; `pensieve pull` fetches more")
    return None


def system(desk: Desk, argument: str) -> Outcome:
    """Say what the model is told before the conversation: a text, a preset's name, or none."""
    if not argument:
        desk.say(desk.session.recipe.system or "the model is told nothing; /system TEXT tells it something")
        return None
    name = argument.partition(" ")[0]
    if name in desk.shelf.names():
        return preset(desk, argument)
    text = "" if argument in UNSET else argument
    tell_system(desk, text)
    desk.say("the model is told so from now on" if text else "the model is told nothing from now on")
    return None


def tell_system(desk: Desk, text: str) -> None:
    """Let the model be told this text, which is no preset's."""
    desk.loop.run(desk.session.set_system(text))
    if desk.session.choices.preset:
        desk.loop.run(desk.session.choose(msgspec.structs.replace(desk.session.choices, preset="")))


def preset(desk: Desk, argument: str) -> Outcome:
    """Begin to use a preset: its words and its sampling; without a name, show them all."""
    if not argument:
        desk.screen.show(
            Table(tuple(_preset_row(desk, name) for name in desk.shelf.names()), ("", "PRESET", "WHAT FOR"))
        )
        return None
    name, given = split(argument)
    chosen = desk.shelf.find(name)
    use_preset(desk, chosen, chosen.render(given))
    desk.say(f"the preset {name} holds from now on")
    return None


def use_preset(
    desk: Desk,
    chosen: Preset,
    words: str,
    given: Choices = Choices(),  # noqa: B008 - frozen
) -> None:
    """Put the preset's words and sampling in place of those that held, but where the command line gave one."""
    desk.loop.run(desk.session.set_system(words))
    thinking = desk.session.choices.thinking
    choices = Choices(preset=chosen.name, sampling=chosen.sampling, max_tokens=chosen.max_tokens, thinking=thinking)
    desk.loop.run(desk.session.choose(choices.below(given)))


def _preset_row(desk: Desk, name: str) -> tuple[str, str, str]:
    try:
        return "*" if name == desk.session.choices.preset else "", name, desk.shelf.find(name).summary
    except UsageError as error:
        return "!", name, str(error)


def set_parameter(desk: Desk, argument: str) -> Outcome:
    """Set one parameter: `temperature 0.9`."""
    usage = f"/set NAME VALUE, where NAME is one of {', '.join(PARAMETERS)}"
    name, _, value = needed(argument, usage).replace("=", " ", 1).partition(" ")
    name, value = name.strip().lower().replace("-", "_"), needed(value.strip(), usage)
    if name not in PARAMETERS:
        raise UsageError(f"there is no parameter {name}: {usage}")
    desk.loop.run(desk.session.choose(_with(desk.session.choices, name, value)))
    desk.say(f"{name} is {UNSET.get(value, value)} from now on")
    return None


def _with(choices: Choices, name: str, value: str) -> Choices:
    if value == AS_THE_SETTINGS_SAY:
        return choices.with_value(name, None)
    if value in UNSET:
        return choices.with_none(name)
    return choices.with_value(name, _max_tokens(value) if name == "max_tokens" else _sampled(name, value))


def _max_tokens(value: str) -> int:
    try:
        return msgspec.convert(value, _Positive, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"max_tokens: {value} is not a number of tokens above 0") from error


def _sampled(name: str, value: str) -> float:
    try:
        sampling = validate(msgspec.convert({name: value}, SamplingParams, strict=False))
    except msgspec.ValidationError as error:
        raise UsageError(f"{name}: {value} is not a number") from error
    except InvalidRequest as error:
        raise UsageError(str(error)) from error
    if (found := Choices(sampling=sampling).value(name)) is None:  # `null`
        raise UsageError(f"{name}: {value} is not a number")
    return found


def tell_choices(desk: Desk) -> None:
    """Say how the conversation is asked, where that is not as the settings say."""
    chosen = tuple(_differences(desk))
    if chosen:
        desk.say(f"as chosen: {', '.join(chosen)}; /params shows all")
    name = desk.session.choices.preset
    if name and name not in desk.shelf.names():
        desk.screen.warn(f"the preset {name} is not here any more; what it said still holds in this conversation")


def _differences(desk: Desk) -> Iterator[str]:
    recipe, base = desk.session.recipe, desk.session.base
    if desk.session.choices.preset:
        yield f"preset {desk.session.choices.preset}"
    held, otherwise = (Choices(sampling=each.sampling, max_tokens=each.max_tokens) for each in (recipe, base))
    for name in PARAMETERS:
        if (value := held.value(name)) != otherwise.value(name):
            told = f"{value:g}" if isinstance(value, float) else str(value)  # a seed has more digits than `g` shows
            yield f"no {name}" if value is None else f"{name} {told}"
    if recipe.thinking != base.thinking:
        yield f"thinking {_thinking(recipe.thinking) or 'as the model does'}"


def params(desk: Desk, argument: str) -> Outcome:
    """Show the parameters in force."""
    del argument
    recipe = desk.session.recipe
    rows = [(name, *_told(getattr(recipe.sampling, name), getattr(DEFAULTS, name))) for name in RANGES]
    rows.append(("max_tokens", *_told(recipe.max_tokens, "as the context allows")))
    rows.append(("thinking", *_told(_thinking(recipe.thinking), "as the model does")))
    desk.screen.show(Table(tuple(rows), ("PARAMETER", "VALUE", "")))
    return None


def _told(value: Any, otherwise: Any) -> tuple[str, str]:
    if value is not None:
        return str(value), "set"
    return ("random" if otherwise is None else str(otherwise)), "default"


def _thinking(thinking: Thinking | None) -> str | None:
    if thinking is None:
        return None
    if thinking.mode == "disabled":
        return "off"
    return "on" if thinking.budget_tokens is None else f"at most {thinking.budget_tokens} tokens"


def think(desk: Desk, argument: str) -> Outcome:
    """Say whether and how long the model thinks first."""
    if not argument:
        desk.say(f"thinking: {_thinking(desk.session.recipe.thinking) or 'as the model does'}; {THINK_USAGE}")
        return None
    if argument == "show":
        if not isinstance(desk.screen, Unfolding):
            raise UsageError("thinking cannot be folded here: it is shown on terminals, and left out of pipes")
        desk.screen.unfold()
        return None
    thinking = _asked_thinking(argument.lower())
    desk.loop.run(desk.session.choose(msgspec.structs.replace(desk.session.choices, thinking=thinking)))
    desk.say(f"thinking: {_thinking(thinking) or 'as the model does'}")
    limits = desk.loop.run(desk.source.backend.limits())
    if (
        thinking is not None
        and thinking.mode == "enabled"
        and not limits.is_planned
        and "thinking" not in limits.capabilities
    ):
        desk.screen.warn(f"{limits.model} does not think before it answers, so this changes nothing")
    return None


def _asked_thinking(typed: str) -> Thinking | None:
    match typed:
        case "on":
            return Thinking("enabled")
        case "off":
            return Thinking("disabled")
        case word if word in UNSET:
            return None
    try:
        return Thinking("enabled", msgspec.convert(typed, _Positive, strict=False))
    except msgspec.ValidationError as error:
        raise UsageError(f"{typed} is neither on, off nor a number of tokens: {THINK_USAGE}") from error


def complete_models(desk: Desk, typed: str) -> list[Candidate]:
    """The models on this machine."""
    return list(among((spec.name for spec in desk.registry.all()), typed))


def complete_presets(desk: Desk, typed: str) -> list[Candidate]:
    """The presets, with what they are for."""
    names = (name for name in desk.shelf.names() if name.startswith(typed))
    return [Candidate(name, BUILT_IN[name].summary if name in BUILT_IN else "yours") for name in names]


def complete_parameters(desk: Desk, typed: str) -> list[Candidate]:
    """The parameters' names, with what holds."""
    sampling = desk.session.recipe.sampling
    held = {name: str(getattr(sampling, name, None) or "") for name in (*RANGES, "max_tokens")}
    return [Candidate(name, value) for name, value in held.items() if name.startswith(typed)]


def complete_thinking(desk: Desk, typed: str) -> list[Candidate]:
    """What may follow /think."""
    del desk
    return list(among(("on", "off", "default", "show"), typed))


COMMANDS = (
    Command[Desk](
        "model", model, "Let another model answer, in mid-conversation.", "[NAME]", (), complete_models, "Ask"
    ),
    Command[Desk]("models", models, "Show the models on this machine.", group="Ask"),
    Command[Desk](
        "system", system, "Say what the model is told first.", "[TEXT|PRESET|none]", (), complete_presets, "Ask"
    ),
    Command[Desk](
        "preset", preset, "Use a preset, or show them all.", "[NAME [VARIABLE=VALUE]]", (), complete_presets, "Ask"
    ),
    Command[Desk](
        "set", set_parameter, "Set a parameter, such as temperature 0.9.", "NAME VALUE", (), complete_parameters, "Ask"
    ),
    Command[Desk]("params", params, "Show the parameters in force.", aliases=("parameters",), group="Ask"),
    Command[Desk](
        "think", think, "Have the model think first, or not.", "[on|off|TOKENS|show]", (), complete_thinking, "Ask"
    ),
)
