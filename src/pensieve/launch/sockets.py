"""Which addresses a process and its children speak to, as the kernel lists their sockets. Linux only."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_TABLES = ("tcp", "tcp6", "udp", "udp6")
_INODE = re.compile(r"socket:\[(\d+)\]")


def remote_addresses(pid: int, root: Path = Path("/proc")) -> set[str]:
    """The far ends, beside this machine, of the sockets of a process and all below it."""
    inodes = {inode for one in _family(pid, root) for inode in _inodes(one, root)}
    return {address for inode, address in _connections(root / str(pid) / "net") if inode in inodes}


def _family(pid: int, root: Path) -> Iterator[int]:
    yield pid
    for listed in (root / str(pid) / "task").glob("*/children"):
        with suppress(OSError):
            for child in listed.read_text().split():
                yield from _family(int(child), root)


def _inodes(pid: int, root: Path) -> Iterator[str]:
    with suppress(OSError):
        for descriptor in (root / str(pid) / "fd").iterdir():
            with suppress(OSError):
                found = _INODE.fullmatch(os.fspath(descriptor.readlink()))
                if found is not None:
                    yield found[1]


def _connections(folder: Path) -> Iterator[tuple[str, str]]:
    """Inode and far end of each connected socket that leads beyond this machine."""
    for table in _TABLES:
        with suppress(OSError):
            for line in (folder / table).read_text().splitlines()[1:]:
                fields = line.split()
                address = _address(fields[2].partition(":")[0])
                if not (address.is_loopback or address.is_unspecified):
                    yield fields[9], str(address)


def _address(words: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    # The kernel writes each four bytes in the machine's order.
    packed = b"".join(bytes.fromhex(words[at : at + 8])[::-1] for at in range(0, len(words), 8))
    address = ipaddress.ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
