"""Which source wins, and that each value remembers where it came from."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from pensieve.config.fields import FIELDS, Field
from pensieve.config.settings import Settings
from pensieve.config.sources import LoadedSettings, load
from pensieve.errors import ConfigurationError

from .conftest import Sources

LAYERS = ("default", "file", "dotenv", "environment", "flag")


def load_up_to(sources: Sources, strongest: str) -> LoadedSettings:
    """The settings with every layer up to the strongest one saying its own port: 7777, 1001, 1002, 1003, 1004."""
    given = LAYERS[: LAYERS.index(strongest) + 1]
    if "file" in given:
        sources.write_file("[server]\nport = 1001\n")
    if "dotenv" in given:
        sources.write_dotenv("PENSIEVE_PORT=1002\n")
    variables = {"PENSIEVE_PORT": "1003"} if "environment" in given else {}
    return sources.load({"server.port": 1004 if "flag" in given else None}, **variables)


@pytest.mark.parametrize(("strongest", "port"), list(zip(LAYERS, (7777, 1001, 1002, 1003, 1004), strict=True)))
def test_the_strongest_source_wins_and_is_remembered(sources: Sources, strongest: str, port: int) -> None:
    """Defaults give way to the file, the file to `.env`, that to the environment, and all to flags."""
    loaded = load_up_to(sources, strongest)
    assert loaded.settings.server.port == port
    assert loaded.origins["server.port"].layer == strongest


def test_layers_merge_setting_by_setting(sources: Sources) -> None:
    """A stronger source hides only the settings it gives."""
    sources.write_file('[server]\nhost = "127.0.0.2"\nport = 1001\n')
    loaded = sources.load(PENSIEVE_PORT="1003")
    assert (loaded.settings.server.host, loaded.settings.server.port) == ("127.0.0.2", 1003)
    assert loaded.origins["server.host"].name == str(sources.config_file)


def test_the_section_form_wins_over_the_alias_of_its_layer_only(sources: Sources) -> None:
    """PENSIEVE_SERVER_PORT beats PENSIEVE_PORT beside it, and loses to one in a stronger source."""
    both = {"PENSIEVE_PORT": "1", "PENSIEVE_SERVER_PORT": "2"}
    assert sources.load(**both).settings.server.port == 2
    sources.write_dotenv("PENSIEVE_SERVER_PORT=2\n")
    assert sources.load(PENSIEVE_PORT="1").settings.server.port == 1


def test_a_wrong_value_is_refused_even_where_it_is_hidden(sources: Sources) -> None:
    """A mistake shows when it is made, not when the flag that hid it goes away."""
    sources.write_file("[server]\nport = 70000\n")
    with pytest.raises(ConfigurationError, match=re.escape(str(sources.config_file))):
        sources.load({"server.port": 8080})


def test_a_wrong_flag_is_named_as_the_person_wrote_it(sources: Sources) -> None:
    """The source of a flag's value is the flag."""
    with pytest.raises(ConfigurationError) as caught:
        sources.load({"server.port": 70000})
    assert str(caught.value) == ("server.port (from --port): 70000 is not accepted: a whole number from 0 to 65535")


def test_an_empty_key_given_as_a_flag_is_refused(sources: Sources) -> None:
    """`--api-key "$UNSET"` must not start a server that asks for no key."""
    with pytest.raises(ConfigurationError, match="from --api-key"):
        sources.load({"server.api_key": ""})


@pytest.mark.parametrize("variable", ["PENSIEVE_API_KEY", "PENSIEVE_SERVER_API_KEY"])
def test_an_empty_key_in_a_variable_is_refused(sources: Sources, variable: str) -> None:
    """A shell variable nobody set must not turn off the key that a weaker source gave."""
    sources.write_file('[server]\napi_key = "correct-horse"\n')
    problem = f"{variable} in the environment): an empty value is not accepted: unset it to have no key"
    with pytest.raises(ConfigurationError, match=re.escape(problem)):
        sources.load(**{variable: ""})
    sources.write_dotenv(f"{variable}=\n")
    with pytest.raises(ConfigurationError, match="unset it to have no key"):
        sources.load()


def test_every_setting_has_an_origin(sources: Sources) -> None:
    """With no source at all, everything is a default and nothing is warned of."""
    loaded = sources.load()
    assert loaded.settings == Settings()
    assert {str(origin) for origin in loaded.origins.values()} == {"default"}
    assert (set(loaded.origins), loaded.warnings) == (set(FIELDS), ())


def values(field: Field) -> st.SearchStrategy[object]:
    """Values that the field accepts and a variable can hold."""
    kind = inspect.type_info(field.annotation)
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    match kinds[0]:
        case inspect.IntType(ge=low, le=high):
            return st.integers(low, high)
        case inspect.FloatType(ge=low, le=high):
            return st.floats(low, high)
        case inspect.LiteralType(values=choices):
            return st.sampled_from(choices)
        case inspect.VarTupleType() if field.key == "server.allowed_origins":
            return st.lists(st.from_regex(r"\A[a-z]+://[a-z0-9.:-]+/?\Z")).map(tuple)
        case inspect.VarTupleType():
            return st.lists(st.from_regex(r"\A[!-+\--~]+\Z")).map(tuple)
        case inspect.Metadata():
            return st.from_regex(r"\A[!-~]+\Z")
    return st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def spelled(value: object) -> str:
    """The value as a variable holds it."""
    return ",".join(value) if isinstance(value, tuple) else str(value)


@given(st.sampled_from(list(FIELDS.values())).flatmap(lambda field: st.tuples(st.just(field), values(field))))
def test_any_value_in_range_is_read_back_from_the_environment(case: tuple[Field, object]) -> None:
    """What is set through either name of a setting is what the program reads."""
    field, value = case
    with tempfile.TemporaryDirectory() as home:
        for variable in field.variables:
            loaded = load(environ={"PENSIEVE_HOME": home, variable: spelled(value)}, cwd=Path(home))
            assert loaded.value(field.key) == value
            assert str(loaded.origins[field.key]) == f"{variable} in the environment"


def test_a_key_is_not_in_the_text_of_the_settings(sources: Sources) -> None:
    """Settings that end up in a log give no key away."""
    loaded = sources.load(PENSIEVE_API_KEY="correct-horse-battery")
    assert loaded.settings.server.api_key == "correct-horse-battery"
    assert "correct-horse" not in repr(loaded)
    assert "****ry" in repr(loaded)


def test_settings_round_trip_as_values(sources: Sources) -> None:
    """The settings can cross to another process."""
    settings = sources.load(PENSIEVE_TEMPERATURE="0.5").settings
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(settings), type=Settings) == settings
