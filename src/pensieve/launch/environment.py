"""Environments as values: what is taken out of the user's own, and how the server's place is said. Starts nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

OWN_SECRETS = frozenset({"PENSIEVE_API_KEY", "PENSIEVE_SERVER_API_KEY", "PENSIEVE_TERMINAL_KEY"})
"""An agent runs other programs, and has a key of its own."""
TERMINAL_KEY = "PENSIEVE_TERMINAL_KEY"
"""Where agents whose settings only name a variable find their key."""
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Endpoint(msgspec.Struct, frozen=True):
    """Where an agent finds the server, and its key."""

    url: str
    key: str

    def __repr__(self) -> str:
        return f"Endpoint({self.url})"  # the key stays out of logs


def scrubbed(inherited: Mapping[str, str], prefixes: tuple[str, ...], names: Collection[str]) -> dict[str, str]:
    """The variables that are left without those of these names and prefixes, and without our own keys."""
    return {
        name: value
        for name, value in inherited.items()
        if not name.startswith(prefixes) and name not in names and name not in OWN_SECRETS
    }


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which a proxy, if there is one, is passed by for this machine."""
    if not any(environment.get(name) for name in PROXIES):
        return dict(environment)
    listed = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    hosts = ",".join([*(host for host in listed.split(",") if host), *LOOPBACK])
    return {**environment, "NO_PROXY": hosts, "no_proxy": hosts}
