"""Variables of the environment and of `.env`."""

from __future__ import annotations

import pytest

from pensieve.errors import ConfigurationError

from .conftest import Sources


def test_dotenv_values_are_taken_as_they_stand(sources: Sources) -> None:
    """Quotes are the file's, `$NAME` and `${NAME}` are nobody's."""
    sources.write_dotenv("export PENSIEVE_MODEL='my model'\nPENSIEVE_SYSTEM=\"say ${HOME} and $USER\\ntwice\"\n")
    settings = sources.load(HOME="/root").settings
    assert settings.model.name == "my model"
    assert settings.generation.system == "say ${HOME} and $USER\ntwice"


def test_a_wrong_value_in_dotenv_is_told_with_its_line(sources: Sources) -> None:
    """Blank lines and comments before it count."""
    sources.write_dotenv("# ours\n\n\nPENSIEVE_PORT=70000\n")
    with pytest.raises(ConfigurationError) as caught:
        sources.load()
    assert caught.value.source == "PENSIEVE_PORT in .env, line 4"


def test_other_programs_lines_in_dotenv_are_left_alone(sources: Sources) -> None:
    """Only our own names are looked at; a line that is none is warned of."""
    sources.write_dotenv("PORT=http\nDATABASE_URL=x\n%%% 'odd\nPENSIEVE_PORT=1002\n")
    loaded = sources.load()
    assert loaded.settings.server.port == 1002
    assert loaded.warnings == (".env, line 3 is left out, for it is not NAME=value",)


def test_a_dotenv_that_is_no_file_or_no_text_stops_nothing(sources: Sources) -> None:
    """Some keep a folder of that name, and the file may be another program's."""
    (sources.work / ".env").mkdir()
    assert sources.load().warnings == ()
    (sources.work / ".env").rmdir()
    (sources.work / ".env").write_bytes(b"PENSIEVE_PORT=\xff\n")
    assert ".env is left out, for it cannot be read" in sources.load().warnings[0]


def test_an_unknown_variable_is_warned_of_with_the_nearest_name(sources: Sources) -> None:
    """A misspelled variable must not pass for a set one."""
    sources.write_dotenv("PENSIEVE_API_KYE=x\n")
    assert sources.load(PENSIEVE_ZZZZZZ="1").warnings == (
        "PENSIEVE_API_KYE in .env, line 1 is not a setting: did you mean PENSIEVE_API_KEY?",
        "PENSIEVE_ZZZZZZ in the environment is not a setting",
    )


def test_debugging_is_not_switched_by_a_file(sources: Sources) -> None:
    """PENSIEVE_DEBUG is read before any file, so in `.env` it is warned of."""
    sources.write_dotenv("PENSIEVE_DEBUG=1\n")
    assert "read from the environment only" in sources.load().warnings[0]
    assert sources.load(PENSIEVE_DEBUG="1").warnings == sources.load().warnings


def test_an_empty_variable_unsets_what_a_weaker_source_gave(sources: Sources) -> None:
    """Empty is a value: the program's own choice."""
    sources.write_file("[model]\ncontext_tokens = 4096\n")
    loaded = sources.load(PENSIEVE_CONTEXT_TOKENS="")
    assert loaded.settings.model.context_tokens is None
    assert loaded.origins["model.context_tokens"].layer == "environment"


def test_a_byte_order_mark_is_no_part_of_the_first_name(sources: Sources) -> None:
    """Some editors begin a file with one, `.env` and settings file alike."""
    sources.write_dotenv("\ufeffPENSIEVE_PORT=1002\n")
    sources.write_file('\ufeff[log]\nlevel = "debug"\n')
    settings = sources.load().settings
    assert (settings.server.port, settings.log.level) == (1002, "debug")
