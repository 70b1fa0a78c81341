"""From the command to a listening server, with no model loaded."""

from __future__ import annotations

import time

from serving import median_ms, running_server

ROUNDS = 7


def main() -> None:
    """Print the median and the worst."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        with running_server():
            times.append(time.perf_counter() - began)
    print(f"start to listening, {ROUNDS} times (ms): median {median_ms(times):.0f}   worst {max(times) * 1e3:.0f}")


if __name__ == "__main__":
    main()
