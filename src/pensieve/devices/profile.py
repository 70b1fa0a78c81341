"""What this machine is, as plain facts. Imports no engine: what only MLX can say, a child process is asked.

A child that is missing, crashes or hangs is a fact with its reason, never an error.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Literal

import msgspec

from pensieve.devices import darwin
from pensieve.devices.memory import MemoryReading, read_memory

DeviceKind = Literal["metal", "cuda", "cpu"]

PROBE_MODULE = "pensieve.inference.mlx.probe"
PROBE_SECONDS = 60.0
"""The first use of a graphics card can take long; a child that takes longer is ended."""

ENGINES = ("xllamacpp", "mlx", "mlx-lm")
_REASON_CHARACTERS = 300


class MlxDevice(msgspec.Struct, frozen=True, kw_only=True):
    """The device MLX computes on by default, as it says itself; 0 and empty where it does not say."""

    kind: DeviceKind
    name: str = ""
    architecture: str = ""
    uuid: str = ""
    working_set_bytes: int = 0
    """Memory the device may hold at once: recommended by Metal, the whole card under CUDA, 0 on a CPU."""
    total_bytes: int = 0
    version: str = ""
    lm_version: str = ""


class MlxUnusable(msgspec.Struct, frozen=True):
    """MLX cannot be used here, and why."""

    reason: str


class MachineProfile(msgspec.Struct, frozen=True, kw_only=True):
    """A machine as its doctor sees it. Numbers are None and texts empty where the system does not say."""

    system: str
    architecture: str
    chip: str
    num_cores: int
    """Processors this process may run on."""
    memory: MemoryReading
    mlx: MlxDevice | MlxUnusable
    engines: dict[str, str]
    """Versions of the engines' packages that are installed."""
    python: str

    @property
    def device(self) -> DeviceKind:
        """Where models run fastest here: on MLX's device, or on the processor."""
        return self.mlx.kind if isinstance(self.mlx, MlxDevice) else "cpu"


def read_profile(timeout_seconds: float = PROBE_SECONDS) -> MachineProfile:
    """Ask the system, and MLX through a child. Blocks for a second or two, at most for the time-out."""
    engines = installed_engines()
    return MachineProfile(
        system=f"{platform.system()} {platform.release()}",
        architecture=platform.machine(),
        chip=chip_name(),
        num_cores=_num_cores(),
        memory=read_memory(),
        mlx=ask_mlx(timeout_seconds) if "mlx" in engines else MlxUnusable("it is not installed"),
        engines=engines,
        python=platform.python_version(),
    )


def installed_engines() -> dict[str, str]:
    """Versions by package name, from what is installed; imports none of them."""
    found: dict[str, str] = {}
    for package in ENGINES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def chip_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as its maker writes it; empty where the system does not say."""
    if sys.platform == "darwin":  # pragma: no cover - no such machine runs our tests
        return darwin.sysctl_text("machdep.cpu.brand_string")
    try:
        lines = cpuinfo.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    names = (line.partition(":")[2] for line in lines if line.startswith(("model name", "Model")))
    return " ".join(next(names, "").split())


def ask_mlx(timeout_seconds: float = PROBE_SECONDS, *, module: str = PROBE_MODULE) -> MlxDevice | MlxUnusable:
    """What MLX says of its device, computed with once, in a process of its own that may crash or hang."""
    command = (sys.executable, "-P", "-m", module, "--json")  # -P: nothing of the folder we are called in is imported
    try:
        child = subprocess.run(  # noqa: S603 - our own module under our own interpreter
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return MlxUnusable(f"it did not answer within {timeout_seconds:.0f} s")
    except OSError as error:
        return MlxUnusable(f"it could not be asked: {error.strerror or error}")
    if child.returncode != 0:
        return MlxUnusable(_reason(child.returncode, child.stderr))
    try:
        return msgspec.json.decode(child.stdout.strip().rpartition(b"\n")[2], type=MlxDevice)
    except msgspec.DecodeError as error:
        return MlxUnusable(f"its answer cannot be read: {error}")


def _reason(status: int, stderr: bytes) -> str:
    """The last line a failed child wrote, or the signal that ended it."""
    last = stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:_REASON_CHARACTERS].strip()
    ended = f"signal {-status} ended it" if status < 0 else f"it failed with status {status}"
    return f"{ended}: {last}" if last else ended


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
