"""The official SDKs for Python and JavaScript against `pensieve serve --script`: both see the same, scene by scene."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from javascript_sdk import play_scenes
from pensieve.messages import Json
from sdk_scenes import Scenes
from served import serve

SCRIPT = Path(__file__).parent / "script.toml"
ALL_KINDS: Json = [
    ["thinking", "hm hm", "SIG"],
    ["text", "hello you"],
    ["tool_use", "read", {"path": "/x", "lines": [1, 2]}],
]
LOOP: Json = [
    [
        ["text", "I look."],
        ["tool_use", "get_weather", {"city": "Rome"}],
        ["tool_use", "get_weather", {"city": "Oslo"}],
    ],
    [["tool_use", "get_weather", {"city": "Atlantis"}]],
    [["text", "Sun in Rome, snow in Oslo, nothing of the third."]],
]
CITIES = ["Rome", "Oslo", "Atlantis"]
REPORT = {"city": "Rome", "degrees": 21.5}

EXPECTED: dict[str, Json] = {
    "create": ["assistant", "scripted", "tool_use", ALL_KINDS, 2],
    "stream": ["assistant", "scripted", "tool_use", ALL_KINDS, 2, "hello you"],
    "events": [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ],
    "count": 3,
    "models": [["scripted"], "scripted", 2_000, True],
    "unknown_model": ["NotFoundError", 404],
    "parse": REPORT,
    "parse_stream": REPORT,
    "tool_runner": [CITIES, LOOP, True],
    "tool_runner_stream": [CITIES, LOOP],
    "thinking_echo": [["text", "and goes on"]],
    "overloaded": [["text", "here I am"]],
    "broken_stream": True,
    "stop_reasons": [
        ["end_turn", None],
        ["max_tokens", None],
        ["stop_sequence", "four"],
        ["refusal", None],
        ["model_context_window_exceeded", None],
    ],
    "leaving": True,
}
REFUSALS = {
    "overflow": "prompt is too long: 3000 tokens > 2000 maximum",
    "image": "scripted cannot see images",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A server that plays the script of the scenes, from its command."""
    home = tmp_path_factory.mktemp("script")
    with serve(home, "--script", str(SCRIPT), secret="weather") as process:
        yield process


@pytest.fixture(scope="module", params=["python", "javascript"])
def outcome(request: pytest.FixtureRequest, url: str) -> Iterator[Callable[[str], Json]]:
    """What one of the SDKs makes of a scene; node plays all of them at once."""
    if request.param == "javascript":
        yield play_scenes(url).__getitem__
        return
    scenes = Scenes(url)
    yield lambda name: getattr(scenes, name)()
    scenes.close()


@pytest.mark.parametrize("scene", EXPECTED)
def test_a_scene_ends_as_it_should(scene: str, outcome: Callable[[str], Json]) -> None:
    """Answers, streams, counts, models, objects, tool loops without threads, echoes, retries, endings."""
    assert outcome(scene) == EXPECTED[scene]


@pytest.mark.parametrize("scene", REFUSALS)
def test_a_refusal_is_the_sdks_own_error_in_our_words(scene: str, outcome: Callable[[str], Json]) -> None:
    """With the status that agents act on, and what they parse in it."""
    kind, status, words = outcome(scene)
    assert (kind, status) == ("BadRequestError", 400)
    assert REFUSALS[scene] in words
