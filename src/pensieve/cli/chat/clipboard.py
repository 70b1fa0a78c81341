"""Puts text on the clipboard with the program that this machine has for it. Knows no chat."""

from __future__ import annotations

import shutil
import subprocess

PROGRAMS = (
    ("pbcopy",),
    ("wl-copy",),
    ("xclip", "-selection", "clipboard"),
    ("xsel", "--clipboard", "--input"),
    ("clip.exe",),
)
WAIT_SECONDS = 3.0


def put_on_clipboard(text: str) -> bool:
    """Whether a program took the text; the first one that does wins."""
    content = text.encode(errors="replace")
    return any(_takes(program, content) for program in PROGRAMS if shutil.which(program[0]))


def _takes(program: tuple[str, ...], content: bytes) -> bool:
    quiet = subprocess.DEVNULL
    try:
        done = subprocess.run(  # noqa: S603 - the names are ours, and the text goes in by its standard input
            program, input=content, stdout=quiet, stderr=quiet, timeout=WAIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
