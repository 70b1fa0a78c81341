"""A network of its own in which only loopback is up, and whose kernel counts what wanted to go elsewhere. Linux only.

Needs no rights where users may have namespaces. Knows no agent.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

METERS = frozenset({"Ip.OutNoRoutes", "Udp.NoPorts", "Ip6.OutNoRoutes", "Udp6.NoPorts"})
"""What found no way out, and questions to a resolver on this machine, which there is none of inside."""
_HOLD = "ip link set lo up && echo up && exec cat"
_SEND = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('198.51.100.7', 53))"
_TOOLS = ("unshare", "nsenter", "ip")


class Enclosure:
    """The network, held by a process that waits in it."""

    def __init__(self, holder: int, enter: Sequence[str]) -> None:
        self._folder = Path(f"/proc/{holder}/net")
        self._enter = tuple(enter)

    def command(self, words: Sequence[str]) -> list[str]:
        """The command, as it is started inside."""
        return [*self._enter, *words]

    @property
    def num_attempts(self) -> int:
        """How often something inside tried to reach another machine, or to look a name up, so far."""
        return attempts_in((self._folder / "snmp").read_text(), (self._folder / "snmp6").read_text())

    def counts_attempts(self) -> bool:
        """Try to send one packet, and see whether it is counted: a meter that counts nothing proves nothing."""
        before = self.num_attempts
        subprocess.run(self.command([sys.executable, "-c", _SEND]), check=False, stderr=subprocess.DEVNULL)  # noqa: S603
        return self.num_attempts > before


def attempts_in(snmp: str, snmp6: str) -> int:
    """The sum of the meters in the kernel's two tables of counters."""
    lines = snmp.splitlines()
    counters: dict[str, int] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        kind, _, rest = names.partition(":")
        numbers = values.partition(":")[2].split()
        counters |= {f"{kind}.{name}": int(value) for name, value in zip(rest.split(), numbers, strict=False)}
    for line in snmp6.splitlines():
        name, value = line.split()
        for kind in ("Ip6", "Udp6"):
            if name.startswith(kind):
                counters[f"{kind}.{name.removeprefix(kind)}"] = int(value)
    return sum(counters.get(meter, 0) for meter in METERS)


@contextmanager
def enclosure() -> Iterator[Enclosure | None]:
    """The network, for as long as the block lasts; None where the system makes none, or counts nothing in it."""
    holder, enter = _hold()
    if holder is None:
        yield None
        return
    try:
        made = Enclosure(holder.pid, ("nsenter", "-t", str(holder.pid), *enter))
        yield made if made.counts_attempts() else None
    finally:
        holder.kill()
        holder.communicate()


def _hold() -> tuple[subprocess.Popen[bytes] | None, tuple[str, ...]]:
    """A process in a fresh network, and how to enter it: as an ordinary user, else with the rights we have."""
    if any(shutil.which(tool) is None for tool in _TOOLS):
        return None, ()
    for unshare, enter in ((("-r", "-n"), ("-U", "--preserve-credentials", "-n")), (("-n",), ("-n",))):
        holder = subprocess.Popen(  # noqa: S603 - fixed words
            ["unshare", *unshare, "sh", "-c", _HOLD],  # noqa: S607 - the system's own tools
            stdin=subprocess.PIPE,  # it ends when we do, however that is
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert holder.stdout is not None
        if holder.stdout.readline() == b"up\n":
            return holder, enter
        holder.kill()
        holder.communicate()
    return None, ()
