"""Install the coding agents that the tests run: npm fetches them into `.cache/clients`, pinned by version and hash.

Names as arguments choose among them; without, all are installed. npm's own download cache, outside the checkout, is
reused. No script of a package runs. Exits 1 with one sentence for each that could not be had.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
LOCKS = REPOSITORY / "tests" / "clients" / "agents"
FOLDER = REPOSITORY / ".cache" / "clients"
INSTALL_SECONDS = 600
COMMANDS = {
    "claude-code": ("@anthropic-ai/claude-code-*/claude",),
    "codex": (".bin/codex",),
    "opencode": ("opencode-*/bin/opencode",),
    "qwen-code": (".bin/qwen",),
}
"""Client -> what to start, below `node_modules`: the native program where there is one, as npm's own starter is
filled in by a script of the package, and none of those run."""


def installed(name: str) -> Path | None:
    """The command of a client in the pinned version, if it was installed."""
    places = _folder(name) / "node_modules"
    found = sorted(path for pattern in COMMANDS[name] for path in places.glob(pattern) if os.access(path, os.X_OK))
    return found[0] if found else None


def install(name: str) -> str:
    """Have a client; gives back what went wrong, "" if nothing did."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        return f"{name} is not installed: node and npm are not on this machine (node 20 or newer brings both)"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if installed(name) is not None:
            return ""
        problem = _install(name)
    if problem:
        return f"{name} is not installed: npm could not fetch it: {problem}"
    return "" if installed(name) else f"{name} is not installed: its package has no program for this machine"


def _install(name: str) -> str:
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix=f".{name}-") as scratch:
        for file in (LOCKS / name).iterdir():
            shutil.copy(file, scratch)
        problem = _npm(Path(scratch))
        if not problem:
            shutil.rmtree(_folder(name), ignore_errors=True)
            # A rename, so that a folder of that name is always whole; the empty one left behind is swept as usual.
            Path(scratch).rename(_folder(name))
            Path(scratch).mkdir()
        return problem


def _npm(folder: Path) -> str:
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--prefer-offline", "--no-save"]
    try:
        done = subprocess.run(
            ["npm", "install", "--fetch-retries=1", *options],
            check=False,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"nothing after {INSTALL_SECONDS} s"
    lines = [line for line in done.stderr.splitlines() if line.startswith("npm error")]
    return "" if done.returncode == 0 else (lines or [f"status {done.returncode}"])[0]


def _folder(name: str) -> Path:
    lock = (LOCKS / name / "package-lock.json").read_bytes()
    return FOLDER / f"{name}-{hashlib.sha256(lock).hexdigest()[:12]}"


def main(names: list[str]) -> int:
    """Install the named clients, or all."""
    unknown = [name for name in names if name not in COMMANDS]
    if unknown:
        print(f"no client {unknown[0]!r}: the clients are {', '.join(COMMANDS)}")
        return 2
    problems = []
    for name in names or list(COMMANDS):
        problem = install(name)
        print(problem or f"{name}: {installed(name)}", flush=True)
        problems += [problem] if problem else []
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
