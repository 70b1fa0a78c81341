"""`pensieve doctor cache`: what the prefix cache of the running server did, on one page or as JSON. Judges nothing."""

from __future__ import annotations

import shutil
import textwrap
import time
from collections.abc import Iterator

import click
import msgspec

from pensieve.cli.context import load_settings
from pensieve.cli.text import one_line
from pensieve.errors import ServerUnreachable
from pensieve.inference.server_client import fetch, require_server
from pensieve.server.cache_log import CacheLine, CacheReport

NARROW, WIDE = 40, 100
LATEST = 2.0**32
"""A time that every system can name; a stranger may answer with any number."""
INDENT = " " * 10
REASONS = {
    "reused": "goes on from an earlier request",
    "new": "a new conversation",
    "evicted": "nothing changed: what was kept of it is gone, or was never kept",
}


@click.command()
@click.option("--url", help="Address of the server; by itself the running one of this user is found.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--text", "with_text", is_flag=True, help="Show the words around each first difference.")
def cache(url: str | None, as_json: bool, with_text: bool) -> None:
    """Show what the prefix cache did for the last requests: reused, read again, and why.

    Words are shown only by a server that was started with server.keep_prompt_text on.
    """
    content = _ask(url, with_text=with_text)
    try:
        report = msgspec.json.decode(content, type=CacheReport)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ServerUnreachable("what answers there is no Pensieve server of this version") from error
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
        return
    width = max(NARROW, min(shutil.get_terminal_size((80, 24)).columns, WIDE))
    click.echo("\n".join(page(report, width, with_text=with_text)))


def _ask(url: str | None, *, with_text: bool) -> bytes:
    loaded = load_settings()
    path = "/v1/pensieve/cache" + ("?text=1" if with_text else "")
    if url is not None:
        return fetch(url.rstrip("/"), path, loaded.settings.server.api_key)
    server = require_server(loaded.folders)
    return fetch(server.url, path, server.api_key)


def page(report: CacheReport, width: int, *, with_text: bool) -> Iterator[str]:
    """The report in lines of at most `width` characters, oldest request first."""
    if not report.requests:
        yield from textwrap.wrap("The server has read no prompt yet: there is nothing to tell.", width)
        return
    times = {line.request_id: _clock(line) for line in report.requests}
    for line in reversed(report.requests):
        yield from _request(line, times, width)
    yield ""
    yield from textwrap.wrap(_summary(report.requests), width)
    if with_text and not report.keeps_text:
        said = "No words are shown: the server keeps them only with server.keep_prompt_text on."
        yield from textwrap.wrap(said, width)


def _request(line: CacheLine, times: dict[str, str], width: int) -> Iterator[str]:
    told = f"{_clock(line)}  {line.reused_tokens:,} of {line.prompt_tokens:,} tokens reused"
    if line.recomputed_tokens:
        took = "" if line.recompute_seconds is None else f" in {line.recompute_seconds:.1f} s"
        told += f", {line.recomputed_tokens:,} read{took}"
    yield from textwrap.wrap(told, width, subsequent_indent=INDENT)
    for text in _reasons(line, times):
        yield from textwrap.wrap(text, width, initial_indent=INDENT, subsequent_indent=INDENT)
    if line.difference is not None and (line.difference.before or line.difference.after):
        for sign, words in (("-", line.difference.before), ("+", line.difference.after)):
            yield from textwrap.wrap(
                f"{sign} {one_line(words)}", width, initial_indent=INDENT, subsequent_indent=INDENT
            )


def _reasons(line: CacheLine, times: dict[str, str]) -> Iterator[str]:
    if line.difference is None:
        yield REASONS.get(line.reason, one_line(line.reason))
    else:
        earlier = times.get(line.compared_with, "an earlier request")
        yield f"first difference from {earlier}: {one_line(line.difference.path)}"
    if line.lost_tokens and line.reason not in ("reused", "new"):
        lost = "" if line.lost_seconds is None else f": {line.lost_seconds:.1f} s lost"
        yield f"{line.lost_tokens:,} more could have been reused{lost}"


def _summary(lines: tuple[CacheLine, ...]) -> str:
    reusable, reused = sum(line.reusable_tokens for line in lines), sum(line.reused_tokens for line in lines)
    share = (
        f"{reused / reusable:.1%} of the tokens that could be reused were" if reusable else "nothing could be reused"
    )
    seconds = sum(line.lost_seconds or 0.0 for line in lines)
    last = "Last request" if len(lines) == 1 else f"Last {len(lines)} requests"
    return f"{last}: {share}; {seconds:.1f} s lost."


def _clock(line: CacheLine) -> str:
    return time.strftime("%H:%M:%S", time.localtime(min(max(line.started_at, 0.0), LATEST)))
