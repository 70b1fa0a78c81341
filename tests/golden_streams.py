"""The streams that the official Python SDK is tested with, out of its pinned source package; never part of the tree.

pip fetches the package once, into the ignored `.cache` folder, and runs nothing of it: where it asks the package's
build system for name and version, a stand-in of three lines answers.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / ".cache" / "golden-streams"
VERSION = "2.14.0"
SHA256 = "afb02f4df8efba429ff769bbfd71340d8b244b41ba42c073a45cc307702549fe"
INSIDE = (f"anthropic-{VERSION}/tests/lib/streaming/fixtures/", f"anthropic-{VERSION}/tests/fixtures/fable-fallback/")
FETCH_SECONDS = 240
MAX_STREAM_BYTES = 200_000

STAND_IN = f"""
from pathlib import Path

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    made = Path(folder, "anthropic-{VERSION}.dist-info")
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\\nName: anthropic\\nVersion: {VERSION}\\n")
    return made.name
"""


@cache
def golden_streams() -> dict[str, bytes]:
    """Name -> the bytes of a stream; skips the test where no package index can be reached, but not in CI."""
    problem = _fetch()
    if problem:
        missing = f"the streams of anthropic {VERSION} could not be fetched: {problem}"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return {path.stem: path.read_bytes() for path in sorted((FOLDER / VERSION).iterdir())}


def _fetch() -> str:
    """Have the streams in their folder; gives back what went wrong."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock, tempfile.TemporaryDirectory(dir=FOLDER) as name:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (FOLDER / VERSION).is_dir():
            return ""
        scratch = Path(name)
        problem = _download(scratch)
        if not problem:
            _take_out(scratch)
        return problem


def _download(scratch: Path) -> str:
    (scratch / "hatchling").mkdir()
    (scratch / "hatchling" / "__init__.py").touch()
    (scratch / "hatchling" / "build.py").write_text(STAND_IN)
    options = ["--no-deps", "--no-binary=:all:", "--no-build-isolation", "--no-cache-dir", "--no-input", "--retries=1"]
    command = [sys.executable, "-m", "pip", "download", *options, "--quiet", "--disable-pip-version-check"]
    try:
        subprocess.run(
            [*command, "--dest", str(scratch), f"anthropic=={VERSION}"],
            check=True,
            capture_output=True,
            env=os.environ | {"PYTHONPATH": str(scratch)},
            text=True,
            timeout=FETCH_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"nothing after {FETCH_SECONDS} s"
    except subprocess.CalledProcessError as error:
        return str(error.stderr).strip().rpartition("\n")[2]
    return ""


def _take_out(scratch: Path) -> None:
    (package,) = scratch.glob("*.tar.gz")
    assert hashlib.sha256(package.read_bytes()).hexdigest() == SHA256, f"this is another anthropic {VERSION}"
    folder = scratch / "streams"
    folder.mkdir()
    with tarfile.open(package) as archive:
        for member in archive:
            path = Path(member.name)
            is_stream = member.name.startswith(INSIDE) and path.suffix in {".txt", ".sse"} and member.isfile()
            content = archive.extractfile(member) if is_stream and member.size <= MAX_STREAM_BYTES else None
            if content is not None:
                (folder / path.name).write_bytes(content.read())
    folder.rename(FOLDER / VERSION)
