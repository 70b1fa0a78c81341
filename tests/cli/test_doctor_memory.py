"""`pensieve doctor memory`, on this machine and on ones that are not here."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pensieve.cli.doctor_memory import Report, page
from pensieve.cli.main import main
from pensieve.config.settings import MemorySettings
from pensieve.devices.cuda import DeviceMemory
from pensieve.devices.levels import thresholds
from pensieve.devices.memory import MemoryReading

GIGABYTE = 10**9
HEALTH = {
    "status": "degraded",
    "model": {"name": "small", "state": "out of memory"},
    "worker": {"memory_gb": 0.4, "loads": 2, "crashes": 0, "hangs": 0, "unloads": 1, "outgrown": 0},
    "last_event": {"what": "memory: Safe -> Emergency, 0.02 GB left", "seconds_ago": 7},
}


def test_the_page_tells_level_thresholds_and_what_the_server_did() -> None:
    """Of a container of 4 GB with a card, whose server had to unload its model."""
    reading = MemoryReading(100_000_000, 4 * GIGABYTE, "/sys/fs/cgroup/x", 1 * GIGABYTE, 2 * GIGABYTE, 12.5)
    report = Report(
        level="Emergency",
        reading=reading,
        thresholds=thresholds(MemorySettings(), reading.total_bytes),
        cards=(DeviceMemory("Card", "GPU-1", 8 * GIGABYTE, 3 * GIGABYTE),),
        spare_bytes=-150_000_000,
        server=HEALTH,
    )
    assert list(page(report)) == [
        "level      Emergency: no model is held in memory, requests are refused",
        "available  0.10 GB of 4.00 GB",
        "           limited by /sys/fs/cgroup/x",
        "below      Warning 0.50 GB, Critical 0.25 GB, Emergency 0.12 GB",
        "models     may take 0.00 GB, so that Critical is not reached",
        "swap       1.00 GB of 2.00 GB used",
        "stalls     12.5 % of the last ten seconds were lost to waiting for memory",
        "card       Card: 3.00 GB of 8.00 GB free",
        "server     degraded; small is out of memory, its worker holds 0.4 GB",
        "           loads 2, crashes 0, hangs 0, unloads 1, outgrown 0",
        "last       memory: Safe -> Emergency, 0.02 GB left, 7 s ago",
    ]


def test_this_machine_is_told(pensieve_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In lines and as JSON; no server of this home runs."""
    assert pensieve_home.is_dir()
    assert main(["doctor", "memory"]) == 0
    assert "none of yours is running" in capsys.readouterr().out
    assert main(["doctor", "memory", "--json"]) == 0
    told = msgspec.json.decode(capsys.readouterr().out, type=Report)
    assert (told.server, told.level in {"Safe", "Warning", "Critical", "Emergency", "Unknown"}) == (None, True)
