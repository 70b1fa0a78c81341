"""`pensieve reset`: tell the running server to try again what it has given up. Starts nothing itself."""

from __future__ import annotations

import click

from pensieve.cli.context import load_settings
from pensieve.errors import ServerUnreachable
from pensieve.inference.server_client import find_server, reset_server


@click.command()
def reset() -> None:
    """Let the running server try again what failed too often.

    A worker that ended three times in a row is started for the next request, and requests that were refused because
    workers had died under them are taken again.
    """
    server = find_server(load_settings().folders)
    if server is None:
        raise ServerUnreachable("no Pensieve server of yours is running: `pensieve serve` starts one")
    click.echo(f"{server.url} tries again; {server.model} is {reset_server(server)}")
