"""A coding agent's session of 20 turns against both engines, in small: what was read once is not read again.

The models are tiny and random: what a prompt's prefix is does not depend on weights.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent_replay import Row, replay, share
from agent_session import session
from gguf_models import write_gguf_model
from served import serve, url_of
from tiny_models import make_tiny_model

SCALE = 0.01
"""About a third of what remains are the schemas of the tools, which no scale shortens."""
ANSWER_TOKENS = 3
TEMPLATE = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)
BLOCK_TOKENS = {"gguf": 1, "folder": 64}
"""Of what can be kept: llama.cpp keeps single tokens, MLX blocks."""
BAR = 0.99


@pytest.fixture(scope="module", params=BLOCK_TOKENS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which form the model has, which chooses the engine."""
    return str(request.param)


@pytest.fixture(scope="module")
def rows(kind: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    """The session, played once: what became of each request, by its name."""
    home = tmp_path_factory.mktemp("agent")
    folder = make_tiny_model(home / "tiny", "qwen2", chat_template=TEMPLATE, max_position_embeddings=16_384)
    model: Path = folder if kind == "folder" else write_gguf_model(home / "tiny.gguf", folder)
    with serve(home, "--model", str(model), secret="importer", PENSIEVE_LLAMACPP_THREADS="1") as server:
        played = asyncio.run(replay(url_of(server), session(SCALE, ANSWER_TOKENS)))
    return {row.request.name: row for row in played}


def test_every_request_is_answered_with_the_true_size_of_its_prompt(rows: dict[str, Row]) -> None:
    """As the counting route tells it, whatever was reused; only what was given up has no end."""
    assert len(rows) == 26
    assert all(row.stop_reason or not row.is_measured for row in rows.values())
    assert rows["1 question"].prompt_tokens == rows["count"].prompt_tokens
    assert rows["15 sent again"].prompt_tokens > rows["14 fourth question"].prompt_tokens


def test_what_could_be_reused_is_reused(rows: dict[str, Row], kind: str) -> None:
    """Although billing, countdown, marks and forms of content change each time."""
    assert share(list(rows.values()), BLOCK_TOKENS[kind]) >= BAR


@pytest.mark.parametrize(
    ("name", "earlier"),
    [
        ("6 note in between", "5 a tool failed"),
        ("8 found tool used", "7 tool found"),
        ("12 helper", "11 helper"),
        ("13 beside helper", "12 beside helper"),
        ("15 sent again", "14 fourth question"),
        ("16 a new day", "15 sent again"),
        ("20 first session again", "17 read"),
    ],
)
def test_a_turn_begins_where_an_earlier_one_ended(rows: dict[str, Row], kind: str, name: str, earlier: str) -> None:
    """Through notes, a tool that was loaded, a helper, an abort and another session."""
    whole = rows[earlier].prompt_tokens // BLOCK_TOKENS[kind] * BLOCK_TOKENS[kind]
    assert rows[name].reused_tokens >= whole * BAR


def test_another_session_shares_tools_and_rules(rows: dict[str, Row]) -> None:
    """Its question differs, and everything before it is the same."""
    assert rows["18 second session"].reused_tokens >= rows["1 question"].prompt_tokens * 0.7
