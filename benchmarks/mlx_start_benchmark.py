"""What a worker of MLX imports, against the same with mlx-lm imported as a whole, as it asks for.

Run with `python benchmarks/mlx_start_benchmark.py`. Prints processor time and resident memory, medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

import report

ROUNDS = 7
WAYS = {
    "mlx-lm as a whole": "import mlx_lm, pensieve.inference.mlx.backend",
    "the models alone (what a worker does)": "import pensieve.inference.mlx.backend",
}
TELL = """
import resource
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
"""


def imported(words: str) -> tuple[float, float]:
    """Seconds on the processor, and megabytes, of a process that imports it."""
    told = subprocess.run([sys.executable, "-c", words + TELL], check=True, capture_output=True, text=True).stdout
    seconds, kibibytes = told.split()
    return float(seconds), float(kibibytes) * 1024 / 1e6


def main() -> None:
    """Print a row for each way, in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(".cache/benchmarks"))
    chosen = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody's worker compiles the program again
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for _ in range(ROUNDS + 1):
        for name, words in WAYS.items():
            found[name].append(imported(words))
    rows: list[tuple[str, float, float]] = []
    for name, times in found.items():
        seconds, megabytes = (statistics.median(each[place] for each in times[1:]) for place in (0, 1))
        rows.append((name, seconds, megabytes))
    lines = [f"| {name} | {seconds:.2f} | {megabytes:.0f} |" for name, seconds, megabytes in rows]
    ratio = f"{rows[1][1] / rows[0][1]:.2f} times the time, {rows[0][2] - rows[1][2]:.0f} MB less."
    text = "\n".join(["| imported | seconds of processor time | MB |", "|---|---|---|", *lines, "", ratio])
    report.write(chosen.out, "mlx-start", "What a worker of MLX imports", text, {"rows": rows})
    print(text)


if __name__ == "__main__":
    main()
