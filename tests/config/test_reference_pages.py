"""`.env.example` and the page on configuration name every setting and tell the truth about it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pensieve.config.environment import NOT_SETTINGS
from pensieve.config.fields import FIELDS, SECRETS, Field
from pensieve.config.platforms import default_model
from pensieve.config.settings import ModelSettings, Settings
from pensieve.config.validation import accepted, display

from .conftest import Sources

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = (REPOSITORY / ".env.example").read_text()
LINUX_MODEL = default_model("linux", "x86_64")
"""The one default that depends on the machine; the pages show this one."""
PAGE = (REPOSITORY / "docs" / "configuration.md").read_text()


def test_the_example_sets_each_setting_once_and_to_its_default(sources: Sources) -> None:
    """With every line but the key's switched on, each setting comes from `.env` and is what it was without it."""
    switched_on = re.sub(r"^#(?=PENSIEVE_(?!DEBUG|API_KEY))", "", EXAMPLE, flags=re.MULTILINE)
    sources.write_dotenv(switched_on)
    loaded = sources.load()
    assert loaded.settings == Settings(model=ModelSettings(name=LINUX_MODEL))
    assert {key for key, origin in loaded.origins.items() if origin.layer != "dotenv"} == SECRETS
    assert loaded.warnings == ()
    assert switched_on.count("\nPENSIEVE_") == len(FIELDS.keys() - SECRETS) + 1


def test_the_example_is_valid_as_it_stands(sources: Sources) -> None:
    """A copy of it changes nothing."""
    sources.write_dotenv(EXAMPLE)
    assert {origin.layer for origin in sources.load().origins.values()} == {"default"}


def test_the_example_names_every_variable_and_explains_it() -> None:
    """Each line stands under a sentence, and no variable is left out."""
    variables = {variable for field in FIELDS.values() for variable in field.variables}.union(NOT_SETTINGS)
    assert set(re.findall(r"PENSIEVE_[A-Z_]+", EXAMPLE)) == variables
    for line in re.findall(r"(.*)\n#PENSIEVE_", EXAMPLE):
        assert re.fullmatch(r"# \S.+\.", line), line


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_the_page_tells_each_settings_names_default_and_range(field: Field) -> None:
    """One row a setting, in the words of the program."""
    names = ", ".join(f"`{variable}`" for variable in field.variables)
    default = LINUX_MODEL if field.key == "model.name" else field.default
    rest = f" | {names} | {display(field, default)} | {accepted(field)} |"
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{field.key}`<br>") and line.endswith(rest)]
    assert len(rows) == 1, f"docs/configuration.md must have: | `{field.key}`<br>MEANING{rest}"


def test_the_page_names_no_setting_that_is_gone() -> None:
    """As many rows as settings."""
    assert len(re.findall(r"^\| `", PAGE, flags=re.MULTILINE)) == len(FIELDS)
