"""A real server is killed in the middle of a batch, twice, and every request still has exactly one result."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import httpx

from pensieve.server.batches.store import BatchStore
from served import command, serve, url_of, variables

NUM_REQUESTS = 60
KEY = {"x-api-key": "mine"}
SCRIPT = """
[[turns]]
steps = [{type = "delay", seconds = 0.05}, {type = "text", text = "done"}]
"""


def begin(home: Path, *more: str, **settings: str) -> subprocess.Popen[str]:
    """A server that plays the script."""
    words = command("serve", "--port", "0", "--script", str(home / "script.toml"), *more)
    environment = variables(home) | settings
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def batch_of(client: httpx.Client, batch_id: str) -> dict[str, object]:
    """How the batch is."""
    found: dict[str, object] = client.get(f"/v1/messages/batches/{batch_id}").json()
    return found


def until_done(client: httpx.Client, batch_id: str, num_done: int) -> None:
    """Wait until so many requests have a result."""
    while batch_of(client, batch_id)["progress"]["done"] < num_done:  # type: ignore[index]
        time.sleep(0.02)


def test_a_killed_server_goes_on_where_it_was(pensieve_home: Path) -> None:
    """By itself, from the file."""
    (pensieve_home / "script.toml").write_text(SCRIPT)
    message = {"model": "any", "max_tokens": 9, "messages": [{"role": "user", "content": "a secret prompt"}]}
    body = {"requests": [{"custom_id": f"r{at}", "params": message} for at in range(NUM_REQUESTS)]}
    batch_id = ""
    for num_done in (10, 30):
        with begin(pensieve_home) as server, httpx.Client(base_url=url_of(server), headers=KEY) as client:
            batch_id = batch_id or client.post("/v1/messages/batches", json=body).json()["id"]
            until_done(client, batch_id, num_done)
            server.send_signal(signal.SIGKILL)
    with (
        serve(pensieve_home, "--script", str(pensieve_home / "script.toml"), secret="a secret prompt") as server,
        httpx.Client(base_url=url_of(server), headers=KEY) as client,
    ):
        until_done(client, batch_id, NUM_REQUESTS)
        while batch_of(client, batch_id)["processing_status"] != "ended":
            time.sleep(0.02)
        lines = client.get(f"/v1/messages/batches/{batch_id}/results").text.splitlines()
    found = [json.loads(line) for line in lines]
    assert [line["custom_id"] for line in found] == [f"r{at}" for at in range(NUM_REQUESTS)]
    assert {line["result"]["type"] for line in found} == {"succeeded"}


def test_a_server_stays_for_a_batch_though_every_terminal_has_left(pensieve_home: Path) -> None:
    """One that a launcher started goes when nobody needs it; whoever left a batch behind does."""
    (pensieve_home / "script.toml").write_text(SCRIPT.replace("0.05", "2.5"))
    message = {"model": "any", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
    body = {"requests": [{"custom_id": "r", "params": message}]}
    with begin(pensieve_home, "--until-unused", PENSIEVE_SERVER_LINGER_SECONDS="1") as server:
        url = url_of(server)
        assert httpx.post(f"{url}/v1/messages/batches", json=body, headers=KEY).status_code == 200
    store = BatchStore(pensieve_home / "data" / "batches.db")
    assert store.num_waiting() == 0
    store.close()
