"""A Hugging Face hub on loopback: real sockets, few routes, and faults on demand. Knows no test."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Seen(NamedTuple):
    """A request that arrived."""

    method: str
    path: str
    range: str


class HubServer(ThreadingHTTPServer):
    """Serves `files` (`owner/repo/path` to bytes); each of `cuts` ends one download after that many bytes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.revisions = {"main", COMMIT}
        self.lies: list[str] = []
        """Paths that are listed and not there."""
        self.etag = ""
        self.etags: dict[str, str] = {}
        """By the end of the path, before `etag`."""
        self.status = 0
        self.is_size_told = True
        self.is_range_honoured = True
        self.seen: list[Seen] = []

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self.server_port}"

    def ranges(self) -> list[str]:
        """The Range header of each download, in order."""
        return [seen.range for seen in self.seen if seen.method == "GET" and "/resolve/" in seen.path]


@contextmanager
def running_hub() -> Iterator[HubServer]:
    """A hub that serves until the block ends."""
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Answer(BaseHTTPRequestHandler):
    server: HubServer

    def do_HEAD(self) -> None:
        """Tell a file's facts."""
        self._note()
        if (content := self._content()) is not None:
            self._start(200, content, content)
            self.end_headers()

    def do_GET(self) -> None:
        """List a repository, or send a file."""
        self._note()
        if self.path.startswith("/api/models/"):
            self._list(unquote(self.path).removeprefix("/api/models/").partition("?")[0])
        elif (content := self._content()) is not None:
            self._send(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing."""

    def _note(self) -> None:
        self.server.seen.append(Seen(self.command, self.path, self.headers.get("Range", "")))

    def _content(self) -> bytes | None:
        repo, _, rest = unquote(self.path).removeprefix("/").partition("/resolve/")
        revision, _, path = rest.partition("/")
        content = self.server.files.get(f"{repo}/{path}") if revision in self.server.revisions else None
        if content is None or self.server.status:
            code = "EntryNotFound" if content is None else ""
            self._plain(self.server.status or 404, b"", {"X-Error-Code": code} if code else {})
            return None
        return content

    def _list(self, repo: str) -> None:
        repo, _, revision = repo.partition("/revision/")
        if revision and revision not in self.server.revisions:
            self._plain(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return
        paths = [path.removeprefix(f"{repo}/") for path in self.server.files if path.startswith(f"{repo}/")]
        if not paths:
            self._plain(404, b"", {"X-Error-Code": "RepoNotFound"})
            return
        paths += self.server.lies
        body = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": [{"rfilename": path} for path in paths]}
        self._plain(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _send(self, content: bytes) -> None:
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.is_range_honoured else 0
        body = content[start:]
        self._start(206 if start else 200, content, body)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(body[: self.server.cuts.pop(0)] if self.server.cuts else body)

    def _start(self, status: int, content: bytes, body: bytes) -> None:
        self.send_response(status)
        self.send_header("X-Repo-Commit", COMMIT)
        own = next((etag for end, etag in self.server.etags.items() if self.path.endswith(end)), self.server.etag)
        self.send_header("ETag", f'"{own or hashlib.sha256(content).hexdigest()}"')
        if self.server.is_size_told:
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("Content-Length", str(len(body)))

    def _plain(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
