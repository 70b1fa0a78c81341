"""What depends on the kind of machine before anything is asked of the user. Probes nothing, imports no engine."""

from __future__ import annotations

import platform
import sys


def is_apple_silicon(system: str = sys.platform, machine: str = platform.machine()) -> bool:
    """Whether this is a Mac with Apple's own chip, where MLX runs on Metal."""
    return system == "darwin" and machine == "arm64"


def default_model(system: str = sys.platform, machine: str = platform.machine()) -> str:
    """The model that answers where none is named: one that the machine runs well, by its catalog name."""
    return "phi-3-mini-128k" if is_apple_silicon(system, machine) else "smollm2-135m"
