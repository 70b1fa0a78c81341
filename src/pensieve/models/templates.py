"""What a chat template can express, whichever kind of model file it came in. Renders nothing."""

from __future__ import annotations

import re
from typing import Final

from pensieve.models.spec import Capability

_THINKING: Final = ("<think>", "enable_thinking", "[THINK]", "<|channel|>analysis")
"""What templates of models that think write or ask for."""


def capabilities_of(template: str) -> tuple[Capability, ...]:
    """What messages the template has a place for."""
    found: list[Capability] = []
    if any(mark in template for mark in _THINKING):
        found.append("thinking")
    if re.search(r"\btools\b", template):
        found.append("tools")
    return tuple(found)
