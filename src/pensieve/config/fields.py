"""Every setting, listed from the typed sections: its key, its type, its default and the names it goes by.

Knows no source: what the names are looked up in is others' business.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

import msgspec

from pensieve.config.settings import Settings
from pensieve.messages import Json

PREFIX = "PENSIEVE_"
ALIASES: Mapping[str, str] = {
    "server.host": "HOST",
    "server.port": "PORT",
    "server.api_key": "API_KEY",
    "model.name": "MODEL",
    "model.context_tokens": "CONTEXT_TOKENS",
    "generation.temperature": "TEMPERATURE",
    "generation.max_tokens": "MAX_TOKENS",
    "generation.system": "SYSTEM",
    "log.level": "LOG_LEVEL",
}
"""Short names of the settings that people set by hand."""
SECRETS = frozenset({"server.api_key"})


class Field(msgspec.Struct, frozen=True):
    """One setting."""

    key: str
    """Dotted: `server.port`."""
    annotation: Any
    """The type with its bounds, as `msgspec.convert` takes it."""
    default: Json

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.partition(".")[2]

    @property
    def is_secret(self) -> bool:
        """Whether the value must never be shown whole."""
        return self.key in SECRETS

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that set it, weakest first: the short alias, then the section form."""
        section_form = PREFIX + self.key.replace(".", "_").upper()
        alias = PREFIX + ALIASES[self.key] if self.key in ALIASES else section_form
        return tuple(dict.fromkeys((alias, section_form)))

    @property
    def flag(self) -> str:
        """The command-line flag that sets it, where a command has one."""
        return "--" + ALIASES.get(self.key, self.name).lower().replace("_", "-")


def _fields() -> Iterator[Field]:
    for section, kind in get_type_hints(Settings).items():
        annotations = get_type_hints(kind, include_extras=True)
        defaults = kind()
        for name, annotation in annotations.items():
            yield Field(f"{section}.{name}", annotation, getattr(defaults, name))


FIELDS: Mapping[str, Field] = {field.key: field for field in _fields()}
"""Every setting by its key, in the order of the sections."""
SECTIONS = tuple(get_type_hints(Settings))


def nearest_key(unknown: str) -> str:
    """The key that may have been meant: the one with the same last part, else the most similar; "" if none is close."""
    last = unknown.rpartition(".")[2]
    same_name = [key for key, field in FIELDS.items() if field.name == last]
    similar = difflib.get_close_matches(unknown, [*FIELDS, *SECTIONS], n=1)
    return next(iter([*same_name, *similar]), "")


def nearest_variable(unknown: str) -> str:
    """The environment variable that may have been meant, or ""."""
    known = [variable for field in FIELDS.values() for variable in field.variables]
    return next(iter(difflib.get_close_matches(unknown, known, n=1, cutoff=0.75)), "")
