"""The database's schema, as the list of steps that made it. Steps are only ever added: files of all ages are about."""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x50_45_4E_53
"""Marks the file as ours ("PENS")."""

_FIRST: Final = """
CREATE TABLE conversations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL,
    system TEXT NOT NULL,
    model TEXT NOT NULL,
    head INTEGER,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL
);
CREATE INDEX conversations_by_update ON conversations (updated);
CREATE TABLE turns (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation INTEGER NOT NULL REFERENCES conversations (id),
    parent INTEGER REFERENCES turns (id) DEFERRABLE INITIALLY DEFERRED,
    messages BLOB NOT NULL,
    created INTEGER NOT NULL,
    model TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    timings BLOB,
    reason TEXT,
    is_interrupted INTEGER NOT NULL,
    is_summary INTEGER NOT NULL,
    words INTEGER NOT NULL
);
CREATE INDEX turns_by_conversation ON turns (conversation);
CREATE INDEX turns_by_parent ON turns (parent);
CREATE INDEX turns_by_words ON turns (words);
CREATE TABLE pieces (
    id INTEGER PRIMARY KEY,
    turn INTEGER NOT NULL REFERENCES turns (id),
    written INTEGER NOT NULL,
    events BLOB NOT NULL
);
CREATE INDEX pieces_by_turn ON pieces (turn);
CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = 'unicode61 remove_diacritics 2');
CREATE VIRTUAL TABLE titles USING fts5 (text, tokenize = 'unicode61 remove_diacritics 2');
"""

_SUMS: Final = """
CREATE INDEX turns_for_sums ON turns (
    model, prompt_tokens, cached_tokens, completion_tokens, is_interrupted, created
);
"""

_CHOICES: Final = """
ALTER TABLE conversations ADD COLUMN choices BLOB;
"""

MIGRATIONS: Final[tuple[str, ...]] = (_FIRST, _SUMS, _CHOICES)
"""`PRAGMA user_version` counts those that a file has seen."""
