"""The self-test: what it proves, and that it fails where there is something to find."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pensieve.devices.lifetimes import lifetime_of
from pensieve.launch.enclosure import attempts_in, enclosure
from pensieve.launch.environment import Endpoint
from pensieve.launch.fingerprint import fingerprint
from pensieve.launch.selftest import Proof, prove, sentences
from pensieve.launch.sockets import remote_addresses

ASK = """
import json, os, urllib.request
body = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}
asked = urllib.request.Request(os.environ["URL"] + "/v1/messages", json.dumps(body).encode())
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
print(json.load(opener.open(asked))["content"][-1]["text"])
"""
STRAY = """
import pathlib, socket
pathlib.Path(os.environ["HOME"], ".claude.json").write_text("mine now")
try:
    socket.create_connection(("192.0.2.1", 80), timeout=1)
except OSError:
    pass
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with settings in it."""
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude" / "settings.json").write_text("{}")
    return tmp_path


def proof_of(home: Path, script: str) -> Proof:
    """What is seen of a stand-in for the agent that does this."""

    def command(endpoint: Endpoint) -> tuple[Sequence[str], Mapping[str, str]]:
        return [sys.executable, "-c", script], {**os.environ, "URL": endpoint.url, "HOME": str(home)}

    return prove(command, home)


def test_an_agent_that_stays_at_home_is_proven_to(home: Path) -> None:
    """It answered, nothing changed, and nothing wanted to leave."""
    proof = proof_of(home, ASK)
    assert proof.holds, list(sentences(proof))
    assert proof.before.num_files == 1


def test_one_that_strays_is_found_out(home: Path) -> None:
    """It writes to the user's settings and looks for another machine."""
    proof = proof_of(home, ASK + STRAY)
    assert (proof.is_answered, proof.is_untouched, proof.holds) == (True, False, False)
    if proof.network == "enclosed":
        assert proof.num_attempts == 1
        assert [is_proven for is_proven, _ in sentences(proof)] == [True, False, False]


def test_what_could_not_be_seen_is_not_called_proven(home: Path) -> None:
    """On a system with neither namespaces nor sockets to look at."""
    same = fingerprint(home)
    proof = Proof("This is a scripted answer", same, same, "unseen")
    assert not proof.holds
    assert "NOT proven" in list(sentences(proof))[-1][1]


@pytest.mark.parametrize("change", ["content", "mode", "name", "link", "empty folder", "link to a folder"])
def test_a_fingerprint_knows_contents_modes_names_and_links(home: Path, change: str) -> None:
    """Whatever changes, the digest does."""
    settings, before = home / ".claude" / "settings.json", fingerprint(home)
    assert before == fingerprint(home)
    if change == "content":
        settings.write_text("{ }")
    elif change == "mode":
        settings.chmod(0o600)
    elif change == "name":
        settings.rename(settings.with_name("other.json"))
    elif change == "link":
        (home / ".claude.json").symlink_to("elsewhere")
    elif change == "empty folder":
        (home / ".config" / "claude").mkdir(parents=True)
    else:
        (home / ".claude" / "skills").symlink_to(home / ".claude")
    assert fingerprint(home) != before


def test_the_meter_adds_up_what_found_no_way_out() -> None:
    """Counters of both versions of the protocol; others are not counted."""
    snmp = "Ip: InReceives OutNoRoutes\nIp: 9 2\nUdp: NoPorts InErrors\nUdp: 1 7\n"
    assert attempts_in(snmp, "Ip6OutNoRoutes 4\nUdp6NoPorts 8\nIp6InReceives 99\n") == 15
    assert attempts_in("", "") == 0


def test_a_launcher_that_is_killed_leaves_no_network_behind() -> None:
    """Whoever holds the network ends with it."""
    script = """
import os
from pensieve.launch.enclosure import enclosure
with enclosure() as place:
    print(place.command([])[2] if place else "", flush=True)
    os._exit(0)
"""
    holder = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.strip()
    if not holder:
        pytest.skip("this system makes no network namespaces")
    give_up = time.monotonic() + 20
    while (now := lifetime_of(int(holder))) is not None:
        assert time.monotonic() < give_up, f"{now} goes on"
        time.sleep(0.02)


def test_an_enclosure_counts_what_wants_to_leave() -> None:
    """Its meter was tried before it is given out."""
    with enclosure() as place:
        if place is None:
            pytest.skip("this system makes no network namespaces")
        before = place.num_attempts
        assert place.counts_attempts()
        assert place.num_attempts > before


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own lists are read")
def test_sockets_to_this_machine_are_no_remote_addresses() -> None:
    """Those to other machines are; a socket of UDP speaks to nobody before it sends."""
    with socket.create_server(("127.0.0.1", 0)) as here, socket.create_connection(here.getsockname()):
        assert remote_addresses(os.getpid()) == set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        try:
            there.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no route to anywhere")
        assert remote_addresses(os.getpid()) == {"192.0.2.1"}
