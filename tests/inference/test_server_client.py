"""A running server is found by its run file, and by nothing that merely looks like one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from pensieve.config.settings import Folders
from pensieve.errors import ServerUnreachable
from pensieve.inference.server_client import Patience, RunningServer, find_server, require_server

KEY = "a-secret-key"
LITTLE = Patience(first_seconds=0.05, again_seconds=0.05, whole_seconds=0.2)


class Health(BaseHTTPRequestHandler):
    """Answers /health as our server does, and keeps what it was sent."""

    def do_GET(self) -> None:
        """Answer any path."""
        self.server.seen.append((self.path, str(self.headers)))  # type: ignore[attr-defined]
        time.sleep(self.server.delay_seconds)  # type: ignore[attr-defined]
        status, content = self.server.reply  # type: ignore[attr-defined]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class Standing(ThreadingHTTPServer):
    """A stand-in for a server of ours."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Health)
        self.reply: tuple[int, bytes] = (200, b'{"status": "healthy"}')
        self.seen: list[tuple[str, str]] = []
        self.delay_seconds = 0.0
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


def answer_all(listener: socket.socket, num_connections: int) -> None:
    """Say on each connection that came, the oldest first, that the server is well."""
    for _ in range(num_connections):
        connection, _ = listener.accept()
        with connection, suppress(OSError):  # the first has been given up by then
            connection.recv(65_536)
            connection.sendall(b'HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{"status": "healthy"}')


def url_of(listener: socket.socket) -> str:
    """Where it listens."""
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def standing() -> Iterator[Standing]:
    """A stand-in that answers."""
    with Standing() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Empty folders."""
    return Folders(tmp_path, tmp_path, tmp_path)


def write(folders: Folders, content: bytes, mode: int = 0o600) -> None:
    """Put a run file in place."""
    folders.run_file.write_bytes(content)
    folders.run_file.chmod(mode)


def running(url: str, pid: int | None = None) -> RunningServer:
    """A server at `url`, by default in this process."""
    return RunningServer(url, "some-model", os.getpid() if pid is None else pid, KEY)


def test_a_server_that_answers_is_found_with_its_key(folders: Folders, standing: Standing) -> None:
    """All that the run file says comes back, and the health check does not give the key away."""
    write(folders, msgspec.json.encode(running(standing.url)))
    assert find_server(folders) == running(standing.url)
    [(path, headers)] = standing.seen
    assert path == "/health"
    assert KEY not in headers


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_run_file_that_others_can_read_or_write_is_ignored(mode: int, folders: Folders, standing: Standing) -> None:
    """Who could write it could send our questions anywhere."""
    write(folders, msgspec.json.encode(running(standing.url)), mode)
    assert find_server(folders) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_run_file_of_another_user_is_ignored(folders: Folders, standing: Standing) -> None:
    """A private file of somebody else is not ours."""
    write(folders, msgspec.json.encode(running(standing.url)))
    os.chown(folders.run_file, 12345, 12345)
    assert find_server(folders) is None


def test_a_link_in_place_of_the_run_file_is_ignored(folders: Folders, standing: Standing, tmp_path: Path) -> None:
    """A link could lead to a file that was not meant for this."""
    target = tmp_path / "elsewhere"
    target.write_bytes(msgspec.json.encode(running(standing.url)))
    target.chmod(0o600)
    folders.run_file.symlink_to(target)
    assert find_server(folders) is None


def test_a_pipe_in_place_of_the_run_file_does_not_hang(folders: Folders) -> None:
    """Nobody writes into it."""
    os.mkfifo(folders.run_file, 0o600)
    assert find_server(folders) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b'{"url": "http://x"}', b'{"url": "u", "model": "m", "pid": 0}', b"9" * 100_000],
)
def test_a_run_file_that_is_no_run_file_is_ignored(content: bytes, folders: Folders) -> None:
    """Damage is no news for a person who only asked a question."""
    write(folders, content)
    assert find_server(folders) is None


def test_without_a_run_file_there_is_no_server(folders: Folders) -> None:
    """The common case."""
    assert find_server(folders) is None


def test_the_run_file_of_a_process_that_ended_is_ignored(folders: Folders, standing: Standing) -> None:
    """Somebody else may have the port by now."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write(folders, msgspec.json.encode(running(standing.url, ended.pid)))
    assert find_server(folders) is None
    assert standing.seen == []


@pytest.mark.parametrize("pid", [2**31 - 1, 2**40, 2**70])
def test_a_process_number_that_none_can_have_is_ignored(pid: int, folders: Folders, standing: Standing) -> None:
    """Whatever its size."""
    write(folders, b'{"url": "%b", "model": "m", "pid": %d}' % (standing.url.encode(), pid))
    assert find_server(folders) is None


@pytest.mark.parametrize(
    "reply", [(500, b'{"status": "healthy"}'), (302, b""), (200, b"hello"), (200, b"{}"), (200, b"\xff")]
)
def test_what_does_not_answer_like_a_pensieve_is_ignored(
    reply: tuple[int, bytes], folders: Folders, standing: Standing
) -> None:
    """Another program may have the port."""
    standing.reply = reply
    write(folders, msgspec.json.encode(running(standing.url)))
    assert find_server(folders) is None


def test_a_server_on_a_busy_machine_is_waited_for(folders: Folders, standing: Standing) -> None:
    """Its model must not be loaded a second time because it answered late."""
    standing.delay_seconds = 1.0
    write(folders, msgspec.json.encode(running(standing.url)))
    assert find_server(folders) == running(standing.url)


def test_a_port_where_nobody_listens_is_ignored(folders: Folders) -> None:
    """The server has just ended, and its process number lives on."""
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]
    write(folders, msgspec.json.encode(running(f"http://127.0.0.1:{port}")))
    assert find_server(folders) is None


def test_who_only_looks_passes_over_a_port_where_nobody_answers_in_time(folders: Folders) -> None:
    """A listener that accepts and says nothing does not hold a report up."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        write(folders, msgspec.json.encode(running(url_of(silent))))
        assert find_server(folders, patience=LITTLE) is None


def test_a_server_that_is_slow_to_answer_is_there_for_whoever_waits(folders: Folders) -> None:
    """It took the connection: it is busy and not gone, and a second one would make it worse."""
    told: list[str] = []

    def tell(phrase: str) -> None:
        told.append(phrase)
        answering.start()

    with socket.create_server(("127.0.0.1", 0)) as slow:
        url = url_of(slow)
        answering = threading.Thread(target=answer_all, args=(slow, 2))
        write(folders, msgspec.json.encode(running(url)))
        assert find_server(folders, tell, Patience(first_seconds=0.05)) == running(url)
        answering.join()
    [phrase] = told
    assert phrase.startswith(f"the server at {url} is busy, ")


def test_nobody_waits_for_a_server_that_refuses_the_connection(folders: Folders) -> None:
    """It has gone, though its process number lives on."""
    with socket.create_server(("127.0.0.1", 0)) as closing:
        url = f"http://127.0.0.1:{closing.getsockname()[1]}"
    write(folders, msgspec.json.encode(running(url)))
    assert find_server(folders, lambda _: pytest.fail("there is nobody to wait for")) is None


def test_a_server_that_stays_silent_is_an_error_that_says_what_can_be_done(folders: Folders) -> None:
    """Nobody waits for ever, and nobody takes it for absent."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        write(folders, msgspec.json.encode(running(url_of(silent))))
        said = rf"{url_of(silent)} takes connections and does not answer.*stop the server \(process {os.getpid()}\)"
        with pytest.raises(ServerUnreachable, match=said):
            find_server(folders, lambda _: None, LITTLE)


def test_who_needs_a_server_is_told_that_it_is_silent_and_not_to_start_one(folders: Folders) -> None:
    """Only where there is none."""
    with pytest.raises(ServerUnreachable, match="no Pensieve server of yours is running: `pensieve serve` starts one"):
        require_server(folders)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        write(folders, msgspec.json.encode(running(url_of(silent))))
        with pytest.raises(ServerUnreachable, match="takes connections and does not answer"):
            require_server(folders, LITTLE)


@pytest.mark.parametrize("url", ["", "nonsense", "http://[::1", "http://127.0.0.1:99999", "http://\x00"])
def test_an_address_that_is_none_is_ignored(url: str, folders: Folders) -> None:
    """The file was damaged."""
    write(folders, msgspec.json.encode(running(url)))
    assert find_server(folders) is None


def test_the_key_is_not_in_what_is_printed_of_a_server() -> None:
    """A server may end up in a log."""
    assert KEY not in repr(running("http://127.0.0.1:1"))
