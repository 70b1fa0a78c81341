"""Look through every tracked file for what must not be published: keys, places on one machine, addresses.

Exits 1 and names each line. A line that must show such a thing (a test's made-up key) says `clean: REASON` in itself.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parent.parent
LARGEST_BYTES = 1_000_000
EXCUSE = re.compile(r"clean: \w+")


class Rule(NamedTuple):
    """A thing that must not be there, and how it looks."""

    name: str
    pattern: re.Pattern[str]


# Each pattern is written so that it does not match its own line.
RULES = (
    Rule("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE[ ]KEY-----")),
    Rule("an API key", re.compile(r"\b(sk-ant-|sk-proj-|ghp_|github_pat_|xox[bap]-|AKIA)[A-Za-z0-9_-]{16,}")),
    Rule("an access token", re.compile(r"\bhf_[A-Za-z0-9]{24,}")),
    Rule("a password in an address", re.compile(r"://[^/\s:@'\"{}]+:[^/\s:@'\"{}]+@")),
    Rule("a home folder", re.compile(r"(?<![\w.~])/(home|Users)/(?!you\b|me\b)[a-z][\w.-]*", re.IGNORECASE)),
    Rule("a place on one machine", re.compile(r"(?<![\w./<])/(root|work|opt|srv|tmp)/[\w.-]+")),
    Rule("a package index option", re.compile(r"--(extra-)?index-url|--trusted[-]host|--find[-]links")),
    Rule(
        "an address that is not on the list of this script",
        re.compile(
            r"https?://(?!localhost|127\.|192\.0\.2\.|\[|[{$<%(\\]|[\w.-]*\.(example|test|invalid)\b|example\.|huggingface\.co\b"
            r"|github\.com/|www\.apache\.org/|keepachangelog\.com/|semver\.org|www\.w3\.org/2000/svg)[\w-]+\."
        ),
    ),
)


PLOTS = "benchmarks/results/"
PNG = b"\x89PNG\r\n\x1a\n"
"""Plots of results are the one kind of file that is no text."""


def offences(path: str, text: str) -> list[str]:
    """Each line of the file that breaks a rule, as `path:line: what`."""
    return [
        f"{path}:{number}: {rule.name}"
        for number, line in enumerate(text.splitlines(), start=1)
        for rule in RULES
        if rule.pattern.search(line) and not EXCUSE.search(line)
    ]


def tracked(root: Path) -> list[Path]:
    """Files that git tracks or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, check=True, capture_output=True).stdout.decode().split("\0")
    return [root / name for name in listed if name and (root / name).is_file()]


def examine(root: Path, path: Path) -> list[str]:
    """What is wrong with one file."""
    name = path.relative_to(root).as_posix()
    size = path.stat().st_size
    if size > LARGEST_BYTES:
        return [f"{name}: {size} bytes, at most {LARGEST_BYTES}"]
    if name.startswith(PLOTS) and path.read_bytes().startswith(PNG):
        return []
    try:
        return offences(name, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        return [f"{name}: not text"]


def main(root: Path = REPOSITORY) -> int:
    """Print every offence; 0 when there are none."""
    paths = tracked(root)
    found = [offence for path in paths for offence in examine(root, path)]
    print(f"{len(paths)} files looked through")
    for offence in found:
        print(f"must not be published: {offence}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
