"""The server that most tests of this folder speak to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from live_server import Live, serving


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    """A server with default settings that says `one two three`."""
    async with serving() as started:
        yield started
