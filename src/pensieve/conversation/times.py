"""Moments as other programs write them, brought into a range that can be kept. Knows no format."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

EARLIEST: Final = datetime(1970, 1, 2, tzinfo=UTC)
LATEST: Final = datetime(9998, 12, 31, tzinfo=UTC)


def settled(moment: datetime) -> datetime:
    """The moment in UTC (without a zone it is taken for UTC), no earlier and no later than can be kept."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(aware, EARLIEST), LATEST).astimezone(UTC)


def of_seconds(seconds: float | None) -> datetime | None:
    """The moment so many seconds after the beginning of 1970; None where there is none."""
    if seconds is None or not EARLIEST.timestamp() <= seconds <= LATEST.timestamp():
        return None
    return datetime.fromtimestamp(seconds, UTC)
