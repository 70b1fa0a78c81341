"""The JavaScript SDK for the tests: npm installs it once into `.cache`, pinned by version and hash; node plays scenes.

Nothing of it is part of the tree, and no script of a package runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

from pensieve.messages import Json

SOURCES = Path(__file__).parent / "clients" / "js"
FOLDER = Path(__file__).parent.parent / ".cache" / "javascript"
OLDEST_NODE = 20
INSTALL_SECONDS = 240
SCENE_SECONDS = 240


def play_scenes(url: str, file: str = "scenes.mjs") -> dict[str, Json]:
    """Scene -> outcome, of the scenes in that file against the server at `url`."""
    installed = _installed()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # A module finds its packages beside itself.
        (folder / "node_modules").symlink_to(installed / "node_modules", target_is_directory=True)
        shutil.copy(SOURCES / file, folder)
        done = subprocess.run(
            ["node", file, url],
            check=False,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=SCENE_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    assert done.returncode == 0, done.stderr[-2_000:]
    outcomes: dict[str, Json] = json.loads(done.stdout)
    return outcomes


@cache
def _installed() -> Path:
    """The folder with `node_modules`; skips without node, or where npm reaches no registry (which fails in CI)."""
    missing = _missing_tool()
    if missing:
        pytest.skip(f"the JavaScript SDK is not tested: {missing}")
    lock = (SOURCES / "package-lock.json").read_bytes()
    folder = FOLDER / hashlib.sha256(lock).hexdigest()[:16]
    problem = _install(folder)
    if problem:
        reason = f"the JavaScript SDK is not tested: npm could not install it: {problem}"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return folder


def _missing_tool() -> str:
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "node and npm are not on this machine"
    version = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout.strip()
    is_new_enough = int(version.removeprefix("v").split(".")[0]) >= OLDEST_NODE
    return "" if is_new_enough else f"node {version} is older than {OLDEST_NODE}"


def _install(folder: Path) -> str:
    """Have the packages in that folder; gives back what went wrong."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock, tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return ""
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SOURCES / name, scratch)
        problem = _npm_ci(Path(scratch))
        if not problem:
            shutil.copytree(scratch, folder)
        return problem


def _npm_ci(folder: Path) -> str:
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries=1"]
    try:
        done = subprocess.run(
            ["npm", "ci", *options],
            check=False,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"nothing after {INSTALL_SECONDS} s"
    assert "EINTEGRITY" not in done.stderr, "a package is not the one that the lock file names"
    lines = [line for line in done.stderr.splitlines() if line.startswith("npm error")]
    return "" if done.returncode == 0 else (lines or [f"status {done.returncode}"])[0]
