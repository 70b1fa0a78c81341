"""`pensieve reset`: tell the running server to try again what it has given up. Starts nothing itself."""

from __future__ import annotations

import click

from pensieve.cli.context import load_settings
from pensieve.inference.server_client import require_server, reset_server


@click.command()
def reset() -> None:
    """Let the running server try again what failed too often.

    A worker that ended three times in a row is started for the next request, and requests that were refused because
    workers had died under them are taken again.
    """
    server = require_server(load_settings().folders)
    click.echo(f"{server.url} tries again; {server.model} is {reset_server(server)}")
