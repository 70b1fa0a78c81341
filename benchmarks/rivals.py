"""Two servers side by side, ours and mlx-lm's, and a client that times the tokens of their streams alike."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import random_models

Messages = Sequence[dict[str, str]]
Body = Callable[[Messages, int], dict[str, Any]]


FAILED = b"event: error"
LONGEST_END = 32
LONGEST_SILENCE_SECONDS = 400.0
"""A first load compiles kernels for minutes; a server that says nothing for longer will not answer any more."""


class Answer(NamedTuple):
    """When one request was sent and its pieces of text came, in seconds, and the tokens that the server counted."""

    sent_at: float
    arrivals: tuple[float, ...]
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int

    @property
    def first_seconds(self) -> float:
        """From the request to its first text."""
        return self.arrivals[0] - self.sent_at

    @property
    def tokens_per_second(self) -> float:
        """After the first token."""
        return (self.output_tokens - 1) / (self.arrivals[-1] - self.arrivals[0])

    @property
    def longest_gap_seconds(self) -> float:
        """Between two pieces of text."""
        return max(later - earlier for earlier, later in itertools.pairwise(self.arrivals))


class Server(NamedTuple):
    """Where a server listens, and how its wire looks."""

    name: str
    address: str
    path: str
    body: Body
    piece: bytes
    """Stands once in each event with text."""
    end: bytes
    prompt_count: re.Pattern[bytes]
    cached_count: re.Pattern[bytes]
    output_count: re.Pattern[bytes]
    is_cached_apart: bool
    """Whether the prompt's count is without its cached tokens."""

    def ask(self, prompt: str | Messages, max_tokens: int) -> Answer:
        """Stream one greedy answer."""
        messages = say(prompt) if isinstance(prompt, str) else prompt
        content = json.dumps(self.body(messages, max_tokens)).encode()
        head = f"POST {self.path} HTTP/1.1\r\nHost: {self.address}\r\nContent-Type: application/json\r\n"
        host, _, port = self.address.rpartition(":")
        with socket.create_connection((host, int(port)), LONGEST_SILENCE_SECONDS) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sent_at = time.perf_counter()
            connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            arrivals, received = self._read(connection)
        num_prompt, num_cached, num_output = (
            pattern.findall(received) for pattern in (self.prompt_count, self.cached_count, self.output_count)
        )
        if b" 200 " not in received[:20] or not (arrivals and num_prompt and num_output):
            raise RuntimeError(f"{self.name} answered {received[:200]!r} ... {received[-400:]!r}")
        cached = int(num_cached[0]) if num_cached else 0
        whole = int(num_prompt[0]) + (cached if self.is_cached_apart else 0)
        return Answer(sent_at, tuple(arrivals), whole, cached, int(num_output[-1]))

    def _read(self, connection: socket.socket) -> tuple[list[float], bytes]:
        arrivals: list[float] = []
        received = bytearray()
        while data := connection.recv(65_536):
            now = time.perf_counter()
            start = max(0, len(received) - len(self.piece) + 1)
            received += data
            arrivals += [now] * received.count(self.piece, start)
            fresh = max(0, len(received) - len(data) - LONGEST_END)
            if received.find(self.end, fresh) >= 0 or received.find(FAILED, fresh) >= 0:
                break
        return arrivals, bytes(received)

    def ask_together(self, prompts: Sequence[str], max_tokens: int) -> list[Answer]:
        """Stream one answer to each prompt, all at once."""
        answers: list[Answer | None] = [None] * len(prompts)
        barrier = threading.Barrier(len(prompts))

        def run(place: int) -> None:
            barrier.wait()
            answers[place] = self.ask(prompts[place], max_tokens)

        threads = [threading.Thread(target=run, args=(place,)) for place in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        whole = [answer for answer in answers if answer is not None]
        if len(whole) != len(prompts):
            raise RuntimeError(f"{self.name} did not answer {len(prompts) - len(whole)} of {len(prompts)} requests")
        return whole


def say(*texts: str) -> list[dict[str, str]]:
    """A conversation: user and assistant in turn."""
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


def _anthropic_body(messages: Messages, max_tokens: int) -> dict[str, Any]:
    return {
        "model": "m",
        "max_tokens": max_tokens,
        "messages": list(messages),
        "stream": True,
        "temperature": 0,
    }


def _openai_body(messages: Messages, max_tokens: int) -> dict[str, Any]:
    body = _anthropic_body(messages, max_tokens) | {"model": "default_model", "temperature": 0.0}
    return body | {"stream_options": {"include_usage": True}}


@contextlib.contextmanager
def _child(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    with log.open("w") as errors:
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()


@contextlib.contextmanager
def pensieve(model: Path | str, folder: Path, *, name: str = "pensieve", **environment: str) -> Iterator[Server]:
    """Our server with that model; it loads with the first request. Its log and caches lie in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pensieve", "serve", "--port", "0", "--model", str(model)]
    variables = os.environ | {"PENSIEVE_HOME": str(folder)} | environment
    with _child(command, folder / f"{name}.log", variables) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        url = next((word for word in line.split() if word.startswith("http")), None)
        if url is None:
            raise RuntimeError(f"our server did not start: {(folder / f'{name}.log').read_text()[-2000:]}")
        yield Server(
            name,
            urlsplit(url).netloc,
            "/v1/messages",
            _anthropic_body,
            b"event: content_block_delta",
            b"event: message_stop",
            re.compile(rb'"input_tokens": ?(\d+)'),
            re.compile(rb'"cache_read_input_tokens": ?(\d+)'),
            re.compile(rb'"output_tokens": ?(\d+)'),
            is_cached_apart=True,
        )


@contextlib.contextmanager
def mlx_lm(model: Path, folder: Path, *options: str, spare_bytes: int | None = None) -> Iterator[Server]:
    """mlx-lm's server with that model; `spare_bytes` bounds the buffers it keeps, where it shares a GPU with ours."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    bound = "" if spare_bytes is None else f"import mlx.core as mx; mx.set_cache_limit({spare_bytes}); "
    launch = f"{bound}from mlx_lm.server import main; main()"
    command = [sys.executable, "-c", launch, "--model", str(model), "--port", str(port)]
    log = folder / "mlx_lm.log"
    with _child([*command, "--log-level", "WARNING", *options], log, dict(os.environ)) as child:
        _wait_until_listening(port, child, log)
        yield Server(
            "mlx_lm.server",
            f"127.0.0.1:{port}",
            "/v1/chat/completions",
            _openai_body,
            b'"content": "',
            b"data: [DONE]",
            re.compile(rb'"prompt_tokens": ?(\d+)'),
            re.compile(rb'"cached_tokens": ?(\d+)'),
            re.compile(rb'"completion_tokens": ?(\d+)'),
            is_cached_apart=False,
        )


def _wait_until_listening(port: int, child: subprocess.Popen[str], log: Path) -> None:
    for _ in range(1200):
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            connection.getresponse().read()
            return
        if child.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"mlx-lm's server did not start: {log.read_text()[-2000:]}")


def made_model(shape: str, folder: Path) -> Path:
    """The folder of a model of random weights, made in a process of its own, which gives its GPU memory back."""
    script = Path(random_models.__file__)
    subprocess.run([sys.executable, str(script), shape, str(folder)], check=True, stdout=subprocess.DEVNULL)
    return folder
