"""What this machine is, and how fast it copies and multiplies: the roofline that results are held against."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

COPY_BYTES = {"gpu": 4 * 2**30, "cpu": 2**28}
MATRIX_WIDTH = {"gpu": 8192, "cpu": 512}
ROUNDS = 10
NAMES_OF_ONE = ("uuid", "pci_bus_id")
"""They tell one card from another of its kind."""


def measured() -> dict[str, Any]:
    """The facts, from a process of its own, which gives its memory back."""
    done = subprocess.run([sys.executable, __file__], check=True, capture_output=True, text=True)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def _measure() -> dict[str, Any]:
    import mlx.core as mx  # noqa: PLC0415 - in the child alone

    kind = "gpu" if mx.default_device().type == mx.gpu else "cpu"
    source = mx.random.uniform(shape=(COPY_BYTES[kind] // 4,))
    width = MATRIX_WIDTH[kind]
    matrices = mx.random.normal((2, width, width)).astype(mx.bfloat16 if kind == "gpu" else mx.float32)
    mx.eval(source, matrices)
    copy_seconds = _seconds(lambda number: mx.eval(source + float(number)))
    product_seconds = _seconds(lambda _: mx.eval(matrices[0] @ matrices[1]))
    return {
        "device": {name: str(value) for name, value in mx.device_info().items() if name not in NAMES_OF_ONE},
        "kind": kind,
        "copy_bytes_per_second": 2 * source.nbytes / copy_seconds,
        "matrix_flops_per_second": 2 * width**3 / product_seconds,
    }


def _seconds(step: Any) -> float:
    """The shortest of a few rounds."""
    step(0)
    times = []
    for number in range(ROUNDS):
        began = time.perf_counter()
        step(number)
        times.append(time.perf_counter() - began)
    return min(times)


def versions() -> dict[str, str]:
    """Versions of what was measured."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in ("mlx", "mlx-lm", "mlx-cuda-13", "mlx-cpu", "xllamacpp"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    print(json.dumps(_measure()))
